//! What every request of the console shares: connections, keys and the stream of statuses.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use url::Url;
use voice_otp_publisher::Publisher;
use voice_otp_server::client_address::TrustedProxies;
use voice_otp_store::Keyring;
use voice_otp_store::pool::Pool;
use voice_otp_twilio::client::{self, Client};

use crate::credential_limits::CredentialLimits;
use crate::hub::Hub;
use crate::query_turns::QueryTurns;
use crate::readiness::Readiness;
use crate::stream_limit::StreamLimit;

/// Settings of a console.
#[derive(Clone)]
pub struct Settings {
    /// The broker, with credentials: test calls are published to it, statuses are read from it.
    pub amqp_url: SecretString,
    /// The database, with credentials. Its schema must be the one that this program expects.
    pub database_url: SecretString,
    /// Seals and opens the tenants' secrets; the keys that the workers have.
    pub keys: Keyring,
    /// Where Twilio's API is served, for a simulator; `None` is Twilio itself.
    pub twilio_url: Option<Url>,
    /// The address at which Twilio reaches the workers. Without one, tenants can't choose an
    /// answering machine policy that needs callbacks.
    pub public_url: Option<Url>,
    /// Whether browsers reach the console over https. The session cookie is then `Secure`.
    pub https: bool,
    /// The proxies that say in `X-Forwarded-For` whose request it is. Without any, the limits for
    /// an address apply to the peer's.
    pub trusted_proxies: TrustedProxies,
}

/// What every request needs.
pub(crate) struct Console {
    pub(crate) pool: Pool,
    pub(crate) keys: Keyring,
    pub(crate) twilio: Client,
    /// Publishes the requests of test calls.
    pub(crate) publisher: Publisher,
    /// For the count of dead letters, which has a connection of its own.
    pub(crate) amqp_url: SecretString,
    pub(crate) hub: Arc<Hub>,
    /// Whether Twilio can reach the workers, see [`Settings::public_url`].
    pub(crate) has_public_url: bool,
    /// See [`Settings::https`].
    pub(crate) https: bool,
    /// Cancelled when the console shuts down: streams of events end.
    pub(crate) stop: CancellationToken,
    /// Turns for searches and counts, which are slow.
    pub(crate) query_turns: QueryTurns,
    /// Whether the database answers.
    pub(crate) readiness: Readiness,
    /// Limits the look-ups of credentials.
    pub(crate) credential_limits: CredentialLimits,
    /// Limits the event streams of a token.
    pub(crate) stream_limit: StreamLimit,
    /// See [`Settings::trusted_proxies`].
    pub(crate) trusted_proxies: TrustedProxies,
}

/// How long a request to Twilio may take before it fails, in connecting and as a whole.
const TWILIO_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections to the database.
const POOL_SIZE: usize = 8;

impl Console {
    /// Connects to the database and checks its schema; the broker is connected to in the
    /// background.
    pub(crate) async fn connect(
        settings: Settings,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let pool = voice_otp_store::connect(&settings.database_url, POOL_SIZE)
            .context("use the database URL")?;
        voice_otp_store::migrate::check(&pool)
            .await
            .context("check the database")?;
        let publisher = Publisher::start(voice_otp_publisher::Settings::new(
            settings.amqp_url.clone(),
            "/voice-otp/console",
        ))?;
        let has_public_url = settings.public_url.is_some();
        let twilio = Client::new(client::Settings {
            base_url: settings.twilio_url,
            public_url: settings.public_url,
            connect_timeout: TWILIO_TIMEOUT,
            timeout: TWILIO_TIMEOUT,
        })?;
        Ok(Self {
            pool,
            keys: settings.keys,
            twilio,
            publisher,
            amqp_url: settings.amqp_url,
            hub: Arc::new(Hub::default()),
            has_public_url,
            https: settings.https,
            stop,
            query_turns: QueryTurns::default(),
            readiness: Readiness::default(),
            credential_limits: CredentialLimits::default(),
            stream_limit: StreamLimit::default(),
            trusted_proxies: settings.trusted_proxies,
        })
    }
}
