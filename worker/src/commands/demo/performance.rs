//! One run of the demo: publishing the requests, and collecting their statuses until the final
//! ones.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use secrecy::SecretString;
use tokio::time::Instant;
use uuid::Uuid;
use voice_otp_publisher::statuses::StatusStream;
use voice_otp_publisher::{
    Message, Publisher, Settings, clock, connection, dead_letters, topology,
};
use voice_otp_schemas::TenantId;
use voice_otp_schemas::envelope::{STRUCTURED, Trace};
use voice_otp_schemas::request::{Cancelled, Requested, Target};
use voice_otp_schemas::status::StatusEvent;
use zeroize::Zeroizing;

use super::cases::{self, Action, Case};
use super::environment::{Environment, SPEED};
use super::report::{StatusesById, report};
use crate::commands::status_line;
use crate::output::print_line;

/// The limit of a run; every request is final long before it.
const MAX_DURATION: Duration = Duration::from_secs(150);
/// How long the run waits for a second final status, which must not come.
const LINGER: Duration = Duration::from_secs(2);

/// Runs the demo once. Returns whether every request had the expected outcome.
pub(super) async fn run(url: &SecretString, environment: &Environment) -> anyhow::Result<bool> {
    // The first digits of a UUID: delivery ids of several runs don't collide.
    let mut run = Uuid::new_v4().simple().to_string();
    run.truncate(4);
    let cases = cases::all(&run);
    declare_topology(url).await?;
    let dead_letters_before = dead_letters::count(url).await?;
    let mut statuses = StatusStream::subscribe(url, None).await?;
    let publisher = Publisher::start(Settings::new(url.clone(), "/voice-otp/demo"))?;
    print_line(&format!(
        "{} requests, 4 tenants, {}, simulated phones at {SPEED} times the speed of life\n",
        cases.len(),
        environment.workers()
    ))?;

    // The calls of earlier runs, which an attached simulator may still be playing.
    let earlier_calls = environment
        .calls()
        .await?
        .into_iter()
        .map(|call| call.sid)
        .collect();
    let mut collector = Collector {
        cases: &cases,
        publisher: &publisher,
        statuses: cases
            .iter()
            .map(|case| (case.id().to_owned(), Vec::new()))
            .collect(),
        other_calls: earlier_calls,
    };
    let collecting = tokio::time::timeout(MAX_DURATION, collector.collect(&mut statuses));
    let (published, collected) = tokio::join!(publish_all(&publisher, &cases, &run), collecting);
    published?;
    let all_final = match collected {
        Ok(result) => result.map(|()| true)?,
        Err(_) => false,
    };
    let dead_letters = dead_letters::count(url)
        .await?
        .saturating_sub(dead_letters_before);
    let Collector {
        statuses,
        other_calls,
        ..
    } = collector;
    publisher.close().await;
    let mut calls = environment.calls().await?;
    calls.retain(|call| !other_calls.contains(&call.sid));
    report(&cases, &statuses, &calls, dead_letters, all_final)
}

/// Declares the topology, so that dead letters can be counted before the first worker does it.
async fn declare_topology(url: &SecretString) -> anyhow::Result<()> {
    let connection = connection::connect(url, "voice-otp demo").await?;
    topology::declare_all(&connection.connection).await?;
    connection.close().await;
    Ok(())
}

async fn publish_all(publisher: &Publisher, cases: &[Case], run: &str) -> anyhow::Result<()> {
    for case in cases {
        publish(publisher, case)
            .await
            .with_context(|| format!("publish {}", case.id()))?;
    }
    // It names no delivery that a status could be about, so it is dead-lettered.
    publisher
        .publish(unreadable(run))
        .await
        .context("publish the unreadable message")
}

async fn publish(publisher: &Publisher, case: &Case) -> anyhow::Result<()> {
    match &case.action {
        Action::None | Action::CancelAt(_) => publisher.request(&case.request).await?,
        Action::PublishDuplicate => {
            publisher.request(&case.request).await?;
            publisher
                .request(&case.request)
                .await
                .context("publish the duplicate")?;
        }
        Action::PublishConflict(other) => {
            publisher.request(&case.request).await?;
            publisher
                .request(other)
                .await
                .context("publish the conflicting duplicate")?;
        }
        // `Collector` does.
        Action::PublishAfterOthers(_) => {}
    }
    Ok(())
}

