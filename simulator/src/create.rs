//! `POST /2010-04-01/Accounts/{sid}/Calls.json`: creates a call, and answers as its fate has it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rand::RngExt as _;
use tokio::time::sleep;

use super::auth;
use super::call::Resource;
use super::dice::Concern;
use super::fate::Fate;
use super::line::Line;
use super::order::Order;
use super::params::Params;
use super::refusal::Refusal;
use super::world::World;

/// The longest that a request whose answer never comes is kept waiting.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long a slow answer takes, at speed 1.
const SLOW: Duration = Duration::from_secs(3);

/// The connection of a request, if the simulator serves it itself.
type Connection = Option<Extension<ConnectInfo<Line>>>;

/// Handles a create request.
pub(crate) async fn create(
    State(world): State<Arc<World>>,
    Path(account): Path<String>,
    connection: Connection,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    world.tally.creates.fetch_add(1, Ordering::Relaxed);
    let latency = world.faults().latency_ms;
    if latency > 0 {
        // A client that gives up during this time has created nothing.
        sleep(Duration::from_millis(latency)).await;
    }
    match accept(&world, &account, &headers, &body) {
        Ok(accepted) => answer(&world, accepted, connection).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// A call that was created, and what its fate makes of the answer.
struct Accepted {
    fate: Fate,
    resource: Resource,
    /// By chance, the answer never comes.
    unanswered: bool,
}

fn accept(
    world: &Arc<World>,
    sid: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Accepted, Refusal> {
    let account = auth::account(&world.directory(), sid, headers)?;
    let order = Order::read(&Params::of_form(headers, body)?, &account)?;
    let fate = world.fates().next(&account.sid, &order.to);
    match fate {
        Fate::Throttled => return Err(Refusal::too_many(None)),
        Fate::ThrottledRetryAfter => return Err(Refusal::too_many(Some(1))),
        Fate::ErrorNotAccepted => return Err(Refusal::internal()),
        Fate::Unavailable => return Err(Refusal::unavailable()),
        _ => {}
    }
    let (number, resource) = world.place(&account, order, fate)?;
    let share = world.faults().unanswered_share;
    let unanswered = world.dice.of(Concern::Answer, number).random::<f64>() < share;
    Ok(Accepted {
        fate,
        resource,
        unanswered,
    })
}

async fn answer(world: &World, accepted: Accepted, connection: Connection) -> Response {
    let Accepted {
        fate,
        resource,
        unanswered,
    } = accepted;
    match fate {
        Fate::ErrorAccepted => return Refusal::internal().into_response(),
        Fate::Unanswered => return hold(world, connection).await,
        Fate::Cut => return cut(world, connection).await,
        Fate::SlowAnswer => sleep(world.scaled(SLOW)).await,
        Fate::Unparsable => {
            let half = format!("{{\"sid\": \"{}\", \"status\": ", resource.sid);
            return (
                StatusCode::CREATED,
                [(header::CONTENT_TYPE, "application/json")],
                half,
            )
                .into_response();
        }
        _ => {}
    }
    if unanswered {
        return hold(world, connection).await;
    }
    (StatusCode::CREATED, Json(resource)).into_response()
}

/// Keeps the client waiting until it gives up, and hangs up on one that is too patient.
async fn hold(world: &World, connection: Connection) -> Response {
    world.halt.run_until_cancelled(sleep(PATIENCE)).await;
    cut(world, connection).await
}

/// Closes the connection without an answer. Where the simulator's router is served by somebody else, whose
/// connections it can't cut, the answer never comes instead.
async fn cut(world: &World, connection: Connection) -> Response {
    match connection {
        Some(Extension(ConnectInfo(line))) => line.cut(),
        None => world.halt.cancelled().await,
    }
    StatusCode::GATEWAY_TIMEOUT.into_response()
}
