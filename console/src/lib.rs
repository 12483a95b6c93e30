//! The administrator's console: an API, pages for browsers, and who may see and do what.

mod access;
mod api;
mod assets;
mod hub;
mod methods;
mod pages;
mod problem;
mod voice;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;
use voice_otp_publisher::Publisher;
use voice_otp_store::Keyring;
use voice_otp_store::pool::Pool;
use voice_otp_twilio::client::{self, Client};

use hub::Hub;

/// Settings of a console.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) amqp_url: SecretString,
    pub(crate) database_url: SecretString,
    pub(crate) keys: Keyring,
    pub(crate) twilio_url: Option<Url>,
    /// Where Twilio reaches the workers.
    pub(crate) public_url: Option<Url>,
    /// Whether browsers come by https: their cookie goes nowhere else then.
    pub(crate) https: bool,
}

/// What every request needs.
pub(crate) struct Console {
    pool: Pool,
    keys: Keyring,
    twilio: Client,
    publisher: Publisher,
    amqp_url: SecretString,
    hub: Arc<Hub>,
    has_public_url: bool,
    https: bool,
    stop: CancellationToken,
    looking: Semaphore,
}

/// Forms and settings are small.
const LONGEST_BODY_BYTES: usize = 64 * 1024;
/// The longest an answer of Twilio is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest that requests in hand may take once it is to stop.
const GRACE: Duration = Duration::from_secs(5);
/// So many searches and counts at once: the other connections are for everybody else.
const LOOKING: usize = 3;
/// Nothing from elsewhere, and nothing inline.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Serves the console until told to stop.
pub(crate) async fn serve(
    settings: Settings,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let pool =
        voice_otp_store::connect(&settings.database_url, 8).context("use the database URL")?;
    voice_otp_store::migrate::check(&pool)
        .await
        .context("check the database")?;
    let publisher = Publisher::start(voice_otp_publisher::Settings::new(
        settings.amqp_url.clone(),
        "/voice-otp/console",
    ))?;
    let twilio = Client::new(client::Settings {
        base_url: settings.twilio_url.clone(),
        public_url: settings.public_url.clone(),
        connect_timeout: PATIENCE,
        timeout: PATIENCE,
    })?;
    let hub = Arc::new(Hub::default());
    let tasks = TaskTracker::new();
    tasks.spawn(Arc::clone(&hub).listen(settings.amqp_url.clone(), stop.clone()));
    let console = Console {
        pool,
        keys: settings.keys,
        twilio,
        publisher: publisher.clone(),
        amqp_url: settings.amqp_url,
        hub,
        has_public_url: settings.public_url.is_some(),
        https: settings.https,
        stop: stop.clone(),
        looking: Semaphore::new(LOOKING),
    };
    let serving = axum::serve(listener, router(Arc::new(console)))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    let served = tokio::select! {
        served = serving.into_future() => served,
        // Whoever doesn't read any more would keep it from ending.
        () = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        } => Ok(()),
    };
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    publisher.close().await;
    served.context("serve the console")
}

fn router(console: Arc<Console>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(Arc::clone(&console)))
        .merge(assets::router())
        .merge(api::router(Arc::clone(&console)))
        .merge(pages::router(console))
        .layer(DefaultBodyLimit::max(LONGEST_BODY_BYTES))
        .layer(axum::middleware::map_response(guarded))
}

/// Ready means: the database answers.
async fn ready(State(console): State<Arc<Console>>) -> (StatusCode, &'static str) {
    match console.pool.get().await {
        Ok(_) => (StatusCode::OK, "database: ok\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "database: down\n"),
    }
}

/// Headers that keep a browser from being used against who uses it.
async fn guarded(mut response: Response) -> Response {
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
