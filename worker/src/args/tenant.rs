//! The arguments about tenants and their Twilio accounts.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Broker, Database, Reach, Sealing};

/// What to do about tenants.
#[derive(Debug, Subcommand)]
pub enum Tenant {
    /// Create a tenant's settings, or change the ones that are given
    Set(Box<TenantSet>),
    /// Show a tenant's settings, secrets only as set or not
    Show {
        /// The tenant
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
        /// The keys.
        #[command(flatten)]
        sealing: Sealing,
    },
    /// List the tenants
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
    },
    /// Check that a tenant's settings can work: credentials, From, countries, balance, callbacks; exit 0 if
    /// nothing is wrong, and everything that calls need could be checked
    Check {
        /// The tenant
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// How Twilio and the workers are reached.
        #[command(flatten)]
        reach: Reach,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
        /// The keys.
        #[command(flatten)]
        sealing: Sealing,
    },
    /// Place a real call that reads a random code, and follow it to its end; exit 0 only when delivered
    TestCall(TestCall),
    /// Pause a tenant: its requests are accepted and wait, as long as their codes live
    Pause {
        /// The tenant
        id: String,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
    },
    /// Resume a tenant: what waits gets new slots, in the order it came
    Resume {
        /// The tenant
        id: String,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
    },
    /// Delete a tenant's settings
    Delete {
        /// The tenant
        id: String,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
    },
}

/// What to do about Twilio accounts.
#[derive(Debug, Subcommand)]
pub enum Account {
    /// List the accounts: pace, tenants, how long a new request would wait, pauses and open circuits
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
    },
    /// Pause an account: requests are accepted and wait, as long as their codes live
    Pause {
        /// Twilio's account SID
        sid: String,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
    },
    /// Resume an account: what waits gets new slots, in the order it came
    Resume {
        /// Twilio's account SID
        sid: String,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
    },
    /// Change an account's rate, at once and for all that waits; 0 pauses it
    Rate {
        /// Twilio's account SID
        sid: String,
        /// Calls a second, 0.001 to 10000
        calls_per_second: f64,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
    },
    /// Limit an account's calls in progress (Twilio's error 10004); calls placed before don't count
    MaxCalls {
        /// Twilio's account SID
        sid: String,
        /// A number, or none
        most: String,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
    },
    /// Change what share of the slots ahead one of several tenants may hold; 0.5 at first
    Share {
        /// Twilio's account SID
        sid: String,
        /// Above 0, and up to 1
        share: f64,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
    },
}

/// A tenant's settings. What isn't given stays as it is.
#[derive(Debug, Args)]
pub struct TenantSet {
    /// The tenant: 1 to 64 of A-Z, a-z, 0-9, _ and -
    pub id: String,
    /// Twilio's account SID
    #[arg(long, value_name = "AC…")]
    pub account_sid: Option<String>,
    /// File with Twilio's auth token; - reads standard input
    #[arg(long, value_name = "FILE|-")]
    pub auth_token_file: Option<PathBuf>,
    /// File with the other auth token while the first is being rotated; an empty file takes it away
    #[arg(long, value_name = "FILE|-")]
    pub secondary_auth_token_file: Option<PathBuf>,
    /// API key to authenticate with instead of the token; an empty one takes it away
    #[arg(long, value_name = "SK…")]
    pub api_key_sid: Option<String>,
    /// File with the API key's secret
    #[arg(long, value_name = "FILE|-")]
    pub api_key_secret_file: Option<PathBuf>,
    /// The number that calls come from, E.164
    #[arg(long, value_name = "+1…")]
    pub from: Option<String>,
    /// Twilio region, with its edge: ie1, or dublin.ie1
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// The account's pace, for every tenant of the account; 1 at first
    #[arg(long, value_name = "N")]
    pub calls_per_second: Option<f64>,
    /// The language where a request says none, BCP 47
    #[arg(long, value_name = "TAG")]
    pub locale: Option<String>,
    /// How long it may ring, 5s to 600s; 30s at first
    #[arg(long, value_name = "DURATION")]
    pub ring_timeout: Option<String>,
    /// A country that may be called, ISO 3166; may be given again; at first the From number's own
    #[arg(long = "allow-country", value_name = "US")]
    pub allow_countries: Vec<String>,
    /// Everything but the call: accepted, then delivered
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub test_mode: Option<bool>,
    /// A RabbitMQ user that may speak for the tenant; may be given again; an empty one lets anybody who may publish (so
    /// it is at first)
    #[arg(long = "publisher", value_name = "USER")]
    pub publishers: Vec<String>,
    /// How fast codes are read, in percent of the voice's own pace, 50 to 120; 85 at first
    #[arg(long, value_name = "PERCENT")]
    pub speech_rate: Option<u32>,
    /// The pause after each character of a code, 200ms to 2s; 600ms at first
    #[arg(long, value_name = "DURATION")]
    pub digit_pause: Option<String>,
    /// How often a code is read, 1 to 5; 3 at first
    #[arg(long, value_name = "N")]
    pub readings: Option<u32>,
    /// Whose call it is, in every locale or in one; may be given again; an empty text takes it away
    #[arg(long = "brand", value_name = "[LOCALE=]TEXT")]
    pub brands: Vec<String>,
    /// The greeting in a locale, with {brand} for the brand; may be given again; an empty text takes it away
    #[arg(long = "greeting", value_name = "LOCALE=TEXT")]
    pub greetings: Vec<String>,
    /// Another voice for a locale (voice-otp speech locales); may be given again; an empty name takes it away
    #[arg(long = "voice", value_name = "LOCALE=VOICE")]
    pub voices: Vec<String>,
    /// About answering machines
    #[arg(
        long,
        value_name = "POLICY",
        help = "About answering machines: speak (so it is at first), hang_up, wait_for_beep, or press_key: read the code only to who \
                presses 1"
    )]
    pub voicemail: Option<String>,
    /// When to call again
    #[arg(
        long = "redial",
        value_name = "OUTCOME=N/DURATION",
        help = "Call again after busy, no_answer, failed or voicemail, so often (up to 5), so much later (5s to 30m), for example \
                busy=2/30s; may be given again; 0 times takes it away"
    )]
    pub redials: Vec<String>,
    /// Where Twilio reaches the workers: voicemail policies other than speak need it
    #[arg(long, env = "VOICE_OTP_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Switch voice on (so it is at first)
    #[arg(long, conflicts_with = "disable")]
    pub enable: bool,
    /// Switch voice off
    #[arg(long)]
    pub disable: bool,
    /// Where the database is.
    #[command(flatten)]
    pub database: Database,
    /// The keys.
    #[command(flatten)]
    pub sealing: Sealing,
}

/// Whom to call for a test.
#[derive(Debug, Args)]
pub struct TestCall {
    /// The tenant
    pub id: String,
    /// The number to call, E.164
    #[arg(long, value_name = "+1…")]
    pub to: String,
    /// The language, BCP 47
    #[arg(long, value_name = "TAG")]
    pub locale: Option<String>,
    /// Where the broker is.
    #[command(flatten)]
    pub broker: Broker,
    /// Where the database is.
    #[command(flatten)]
    pub database: Database,
    /// The keys.
    #[command(flatten)]
    pub sealing: Sealing,
}
