//! Statuses as they are published, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;
use voice_otp_schemas::{DeliveryId, TenantId};

use super::extract::PathParams;
use crate::access::{Credential, Principal};
use crate::hub::LiveStatus;
use crate::problem::Problem;
use crate::state::Console;
use crate::stream_limit::OpenStream;

/// Statuses that arrive within this time are sent in one event, so that a page is drawn a few
/// times a second at most.
const BATCH_WINDOW: Duration = Duration::from_millis(200);
/// Statuses in one event; an event with more would be unreadable. The rest are counted as missed.
const MAX_BATCH: usize = 50;
/// How often a stream's authorization is checked again.
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

type Events<S> = Result<Sse<S>, Problem>;

/// Stream the statuses of a tenant as they are published.
///
/// Each `statuses` event is a JSON object: `statuses` is an array of statuses, `missed` counts
/// those that were left out.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/events", params(("tenant" = String, Path)),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn stream_tenant_statuses(
    State(console): State<Arc<Console>>,
    PathParams(tenant): PathParams<String>,
    principal: Principal,
    credential: Credential,
) -> Events<impl Stream<Item = Result<Event, Infallible>>> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let open = console.stream_limit.open(principal.token_id())?;
    Ok(stream(console, open, credential, tenant, None))
}

/// Stream the statuses of a delivery.
///
/// The recent statuses come first, then new ones as they are published.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/deliveries/{delivery}/events",
    params(("tenant" = String, Path), ("delivery" = String, Path)),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn stream_delivery_statuses(
    State(console): State<Arc<Console>>,
    PathParams((tenant, delivery)): PathParams<(String, String)>,
    principal: Principal,
    credential: Credential,
) -> Events<impl Stream<Item = Result<Event, Infallible>>> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let delivery = DeliveryId::parse(&delivery).map_err(|_| Problem::not_found())?;
    let open = console.stream_limit.open(principal.token_id())?;
    Ok(stream(console, open, credential, tenant, Some(delivery)))
}

/// A client that receives events.
struct Subscription {
    console: Arc<Console>,
    /// Counts while the stream is open.
    _open: OpenStream,
    /// What the client is authenticated with again.
    credential: Credential,
    tenant: TenantId,
    /// The only delivery, or every delivery of the tenant.
    delivery: Option<DeliveryId>,
    statuses: Receiver<Arc<LiveStatus>>,
    /// Statuses from before the subscription, sent first.
    recent: Vec<Arc<LiveStatus>>,
    /// When the authorization is checked again.
    recheck_at: Instant,
}

/// Statuses for the next event.
#[derive(Default)]
struct Batch {
    statuses: Vec<Arc<LiveStatus>>,
    missed: u64,
    /// When the event is sent; set by the first status.
    send_at: Option<Instant>,
}

fn stream(
    console: Arc<Console>,
    open: OpenStream,
    credential: Credential,
    tenant: TenantId,
    delivery: Option<DeliveryId>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    // Subscribe before reading the recent statuses: one published in between is sent twice, not
    // lost.
    let statuses = console.hub.subscribe();
    let recent = delivery
        .as_ref()
        .map(|delivery| console.hub.recent_statuses(&tenant, delivery.as_str()))
        .unwrap_or_default();
    let subscription = Subscription {
        console,
        _open: open,
        credential,
        tenant,
        delivery,
        statuses,
        recent,
        recheck_at: Instant::now() + RECHECK_INTERVAL,
    };
    let events = unfold(subscription, |mut subscription| async {
        let event = subscription.next_event().await?;
        Some((Ok(event), subscription))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

impl Subscription {
    fn includes(&self, live: &LiveStatus) -> bool {
        let is_delivery = |delivery: &DeliveryId| live.data.delivery_id == *delivery;
        live.data.tenant_id == self.tenant && self.delivery.as_ref().is_none_or(is_delivery)
    }

    /// The next event; `None` when the console shuts down or the client's authorization ends.
    async fn next_event(&mut self) -> Option<Event> {
        if !self.recent.is_empty() {
            return Some(event(&std::mem::take(&mut self.recent), 0));
        }
        let stop = self.console.stop.clone();
        let mut batch = Batch::default();
        loop {
            let wake_at = batch
                .send_at
                .unwrap_or(self.recheck_at)
                .min(self.recheck_at);
            tokio::select! {
                received = self.statuses.recv() => match received {
                    Ok(live) => if self.includes(&live) { batch.add(live) },
                    Err(RecvError::Lagged(missed)) => batch.add_missed(missed),
                    Err(RecvError::Closed) => return None,
                },
                () = tokio::time::sleep_until(wake_at) => {
                    if Instant::now() >= self.recheck_at {
                        self.recheck_at = Instant::now() + RECHECK_INTERVAL;
                        self.authorize_again().await?;
                    }
                    if batch.send_at.is_some_and(|send_at| Instant::now() >= send_at) {
                        return Some(event(&batch.statuses, batch.missed));
                    }
                }
                () = stop.cancelled() => return None,
            }
            self.receive_available(&mut batch);
        }
    }

    /// Adds every status that has already arrived, without waiting.
    fn receive_available(&mut self, batch: &mut Batch) {
        loop {
            match self.statuses.try_recv() {
                Ok(live) => {
                    if self.includes(&live) {
                        batch.add(live);
                    }
                }
                // Counted with the next status that is sent.
                Err(TryRecvError::Lagged(missed)) => batch.missed += missed,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    async fn authorize_again(&self) -> Option<()> {
        let principal = Principal::of(&self.console, &self.credential)
            .await
            .ok()??;
        principal
            .authorize_tenant(self.tenant.as_str())
            .ok()
            .map(drop)
    }
}

impl Batch {
    fn add(&mut self, live: Arc<LiveStatus>) {
        self.send_at
            .get_or_insert_with(|| Instant::now() + BATCH_WINDOW);
        if self.statuses.len() < MAX_BATCH {
            self.statuses.push(live);
        } else {
            self.missed += 1;
        }
    }

    fn add_missed(&mut self, missed: u64) {
        self.send_at
            .get_or_insert_with(|| Instant::now() + BATCH_WINDOW);
        self.missed += missed;
    }
}

fn event(statuses: &[Arc<LiveStatus>], missed: u64) -> Event {
    let list: Vec<&str> = statuses.iter().map(|live| live.json.as_str()).collect();
    let data = format!("{{\"statuses\":[{}],\"missed\":{missed}}}", list.join(","));
    Event::default().event("statuses").data(data)
}
