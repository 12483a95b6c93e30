//! `POST /2010-04-01/Accounts/{sid}/Calls.json`: creates a call, starts it, and answers as the
//! call's fate demands.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rand::RngExt as _;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::account::Account;
use crate::api_error::ApiError;
use crate::auth;
use crate::call::{CallResource, CallStage, SimulatedCall};
use crate::call_parameters::CallParameters;
use crate::call_plan::CallPlan;
use crate::connection::CutHandle;
use crate::fate::Fate;
use crate::lifecycle::CallLifecycle;
use crate::params::Params;
use crate::rng::RngPurpose;
use crate::state::SimulatorState;

/// How long a request that gets no answer is kept waiting before its connection is cut.
const MAX_HOLD: Duration = Duration::from_mins(1);

/// How long a slow answer takes, at speed 1.
const SLOW_ANSWER_DELAY: Duration = Duration::from_secs(3);

/// The connection of a request; `None` where another server serves the simulator's router.
type Connection = Option<Extension<ConnectInfo<CutHandle>>>;

/// Handles a create request.
pub(crate) async fn create(
    State(state): State<Arc<SimulatorState>>,
    Path(account): Path<String>,
    connection: Connection,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    state.counters.creates.fetch_add(1, Ordering::Relaxed);
    let latency = state.faults().latency_ms;
    if latency > 0 {
        // A client that gives up during this time has created no call.
        sleep(Duration::from_millis(latency)).await;
    }
    match accept(&state, &account, &headers, &body) {
        Ok(accepted) => answer(&state, accepted, connection).await,
        Err(error) => error.into_response(),
    }
}

/// A created call, and how to answer its request.
struct Accepted {
    fate: Fate,
    resource: CallResource,
    /// Whether [`Faults`](crate::Faults) decided that the request gets no answer.
    unanswered: bool,
}

/// Checks the request, and creates the call unless its fate refuses the request.
fn accept(
    state: &Arc<SimulatorState>,
    sid: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Accepted, ApiError> {
    let account = auth::authorize(&state.accounts(), sid, headers)?;
    let parameters = CallParameters::parse(&Params::of_form(headers, body)?, &account)?;
    let fate = state.fates().next(&account.sid, &parameters.to);
    match fate {
        Fate::Throttled => return Err(ApiError::too_many_requests(None)),
        Fate::ThrottledRetryAfter => return Err(ApiError::too_many_requests(Some(1))),
        Fate::ErrorNotAccepted => return Err(ApiError::internal()),
        Fate::Unavailable => return Err(ApiError::unavailable()),
        _ => {}
    }
    let (number, resource) = start_call(state, &account, parameters, fate)?;
    let share = state.faults().unanswered_share;
    let unanswered = state.rng.of(RngPurpose::Answer, number).random::<f64>() < share;
    Ok(Accepted {
        fate,
        resource,
        unanswered,
    })
}

/// Creates a call and starts its lifecycle. Returns its number in this run, and its resource.
///
/// # Errors
/// 22005 if the account's queue is full.
pub(crate) fn start_call(
    state: &Arc<SimulatorState>,
    account: &Arc<Account>,
    parameters: CallParameters,
    fate: Fate,
) -> Result<(u64, CallResource), ApiError> {
    let number = state.next_call_number();
    let sid = format!(
        "CA{}",
        state
            .rng
            .id(RngPurpose::CallSid, number, state.clock.salt())
    );
    let mut rng = state.rng.of(RngPurpose::Lifecycle, number);
    let plan = CallPlan::of(fate, &parameters, &mut rng);
    let hang_up = CancellationToken::new();
    let mut store = state.calls();
    let queue_time = store.join_queue(account, Instant::now()).map_err(|_| {
        ApiError::bad_request(
            22005,
            "Call Queue Full: more than 24 hours of calls are queued",
        )
    })?;
    let now = state.clock.now();
    let call = SimulatedCall {
        spoken: parameters.inline_speech.clone(),
        sid,
        number,
        account: Arc::clone(account),
        parameters,
        fate,
        stage: CallStage::Queued,
        created: now,
        updated: now,
        dialled: None,
        ended: None,
        queue_time,
        answered: None,
        talked: None,
        sip_response: None,
        answered_by: None,
        price: None,
        sequence_numbers: Vec::new(),
        hang_up: hang_up.clone(),
    };
    let resource = call.resource();
    let id = store.add(call);
    drop(store);
    let lifecycle = CallLifecycle {
        state: Arc::clone(state),
        id,
        queue_time,
        plan,
        hang_up,
    };
    state.tasks.spawn(lifecycle.run());
    Ok((number, resource))
}

async fn answer(state: &SimulatorState, accepted: Accepted, connection: Connection) -> Response {
    let Accepted {
        fate,
        resource,
        unanswered,
    } = accepted;
    match fate {
        Fate::ErrorAccepted => return ApiError::internal().into_response(),
        Fate::Unanswered => return hold(state, connection).await,
        Fate::Cut => return cut(state, connection).await,
        Fate::SlowAnswer => sleep(state.scaled(SLOW_ANSWER_DELAY)).await,
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
        return hold(state, connection).await;
    }
    (StatusCode::CREATED, Json(resource)).into_response()
}

/// Keeps the client waiting until it gives up, and cuts the connection after [`MAX_HOLD`].
async fn hold(state: &SimulatorState, connection: Connection) -> Response {
    state.halt.run_until_cancelled(sleep(MAX_HOLD)).await;
    cut(state, connection).await
}

/// Closes the connection without an answer. Where another server serves the simulator's router, the
/// connection can't be cut, and the request waits until the simulator stops.
async fn cut(state: &SimulatorState, connection: Connection) -> Response {
    match connection {
        Some(Extension(ConnectInfo(cut_handle))) => cut_handle.cut(),
        None => state.halt.cancelled().await,
    }
    StatusCode::GATEWAY_TIMEOUT.into_response()
}
