//! The administrators' console: pages for browsers, an HTTP API, and access control for both.
//!
//! ```text
//! pages ─┐
//!        ├──► services ──► access ──► state ──► hub
//! api  ──┘
//! ```
//!
//! `services` does the work for the API and the pages, which only read requests and write
//! responses. Every change goes through `access` and is recorded in the audit log.

mod access;
mod api;
mod assets;
mod credential_limits;
mod hub;
mod pages;
mod problem;
mod query_turns;
mod readiness;
mod services;
mod state;
mod stream_limit;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp_server::Limits;

use self::state::Console;
pub use self::state::Settings;

/// The longest request body: forms and settings are small.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Connections at once from one address: of an office, perhaps.
const MAX_CONNECTIONS_PER_ADDRESS: usize = 1_000;
/// How long requests in progress may take after shutdown begins.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Browsers load nothing from other origins and run nothing inline.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
                              img-src 'self'; connect-src 'self'; form-action 'self'; \
                              frame-ancestors 'none'; base-uri 'none'";

/// Serves the console on a listener until `stop` is cancelled, then finishes the requests in
/// progress for up to five seconds.
///
/// # Errors
/// The database can't be reached or has another schema, or a setting can't be used.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let amqp_url = settings.amqp_url.clone();
    let limits = Limits {
        max_connections_per_address: Some(MAX_CONNECTIONS_PER_ADDRESS),
        trusted_proxies: settings.trusted_proxies.clone(),
        ..Limits::default()
    };
    let console = Arc::new(Console::connect(settings, stop.clone()).await?);
    let publisher = console.publisher.clone();
    let tasks = TaskTracker::new();
    tasks.spawn(Arc::clone(&console.hub).read_statuses(amqp_url, stop.clone()));
    tokio::select! {
        () = voice_otp_server::serve(listener, router(console), limits, stop.clone()) => {}
        // A client that no longer reads would keep the server from ending.
        () = async {
            stop.cancelled().await;
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        } => {}
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    publisher.close().await;
    Ok(())
}

fn router(console: Arc<Console>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(Arc::clone(&console)))
        .merge(assets::router())
        .merge(api::router(Arc::clone(&console)))
        .merge(pages::router(console))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(axum::middleware::map_response(with_security_headers))
}

/// The console is ready when the database answers.
async fn ready(State(console): State<Arc<Console>>) -> (StatusCode, &'static str) {
    if console.readiness.is_ready(&console.pool).await {
        (StatusCode::OK, "database: ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "database: down\n")
    }
}

/// Adds headers that keep other sites from using a signed-in browser.
async fn with_security_headers(mut response: Response) -> Response {
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CONTENT_POLICY),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
