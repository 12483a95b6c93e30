//! `voice-otp demo`: real events through a real RabbitMQ and a real Postgres to simulated phones.

mod cases;
mod stage;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp_publisher::{Message, Publisher, Settings, topology};
use voice_otp_schemas::TenantId;
use voice_otp_schemas::envelope::{STRUCTURED, Trace};
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::request::{Cancelled, Requested, Target};
use voice_otp_schemas::status::{Status, StatusEvent};
use voice_otp_store::access::{self, Role};
use voice_otp_store::pool::Pool;
use voice_otp_store::{Keyring, connect, migrate};
use voice_otp_twilio::simulator::CallReport;
use zeroize::Zeroizing;

use crate::cli::Demo;
use crate::config::Checks;
use crate::console;
use crate::tail::{Tail, line};
use crate::telemetry::say;
use crate::verb::{Failed, publish_clock, signals};
use cases::{Case, Deed};
use stage::Stage;

/// How a request ended: the statuses that were said of it.
type Endings = HashMap<String, Vec<StatusEvent>>;

/// Everything has ended long before.
const LONGEST: Duration = Duration::from_secs(150);
/// A second ending of a request would come within this.
const AFTERMATH: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: Demo) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let (amqp_url, database_url) = (checks.broker(&args.broker), checks.database(&args.database));
    let given = args.sealing.keys.is_some() || args.sealing.keys_file.is_some();
    let keys = if given {
        checks.keys(&args.sealing)
    } else {
        Keyring::parse(&Keyring::generate("demo")).ok()
    };
    let elsewhere = checks.url("--simulator", args.simulator.as_ref());
    let console_url = checks.url("--console", args.console.as_ref());
    if elsewhere.is_some() && !given {
        checks.wrong(
            "VOICE_OTP_KEYS: the ones of the running workers must be given with --simulator",
        );
    }
    let (amqp_url, database_url, keys) = checks.done(
        amqp_url
            .zip(database_url)
            .zip(keys)
            .map(|((a, d), k)| (a, d, k)),
    )?;
    let (soft, _) = signals();

    let pool = connect(&database_url, 2).context("use the database URL")?;
    migrate::apply(&pool)
        .await
        .context("migrate the database")?;
    let stage = match elsewhere {
        Some(simulator) => Stage::find(simulator, &keys, &pool).await?,
        None => Stage::set(&amqp_url, &database_url, &keys, &pool).await?,
    };
    let showing = if args.once {
        None
    } else if let Some(url) = &console_url {
        Some(Showing::elsewhere(url.as_str(), &pool).await?)
    } else {
        let (twilio_url, public_url) = stage.reach();
        let settings = console::Settings {
            amqp_url: amqp_url.clone(),
            database_url: database_url.clone(),
            keys: keys.clone(),
            twilio_url: Some(twilio_url),
            public_url,
            https: false,
        };
        Some(Showing::start(settings, &pool).await?)
    };
    let told = tokio::select! {
        told = perform(&amqp_url, &stage) => told,
        () = soft.cancelled() => Err(anyhow!("interrupted")),
    };
    let right = match told {
        Ok(right) => right,
        Err(error) => {
            if let Some(showing) = showing {
                showing.stop().await;
            }
            stage.strike().await;
            return Err(Failed::Error(error));
        }
    };
    if !args.once && right {
        say(
            "\nThe demo goes on until Ctrl-C: publish more in another terminal, after eval \"$(./dev env)\":",
        )?;
        say("  voice-otp publish --tenant demo-acme --to +12125550142 --code 493027 --wait")?;
        if let Some(showing) = &showing {
            say("")?;
            showing.invite(&pool).await?;
        }
        watch_on(&amqp_url, &soft).await;
    }
    if let Some(showing) = showing {
        showing.stop().await;
    }
    stage.strike().await;
    if right { Ok(()) } else { Err(Failed::Told) }
}

