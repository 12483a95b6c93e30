//! The HTTP server: health, metrics and Twilio's callbacks.

mod callback_guard;
mod callbacks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use voice_otp::engine::Engine;
use voice_otp::ports::Ports;
use voice_otp_publisher::Publisher;
use voice_otp_server::Limits;
use voice_otp_store::Health;
use voice_otp_twilio::client::{Client, PROBE_PATH};

pub(super) use self::callback_guard::CallbackGuard;
use super::dead_letters::DeadLetters;
use super::metrics;

/// What the handlers use.
pub(super) struct Http<P: Ports> {
    pub(super) engine: Arc<Engine<P>>,
    /// The tenants' auth tokens, which verify signatures.
    pub(super) directory: P::Directory,
    /// Knows the URLs that Twilio was given.
    pub(super) twilio: Client,
    /// Refuses made-up callbacks.
    pub(super) callbacks: CallbackGuard,
    pub(super) publisher: Publisher,
    pub(super) dead_letters: Arc<DeadLetters>,
    /// Written by the intake: whether its consumers are running.
    pub(super) is_consuming: Arc<AtomicBool>,
    /// What works with the database.
    pub(super) health: Health,
}

/// The limit of a request's body. Twilio's callbacks have a few hundred bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// Connections at once: far more than there are requests in progress.
const MAX_CONNECTIONS: usize = 1_024;
/// How long a request's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until `closed` is cancelled and every request is answered.
pub(super) async fn serve<P: Ports>(
    http: Http<P>,
    listener: TcpListener,
    closed: CancellationToken,
) {
    // Proxies and Twilio share a few addresses, so an address has no limit of its own.
    let limits = Limits {
        body_timeout: BODY_TIMEOUT,
        max_connections: MAX_CONNECTIONS,
        ..Limits::default()
    };
    voice_otp_server::serve(listener, router(http), limits, closed).await;
}

fn router<P: Ports>(http: Http<P>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<P>))
        .route("/metrics", get(metrics::<P>))
        .route("/twilio/status/{attempt}", post(callbacks::status::<P>))
        .route("/twilio/voice/{attempt}", post(callbacks::voice::<P>))
        .route(PROBE_PATH, post(callbacks::probe::<P>))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Arc::new(http))
}

/// 200 if everything works that a worker needs, else 503; and what doesn't, in words. Dead letters
/// that aren't stored don't make it 503: requests are processed all the same.
async fn ready<P: Ports>(State(http): State<Arc<Http<P>>>) -> Response {
    let mut problems = http.health.problems();
    if !http.engine.is_alive() && problems.is_empty() {
        problems.push("the lease is not renewed".to_owned());
    }
    let parts = [
        ("database", problems),
        (
            "intake",
            unless(
                http.is_consuming.load(Ordering::Relaxed),
                "not consuming requests from the broker",
            ),
        ),
        (
            "statuses",
            unless(
                http.publisher.is_ready(),
                "statuses can't be published to the broker",
            ),
        ),
    ];
    let code = if parts.iter().all(|(_, problems)| problems.is_empty()) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut text: String = parts
        .iter()
        .map(|(name, problems)| match problems.as_slice() {
            [] => format!("{name}: ok\n"),
            problems => format!("{name}: down: {}\n", problems.join("; ")),
        })
        .collect();
    text.push_str(&match http.dead_letters.problem() {
        None => "dead letters: ok\n".to_owned(),
        Some(problem) => format!("dead letters: degraded: {problem}\n"),
    });
    (code, text).into_response()
}

fn unless(works: bool, problem: &str) -> Vec<String> {
    if works {
        Vec::new()
    } else {
        vec![problem.to_owned()]
    }
}

async fn metrics<P: Ports>(State(http): State<Arc<Http<P>>>) -> Response {
    match metrics::text(&http.engine, &http.dead_letters.counts) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        // Never in practice: writing to a string doesn't fail.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
