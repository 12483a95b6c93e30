//! The arguments of a worker.

use clap::Args;

use super::{Broker, Database, EncryptionKeys, TwilioUrls};

/// Arguments of `worker`.
#[derive(Debug, Clone, Args)]
pub struct Worker {
    /// Address of the HTTP server: health, metrics and Twilio's callbacks
    #[arg(
        long,
        env = "VOICE_OTP_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "HOST:PORT"
    )]
    pub listen: String,
    /// Latest-start margin: place no call later than this before its code expires; ringing and one
    /// reading must fit (1s to 10m)
    #[arg(
        long,
        env = "VOICE_OTP_LEAD",
        default_value = "30s",
        value_name = "DURATION"
    )]
    pub lead: String,
    /// Time to finish what is in flight after SIGTERM; longer than --post-timeout, shorter than the
    /// orchestrator's kill timeout (1s to 10m)
    #[arg(
        long,
        env = "VOICE_OTP_GRACE",
        default_value = "25s",
        value_name = "DURATION"
    )]
    pub grace: String,
    /// Timeout of a request to Twilio (1s to 60s)
    #[arg(
        long,
        env = "VOICE_OTP_POST_TIMEOUT",
        default_value = "15s",
        value_name = "DURATION"
    )]
    pub post_timeout: String,
    /// Time after an attempt of unknown outcome from which a call that is missing in Twilio's call
    /// list counts as not placed (1s to 5m)
    #[arg(
        long,
        env = "VOICE_OTP_SETTLE_AFTER",
        default_value = "10s",
        value_name = "DURATION"
    )]
    pub settle_after: String,
    /// Time for which finished deliveries are kept for deduplication, without code and number
    /// (1day to 35days)
    #[arg(
        long,
        env = "VOICE_OTP_RETENTION",
        default_value = "7days",
        value_name = "DURATION"
    )]
    pub retention: String,
    /// Maximum attempts in flight; once half are in use, one account may use a sixteenth (1 to
    /// 10000)
    #[arg(
        long,
        env = "VOICE_OTP_CONCURRENCY",
        default_value = "1000",
        value_name = "ATTEMPTS"
    )]
    pub concurrency: String,
    /// Queues that the lanes of requests share, a power of two: the more, the fewer tenants wait
    /// for another's flood; fewer if the broker limits its queues (1 to 128)
    #[arg(
        long,
        env = "VOICE_OTP_LANES",
        default_value = "128",
        value_name = "QUEUES"
    )]
    pub lanes: String,
    /// Prefetch for the shared queue; each lane gets one eighth (1 to 10000)
    #[arg(
        long,
        env = "VOICE_OTP_PREFETCH",
        default_value = "1000",
        value_name = "MESSAGES"
    )]
    pub prefetch: String,
    /// Maximum database connections (3 to 100)
    #[arg(
        long,
        env = "VOICE_OTP_DATABASE_POOL",
        default_value = "8",
        value_name = "CONNECTIONS"
    )]
    pub database_pool: String,
    /// The broker that requests come from and statuses go to.
    #[command(flatten)]
    pub broker: Broker,
    /// The database with the ledger and the tenants.
    #[command(flatten)]
    pub database: Database,
    /// The keys of codes, numbers and tenants' secrets.
    #[command(flatten)]
    pub keys: EncryptionKeys,
    /// How Twilio and this worker reach each other.
    #[command(flatten)]
    pub twilio: TwilioUrls,
}

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
pub struct Healthcheck {
    /// Address of the worker
    #[arg(
        long,
        env = "VOICE_OTP_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "HOST:PORT"
    )]
    pub listen: String,
}