fn unreadable(run: &str) -> Message {
    Message {
        exchange: topology::REQUESTS,
        routing_key: topology::REQUESTED_KEY.to_owned(),
        message_id: format!("demo/{run}/unreadable"),
        kind: "demo",
        content_type: STRUCTURED,
        headers: Vec::new(),
        expiration: None,
        body: Zeroizing::new(b"{\"this is\": \"no event\"".to_vec()),
    }
}

/// Prints and keeps statuses, and publishes what depends on them.
struct Collector<'a> {
    cases: &'a [Case],
    publisher: &'a Publisher,
    statuses: StatusesById,
    /// The SIDs of calls that are of other deliveries than the demo's.
    other_calls: HashSet<String>,
}

impl Collector<'_> {
    /// Collects statuses until every request is final, and for [`LINGER`] after that.
    async fn collect(&mut self, stream: &mut StatusStream) -> anyhow::Result<()> {
        let mut until: Option<Instant> = None;
        loop {
            let next = match until {
                Some(until) => match tokio::time::timeout_at(until, stream.next_status()).await {
                    Ok(next) => next,
                    Err(_) => return Ok(()),
                },
                None => stream.next_status().await,
            };
            let event = next.ok_or_else(|| anyhow!("the connection to the broker was lost"))?;
            self.record(event).await?;
            if until.is_none() && self.is_every_request_final() {
                until = Some(Instant::now() + LINGER);
            }
        }
    }

    async fn record(&mut self, event: StatusEvent) -> anyhow::Result<()> {
        let id = event.data.delivery_id.as_str().to_owned();
        let Some(statuses) = self.statuses.get_mut(&id) else {
            self.other_calls.extend(event.data.call_sid);
            return Ok(());
        };
        print_line(&status_line::status(&event))?;
        let Some(case) = self.cases.iter().find(|case| case.id() == id) else {
            return Ok(());
        };
        let (is_first, status) = (statuses.is_empty(), event.data.status);
        statuses.push(event);
        match case.action {
            Action::CancelAt(at) if at == status => {
                let cancelled = Cancelled {
                    tenant_id: case.request.tenant_id.clone(),
                    target: Target::Delivery(case.request.delivery_id.clone()),
                    time: None,
                };
                self.publisher
                    .cancel(&format!("{id}-cancel"), &cancelled, &Trace::default())
                    .await
                    .context("cancel a request")?;
            }
            Action::PublishAfterOthers(_) => return Ok(()),
            _ => {}
        }
        if is_first {
            self.publish_after_others(&case.request.tenant_id).await?;
        }
        Ok(())
    }

    fn is_every_request_final(&self) -> bool {
        let is_final =
            |statuses: &Vec<StatusEvent>| statuses.iter().any(|event| event.data.is_final);
        self.statuses.values().all(is_final)
    }

    /// Publishes the tenant's requests with [`Action::PublishAfterOthers`], if each of its other
    /// requests has a status.
    async fn publish_after_others(&self, tenant: &TenantId) -> anyhow::Result<()> {
        let of_tenant = || {
            self.cases
                .iter()
                .filter(|case| case.request.tenant_id == *tenant)
        };
        let has_status = |case: &Case| {
            self.statuses
                .get(case.id())
                .is_some_and(|statuses| !statuses.is_empty())
        };
        let waits = |case: &Case| matches!(case.action, Action::PublishAfterOthers(_));
        if !of_tenant().all(|case| waits(case) || has_status(case)) {
            return Ok(());
        }
        for case in of_tenant() {
            if let Action::PublishAfterOthers(time_to_live) = case.action {
                let now = clock::now();
                let request = Requested {
                    expires_at: now + time_to_live,
                    time: Some(now),
                    ..case.request.clone()
                };
                let published = self.publisher.request(&request).await;
                published.with_context(|| format!("publish {}", case.id()))?;
            }
        }
        Ok(())
    }
}
