//! Statuses as they are said: server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;
use voice_otp_schemas::{DeliveryId, TenantId};

use super::Names;
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::hub::Live;
use crate::console::problem::Problem;

/// What comes within this time comes together, so that a flood is a few pictures a second, and not a flicker.
const TOGETHER: Duration = Duration::from_millis(200);
/// The most that come together; more than these nobody could read. How many were left out is told.
const MOST: usize = 50;
/// How often it is looked whether who listens still may.
const RECHECK: Duration = Duration::from_secs(30);

/// The tenant's statuses as they are said: events `statuses`, each a JSON array; `missed` tells how many were left out.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/events", params(("tenant" = String, Path)),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn tenant(
    State(console): State<Arc<Console>>,
    Names(tenant): Names<String>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let tenant = caller.tenant(&tenant)?;
    Ok(stream(console, headers, tenant, None))
}

/// One delivery's statuses: those known, then as they are said.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/deliveries/{delivery}/events",
    params(("tenant" = String, Path), ("delivery" = String, Path)),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn delivery(
    State(console): State<Arc<Console>>,
    Names((tenant, delivery)): Names<(String, String)>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let tenant = caller.tenant(&tenant)?;
    let delivery = DeliveryId::parse(&delivery).map_err(|_| Problem::not_found())?;
    Ok(stream(console, headers, tenant, Some(delivery)))
}

struct Listener {
    console: Arc<Console>,
    headers: HeaderMap,
    tenant: TenantId,
    delivery: Option<DeliveryId>,
    statuses: Receiver<Arc<Live>>,
    /// Known before it began to listen.
    known: Vec<Arc<Live>>,
    recheck: Instant,
}

fn stream(
    console: Arc<Console>,
    headers: HeaderMap,
    tenant: TenantId,
    delivery: Option<DeliveryId>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    // First listen, then look: what is said meanwhile comes twice rather than never.
    let statuses = console.hub.subscribe();
    let known = delivery
        .as_ref()
        .map(|delivery| console.hub.of(&tenant, delivery.as_str()))
        .unwrap_or_default();
    let recheck = Instant::now() + RECHECK;
    let listener = Listener {
        console,
        headers,
        tenant,
        delivery,
        statuses,
        known,
        recheck,
    };
    let events = unfold(listener, |mut listener| async {
        listener.next().await.map(|event| (Ok(event), listener))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

impl Listener {
    fn is_mine(&self, live: &Live) -> bool {
        live.data.tenant_id == self.tenant
            && self
                .delivery
                .as_ref()
                .is_none_or(|delivery| live.data.delivery_id == *delivery)
    }

    /// The next statuses; none when the console stops, or who listens may not any more.
    async fn next(&mut self) -> Option<Event> {
        if !self.known.is_empty() {
            return Some(event(&std::mem::take(&mut self.known), 0));
        }
        let stop = self.console.stop.clone();
        let mut together = Vec::new();
        let mut missed = 0;
        let mut until = None;
        loop {
            let wait_until = until.unwrap_or(self.recheck).min(self.recheck);
            tokio::select! {
                told = self.statuses.recv() => match told {
                    Ok(live) => if self.is_mine(&live) {
                        until.get_or_insert_with(|| Instant::now() + TOGETHER);
                        if together.len() < MOST { together.push(live) } else { missed += 1 }
                    },
                    Err(RecvError::Lagged(many)) => {
                        missed += many;
                        until.get_or_insert_with(|| Instant::now() + TOGETHER);
                    }
                    Err(RecvError::Closed) => return None,
                },
                () = tokio::time::sleep_until(wait_until) => {
                    if Instant::now() >= self.recheck {
                        self.recheck = Instant::now() + RECHECK;
                        self.still_may().await?;
                    }
                    if until.is_some_and(|until| Instant::now() >= until) {
                        return Some(event(&together, missed));
                    }
                }
                () = stop.cancelled() => return None,
            }
            // What is there already is taken without a wait.
            while let Some(live) = self.try_next(&mut missed) {
                if self.is_mine(&live) {
                    until.get_or_insert_with(|| Instant::now() + TOGETHER);
                    if together.len() < MOST {
                        together.push(live)
                    } else {
                        missed += 1
                    }
                }
            }
        }
    }

    fn try_next(&mut self, missed: &mut u64) -> Option<Arc<Live>> {
        loop {
            match self.statuses.try_recv() {
                Ok(live) => return Some(live),
                Err(TryRecvError::Lagged(many)) => *missed += many,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    async fn still_may(&self) -> Option<()> {
        let caller = Caller::of(&self.console, &self.headers).await.ok()??;
        caller.tenant(self.tenant.as_str()).ok().map(drop)
    }
}

fn event(statuses: &[Arc<Live>], missed: u64) -> Event {
    let list: Vec<&str> = statuses.iter().map(|live| live.json.as_str()).collect();
    Event::default().event("statuses").data(format!(
        "{{\"statuses\":[{}],\"missed\":{missed}}}",
        list.join(",")
    ))
}