/// The console, while the demo goes on.
struct Showing {
    /// Without a path.
    url: String,
    token: uuid::Uuid,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The console's usual port, or any, if somebody has that.
const CONSOLE_PORTS: [u16; 2] = [8081, 0];

impl Showing {
    async fn start(settings: console::Settings, pool: &Pool) -> anyhow::Result<Self> {
        let mut bound = Err(anyhow!("no port"));
        for port in CONSOLE_PORTS {
            bound = TcpListener::bind(("127.0.0.1", port))
                .await
                .context("listen for the console");
            if bound.is_ok() {
                break;
            }
        }
        let listener = bound?;
        let address = listener
            .local_addr()
            .context("read the console's address")?;
        let showing = Self::elsewhere(&format!("http://{address}"), pool).await?;
        let serving = console::serve(settings, listener, showing.stop.clone());
        showing.tasks.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "the console failed"
                );
            }
        });
        Ok(showing)
    }

    /// One that runs at this address.
    async fn elsewhere(url: &str, pool: &Pool) -> anyhow::Result<Self> {
        // Good for as long as somebody may look at a demo.
        let (token, _) = access::create(pool, "demo", &Role::Operator, Duration::from_hours(24))
            .await
            .context("make a token")?;
        let url = url.trim_end_matches('/').to_owned();
        let showing = Self {
            url,
            token,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        showing.invite(pool).await?;
        Ok(showing)
    }

    /// Prints where the console is, and a link that signs in there once. The code is in the fragment, which no server sees.
    async fn invite(&self, pool: &Pool) -> anyhow::Result<()> {
        let code = access::sign_in_code(pool, self.token)
            .await
            .context("make a sign-in link")?;
        say(&format!(
            "Console: {}  sign in, once and within a minute:",
            self.url
        ))?;
        say(&format!(
            "  {}/sign-in#code={}",
            self.url,
            code.expose_secret()
        ))
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn watch_on(url: &SecretString, soft: &tokio_util::sync::CancellationToken) {
    let Ok(mut tail) = Tail::start(url, None).await else {
        return;
    };
    loop {
        tokio::select! {
            next = tail.next() => match next {
                Some((_, told)) => if say(&told.line()).is_err() { return },
                None => return,
            },
            () = soft.cancelled() => return,
        }
    }
}

async fn perform(url: &SecretString, stage: &Stage) -> anyhow::Result<bool> {
    let run = uuid::Uuid::new_v4().simple().to_string();
    let run = run.get(..4).unwrap_or("demo");
    let cases = cases::all(run);
    let letters_before = dead_letters(url).await?;
    let mut tail = Tail::start(url, None).await?;
    let publisher = Publisher::start(Settings::new(url.clone(), "/voice-otp/demo"))?;
    say(&format!(
        "{} requests, 4 tenants, {}, simulated phones at 4 times the speed of life\n",
        cases.len(),
        stage.workers()
    ))?;

    let mut endings: Endings = cases.iter().map(|case| (case.id(), Vec::new())).collect();
    // Calls of a run before this one: told before, or of a delivery that isn't of this one.
    let mut others: HashSet<String> = stage
        .calls()
        .await?
        .into_iter()
        .map(|call| call.sid)
        .collect();
    let publishing = async {
        for case in &cases {
            if !matches!(case.deed, Deed::AfterOthers(_)) {
                publish(&publisher, case).await?;
            }
        }
        // Nobody can be answered about this one: it goes to the dead letters.
        publisher
            .publish(unreadable(run))
            .await
            .context("publish the unreadable message")?;
        anyhow::Ok(())
    };
    let listening = listen(&mut tail, &cases, &publisher, &mut endings, &mut others);
    let (published, listened) = tokio::join!(publishing, tokio::time::timeout(LONGEST, listening));
    published?;
    let all_ended = matches!(listened, Ok(Ok(())));
    if let Ok(Err(error)) = listened {
        return Err(error);
    }
    let letters = dead_letters(url).await?.saturating_sub(letters_before);
    publisher.close().await;
    let mut calls = stage.calls().await?;
    calls.retain(|call| !others.contains(&call.sid));
    report(&cases, &endings, &calls, letters, all_ended)
}

async fn publish(publisher: &Publisher, case: &Case) -> anyhow::Result<()> {
    publisher
        .request(&case.request)
        .await
        .with_context(|| format!("publish {}", case.id()))?;
    match &case.deed {
        Deed::Repeat => publisher
            .request(&case.request)
            .await
            .context("publish it again")?,
        Deed::Conflict(other) => publisher
            .request(other)
            .await
            .context("publish another under its id")?,
        Deed::CancelAt(_) | Deed::AfterOthers(_) | Deed::None => {}
    }
    Ok(())
}

/// Publishes what waits for the other requests of this tenant, if all of those have a status.
async fn publish_after_others(
    tenant: &TenantId,
    cases: &[Case],
    publisher: &Publisher,
    endings: &Endings,
) -> anyhow::Result<()> {
    let told = |case: &Case| {
        endings
            .get(&case.id())
            .is_some_and(|statuses| !statuses.is_empty())
    };
    let of_tenant = || {
        cases
            .iter()
            .filter(|case| case.request.tenant_id == *tenant)
    };
    if !of_tenant().all(|case| matches!(case.deed, Deed::AfterOthers(_)) || told(case)) {
        return Ok(());
    }
    for case in of_tenant() {
        if let Deed::AfterOthers(life) = case.deed {
            let now = publish_clock();
            let request = Requested {
                expires_at: now + life,
                time: Some(now),
                ..case.request.clone()
            };
            publisher
                .request(&request)
                .await
                .with_context(|| format!("publish {}", case.id()))?;
        }
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

/// Shows statuses until every request has ended, and a little longer; cancels what is to be cancelled on the way. Notes the calls of
/// other deliveries: an interrupted run's are still placed.
async fn listen(
    tail: &mut Tail,
    cases: &[Case],
    publisher: &Publisher,
    endings: &mut Endings,
    others: &mut HashSet<String>,
) -> anyhow::Result<()> {
    let mut until: Option<tokio::time::Instant> = None;
    loop {
        let next = match until {
            Some(until) => match tokio::time::timeout_at(until, tail.next_status()).await {
                Ok(next) => next,
                Err(_) => return Ok(()),
            },
            None => tail.next_status().await,
        };
        let event = next.ok_or_else(|| anyhow!("the connection to the broker was lost"))?;
        let id = event.data.delivery_id.as_str().to_owned();
        let Some(statuses) = endings.get_mut(&id) else {
            others.extend(event.data.call_sid);
            continue;
        };
        say(&line(&event))?;
        let cancels =
            |case: &&Case| case.id() == id && case.deed == Deed::CancelAt(event.data.status);
        if let Some(case) = cases.iter().find(cancels) {
            let cancelled = Cancelled {
                tenant_id: case.request.tenant_id.clone(),
                target: Target::Delivery(case.request.delivery_id.clone()),
            };
            publisher
                .cancel(&format!("{id}-cancel"), &cancelled, &Trace::default())
                .await
                .context("cancel a request")?;
        }
        let (first, tenant) = (statuses.is_empty(), event.data.tenant_id.clone());
        statuses.push(event);
        let waits = |case: &Case| case.id() == id && matches!(case.deed, Deed::AfterOthers(_));
        if first && !cases.iter().any(waits) {
            publish_after_others(&tenant, cases, publisher, endings).await?;
        }
        let ended = |statuses: &Vec<StatusEvent>| statuses.iter().any(|event| event.data.is_final);
        if until.is_none() && endings.values().all(ended) {
            until = Some(tokio::time::Instant::now() + AFTERMATH);
        }
    }
}

async fn dead_letters(url: &SecretString) -> anyhow::Result<u32> {
    let link = voice_otp_publisher::link::connect(url, "voice-otp demo").await?;
    topology::declare_all(&link.connection).await?;
    let channel = link.connection.create_channel().await?;
    let look = lapin::options::QueueDeclareOptions {
        passive: true,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
    };
    let queue = channel
        .queue_declare(
            topology::DEAD.into(),
            look,
            lapin::types::FieldTable::default(),
        )
        .await?;
    let count = queue.message_count();
    link.close().await;
    Ok(count)
}

/// Prints what became of everything; true if it is what should have.
fn report(
    cases: &[Case],
    endings: &Endings,
    calls: &[CallReport],
    letters: u32,
    all_ended: bool,
) -> anyhow::Result<bool> {
    let mut rows: Vec<((Status, Option<ReasonCode>), u32, u32)> = Vec::new();
    let mut wrong = Vec::new();
    for case in cases {
        let statuses = endings.get(&case.id()).map_or(&[][..], Vec::as_slice);
        let finals: Vec<&StatusEvent> = statuses
            .iter()
            .filter(|event| event.data.is_final)
            .collect();
        let got = finals.first().map(|event| {
            (
                event.data.status,
                event.data.reason.as_ref().map(|reason| reason.code),
            )
        });
        let in_order = (1..)
            .zip(statuses)
            .all(|(sequence, event): (u32, _)| event.data.sequence == sequence);
        let right = finals.len() == 1 && got == Some(case.ends) && in_order;
        if !right {
            wrong.push(format!(
                "  {} {}: {} endings, in order: {in_order}, {got:?} instead of {:?}",
                case.id(),
                case.what,
                finals.len(),
                case.ends
            ));
        }
        match rows.iter_mut().find(|(ends, ..)| *ends == case.ends) {
            Some((_, wanted, matched)) => {
                *wanted += 1;
                *matched += u32::from(right);
            }
            None => rows.push((case.ends, 1, u32::from(right))),
        }
    }
    rows.sort_by_key(|(ends, ..)| *ends);
    say(&format!(
        "\n{:<12} {:<24} {:>8} {:>8}",
        "ending", "reason", "requests", "as meant"
    ))?;
    for ((status, reason), wanted, matched) in &rows {
        let reason = reason
            .and_then(|code| serde_json::to_value(code).ok())
            .and_then(|code| code.as_str().map(str::to_owned));
        say(&format!(
            "{status:<12} {:<24} {wanted:>8} {matched:>8}",
            reason.unwrap_or_default()
        ))?;
    }
    say(&format!(
        "{:<37} {:>8} {letters:>8}",
        "dead letters",
        cases::DEAD_LETTERS
    ))?;
    let spoken = cases
        .iter()
        .find(|case| case.ends.0 == Status::Delivered && case.deed == Deed::None);
    let call = spoken.and_then(|case| {
        Some((
            case,
            calls
                .iter()
                .find(|call| call.to == case.request.to.expose())?,
        ))
    });
    let mut heard_right = false;
    if let Some((case, call)) = call {
        heard_right = call.digits_heard == case.request.code.expose();
        say(&format!(
            "\nWhat {} heard ({} s, picked up by {}):",
            case.request.to,
            call.duration_s.unwrap_or(0),
            call.picked_up_by.as_deref().unwrap_or("nobody")
        ))?;
        say(&format!("  {}", call.transcript))?;
    }
    let mut kept_safe = false;
    if let Some(call) = calls.iter().find(|call| call.to == cases::MACHINE) {
        kept_safe = call.readings_heard == 0;
        say(&format!(
            "\nWhat a machine heard where a key must be pressed ({} s):\n  {}",
            call.duration_s.unwrap_or(0),
            call.transcript
        ))?;
    }
    let doubles = called_twice(calls, cases);
    if !doubles.is_empty() {
        wrong.push(format!("  called more than once: {doubles:?}"));
    }
    let right =
        wrong.is_empty() && all_ended && heard_right && kept_safe && letters == cases::DEAD_LETTERS;
    if right {
        say(&format!(
            "\nall {} requests ended as they should, each once",
            cases.len()
        ))?;
    } else {
        say("\nnot as it should be:")?;
        for text in wrong {
            say(&text)?;
        }
    }
    Ok(right)
}

/// Every number of the demo belongs to one request, so none is called more often than that one allows.
fn called_twice(calls: &[CallReport], cases: &[Case]) -> Vec<String> {
    let called = |case: &&Case| {
        calls
            .iter()
            .filter(|call| call.to == case.request.to.expose())
            .count()
            > case.calls()
    };
    cases.iter().filter(called).map(Case::id).collect()
}
