//! The arguments about tenants. Flags and help texts of the settings come from
//! [`voice_otp::settings::field`].

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, Subcommand};
use voice_otp::settings::Setting;

use super::{Broker, Database, EncryptionKeys, TwilioUrls};

/// The subcommands of `tenant`.
#[derive(Debug, Subcommand)]
pub enum Tenant {
    /// Create a tenant or change its settings; omitted options are left unchanged
    Set(Box<TenantSet>),
    /// Show a tenant's settings; secrets only as set or not
    Show {
        /// ID of the tenant
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The database with the tenants.
        #[command(flatten)]
        database: Database,
        /// The keys of the tenant's secrets.
        #[command(flatten)]
        keys: EncryptionKeys,
    },
    /// List the tenants
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The database with the tenants.
        #[command(flatten)]
        database: Database,
    },
    /// Check a tenant's credentials, From number, countries, balance and callbacks at Twilio; exit
    /// with 0 if everything that calls need is in order
    Check {
        /// ID of the tenant
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// How Twilio and the workers reach each other.
        #[command(flatten)]
        twilio: TwilioUrls,
        /// The database with the tenants.
        #[command(flatten)]
        database: Database,
        /// The keys of the tenant's secrets.
        #[command(flatten)]
        keys: EncryptionKeys,
    },
    /// Place a real call that reads a random code, follow it, and exit with 0 only if delivered
    TestCall(TestCall),
    /// Pause a tenant: requests are accepted and wait until they are resumed or expire
    Pause {
        /// ID of the tenant
        id: String,
        /// The database with the tenants.
        #[command(flatten)]
        database: Database,
    },
    /// Resume a tenant: waiting deliveries get new slots in their order of arrival
    Resume {
        /// ID of the tenant
        id: String,
        /// The database with the tenants.
        #[command(flatten)]
        database: Database,
    },
    /// Delete a tenant's settings
    Delete {
        /// ID of the tenant
        id: String,
        /// The database with the tenants.
        #[command(flatten)]
        database: Database,
    },
}

