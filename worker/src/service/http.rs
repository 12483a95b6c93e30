//! The HTTP server: health, metrics and Twilio's callbacks.

mod callbacks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
use voice_otp_twilio::client::{Client, PROBE_PATH};

use super::metrics;

/// What the handlers use.
pub(super) struct Http<P: Ports> {
    pub(super) engine: Arc<Engine<P>>,
    /// The tenants' auth tokens, which verify signatures.
    pub(super) directory: P::Directory,
    /// Knows the URLs that Twilio was given.
    pub(super) twilio: Client,
    pub(super) publisher: Publisher,
    /// Written by the intake: whether its consumers are running.
    pub(super) is_consuming: Arc<AtomicBool>,
}

/// The limit of a request's body. Twilio's callbacks have a few hundred bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// Serves until `closed` is cancelled and every request is answered.
pub(super) async fn serve<P: Ports>(
    http: Http<P>,
    listener: TcpListener,
    closed: CancellationToken,
) {
    let serving =
        axum::serve(listener, router(http)).with_graceful_shutdown(closed.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the HTTP server failed"
        );
    }
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

/// 200 if the database answers, requests are consumed and statuses can be published; else 503.
async fn ready<P: Ports>(State(http): State<Arc<Http<P>>>) -> Response {
    let parts = [
        ("database", http.engine.is_alive()),
        ("intake", http.is_consuming.load(Ordering::Relaxed)),
        ("statuses", http.publisher.is_ready()),
    ];
    let text: String = parts
        .iter()
        .map(|(name, up)| format!("{name}: {}\n", if *up { "ok" } else { "down" }))
        .collect();
    let code = if parts.iter().all(|(_, up)| *up) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, text).into_response()
}

async fn metrics<P: Ports>(State(http): State<Arc<Http<P>>>) -> Response {
    match metrics::text(&http.engine) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        // Never in practice: writing to a string doesn't fail.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