/// Arguments of `tenant set`. Each field that a [`Setting`] names is described there; an omitted
/// one leaves the setting unchanged.
#[derive(Debug, Args)]
pub struct TenantSet {
    /// ID of the tenant: 1 to 64 of A-Z, a-z, 0-9, _ and -
    pub id: String,
    /// [`Setting::AccountSid`].
    #[arg(long = flag(Setting::AccountSid), help = help(Setting::AccountSid), value_name = "AC…")]
    pub account_sid: Option<String>,
    /// [`Setting::AuthToken`], in a file.
    #[arg(
        long = flag(Setting::AuthToken),
        help = help_of_file(Setting::AuthToken),
        value_name = "FILE|-"
    )]
    pub auth_token_file: Option<PathBuf>,
    /// [`Setting::SecondaryAuthToken`], in a file.
    #[arg(
        long = flag(Setting::SecondaryAuthToken),
        help = help_of_file(Setting::SecondaryAuthToken),
        value_name = "FILE|-"
    )]
    pub secondary_auth_token_file: Option<PathBuf>,
    /// [`Setting::ApiKeySid`].
    #[arg(long = flag(Setting::ApiKeySid), help = help(Setting::ApiKeySid), value_name = "SK…")]
    pub api_key_sid: Option<String>,
    /// [`Setting::ApiKeySecret`], in a file.
    #[arg(
        long = flag(Setting::ApiKeySecret),
        help = help_of_file(Setting::ApiKeySecret),
        value_name = "FILE|-"
    )]
    pub api_key_secret_file: Option<PathBuf>,
    /// [`Setting::From`].
    #[arg(long = flag(Setting::From), help = help(Setting::From), value_name = "+1…")]
    pub from: Option<String>,
    /// [`Setting::Region`].
    #[arg(long = flag(Setting::Region), help = help(Setting::Region), value_name = "REGION")]
    pub region: Option<String>,
    /// [`Setting::CallsPerSecond`].
    #[arg(
        long = flag(Setting::CallsPerSecond),
        help = help(Setting::CallsPerSecond),
        value_name = "N"
    )]
    pub calls_per_second: Option<f64>,
    /// [`Setting::DefaultLocale`].
    #[arg(
        long = flag(Setting::DefaultLocale),
        help = help(Setting::DefaultLocale),
        value_name = "TAG"
    )]
    pub locale: Option<String>,
    /// [`Setting::RingTimeout`].
    #[arg(
        long = flag(Setting::RingTimeout),
        help = help(Setting::RingTimeout),
        value_name = "DURATION"
    )]
    pub ring_timeout: Option<String>,
    /// [`Setting::AllowedCountries`].
    #[arg(
        long = flag(Setting::AllowedCountries),
        help = help_of_list(Setting::AllowedCountries),
        value_name = "US"
    )]
    pub allow_countries: Vec<String>,
    /// [`Setting::TestMode`].
    #[arg(
        long = flag(Setting::TestMode),
        help = help(Setting::TestMode),
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub test_mode: Option<bool>,
    /// [`Setting::Publishers`].
    #[arg(
        long = flag(Setting::Publishers),
        help = help_of_list(Setting::Publishers),
        value_name = "USER"
    )]
    pub publishers: Vec<String>,
    /// [`Setting::SpeechRate`].
    #[arg(
        long = flag(Setting::SpeechRate),
        help = help(Setting::SpeechRate),
        value_name = "PERCENT"
    )]
    pub speech_rate: Option<u32>,
    /// [`Setting::DigitPause`].
    #[arg(
        long = flag(Setting::DigitPause),
        help = help(Setting::DigitPause),
        value_name = "DURATION"
    )]
    pub digit_pause: Option<String>,
    /// [`Setting::Readings`].
    #[arg(long = flag(Setting::Readings), help = help(Setting::Readings), value_name = "N")]
    pub readings: Option<u32>,
    /// [`Setting::Brands`].
    #[arg(
        long = flag(Setting::Brands),
        help = help_of_list(Setting::Brands),
        value_name = "[LOCALE=]TEXT"
    )]
    pub brands: Vec<String>,
    /// [`Setting::Greetings`].
    #[arg(
        long = flag(Setting::Greetings),
        help = help_of_list(Setting::Greetings),
        value_name = "LOCALE=TEXT"
    )]
    pub greetings: Vec<String>,
    /// [`Setting::Voices`].
    #[arg(
        long = flag(Setting::Voices),
        help = help_of_list(Setting::Voices),
        value_name = "LOCALE=VOICE"
    )]
    pub voices: Vec<String>,
    /// [`Setting::Voicemail`].
    #[arg(long = flag(Setting::Voicemail), help = help(Setting::Voicemail), value_name = "POLICY")]
    pub voicemail: Option<String>,
    /// [`Setting::Redial`].
    #[arg(
        long = flag(Setting::Redial),
        help = help_of_list(Setting::Redial),
        value_name = "OUTCOME=N/DURATION"
    )]
    pub redials: Vec<String>,
    /// [`Setting::Enabled`]: sets it.
    #[arg(
        long = flag(Setting::Enabled),
        help = help(Setting::Enabled),
        conflicts_with = "disable"
    )]
    pub enable: bool,
    /// Place no calls for the tenant
    #[arg(long)]
    pub disable: bool,
    /// URL under which Twilio reaches the workers; needed for voicemail policies other than speak
    #[arg(long, env = "VOICE_OTP_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// The database with the tenants.
    #[command(flatten)]
    pub database: Database,
    /// The keys of the tenant's secrets.
    #[command(flatten)]
    pub keys: EncryptionKeys,
}

/// Arguments of `tenant test-call`.
#[derive(Debug, Args)]
pub struct TestCall {
    /// ID of the tenant
    pub id: String,
    /// Number to call, E.164
    #[arg(long, value_name = "+1…")]
    pub to: String,
    /// Language, BCP 47 [default: the tenant's]
    #[arg(long, value_name = "TAG")]
    pub locale: Option<String>,
    /// The broker that the request is published to.
    #[command(flatten)]
    pub broker: Broker,
    /// The database with the tenants.
    #[command(flatten)]
    pub database: Database,
    /// The keys of the tenant's secrets.
    #[command(flatten)]
    pub keys: EncryptionKeys,
}

fn flag(setting: Setting) -> &'static str {
    setting.field().long_flag()
}

fn help(setting: Setting) -> String {
    setting.field().help()
}

/// The help of a setting whose value is the content of a file.
fn help_of_file(setting: Setting) -> String {
    format!("{}; in a file, or - for standard input", help(setting))
}

/// The help of a setting whose flag may stand several times.
fn help_of_list(setting: Setting) -> String {
    format!("{} [repeatable]", help(setting))
}
