//! The arguments of the console, the simulator and the demo.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::{Broker, Database, EncryptionKeys, TwilioUrls};

/// Arguments of `console`.
#[derive(Debug, Clone, Args)]
pub struct Console {
    /// Address of the console
    #[arg(
        long,
        env = "VOICE_OTP_CONSOLE_LISTEN",
        default_value = "127.0.0.1:8081",
        value_name = "HOST:PORT"
    )]
    pub listen: String,
    /// Browsers reach the console by https, through a proxy: mark the session cookie as secure
    #[arg(
        long,
        env = "VOICE_OTP_CONSOLE_HTTPS",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub https: bool,
    /// Addresses or networks of the proxies in front of the console, separated by commas: the
    /// limits for a client's address apply to the one in their X-Forwarded-For, instead of theirs
    #[arg(
        long,
        env = "VOICE_OTP_CONSOLE_TRUSTED_PROXIES",
        default_value = "",
        hide_default_value = true,
        value_name = "ADDRESS,…"
    )]
    pub trusted_proxies: String,
    /// The broker, for test calls and live statuses.
    #[command(flatten)]
    pub broker: Broker,
    /// The database with everything that the console shows.
    #[command(flatten)]
    pub database: Database,
    /// The keys of tenants' secrets.
    #[command(flatten)]
    pub keys: EncryptionKeys,
    /// How Twilio and the workers reach each other, for the checks of a tenant's settings.
    #[command(flatten)]
    pub twilio: TwilioUrls,
}

/// Arguments of `simulate`.
#[derive(Debug, Args)]
pub struct Simulate {
    /// Address of the simulator
    #[arg(
        long,
        env = "VOICE_OTP_SIMULATE_LISTEN",
        default_value = "127.0.0.1:8090",
        value_name = "HOST:PORT"
    )]
    pub listen: String,
    /// JSON file with the accounts: an array of objects with sid, `auth_token` and numbers
    /// [default: one account, which is printed]
    #[arg(long, value_name = "FILE")]
    pub accounts: Option<PathBuf>,
    /// Seed of the random numbers; the same seed gives the same run
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Speed of the calls, as a multiple of real time (0.01 to 1000)
    #[arg(long, default_value_t = 1.0)]
    pub speed: f64,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Stop at the end, and exit with 0 only if every request had the expected outcome
    #[arg(long)]
    pub once: bool,
    /// Use the simulator at this address and running workers instead of starting them; needs the
    /// workers' keys
    #[arg(long, value_name = "URL")]
    pub simulator: Option<String>,
    /// Link to a running console instead of starting one
    #[arg(long, value_name = "URL")]
    pub console: Option<String>,
    /// The broker that the demo runs on.
    #[command(flatten)]
    pub broker: Broker,
    /// The database that the demo runs on.
    #[command(flatten)]
    pub database: Database,
    /// The keys; the demo generates one if none is given.
    #[command(flatten)]
    pub keys: EncryptionKeys,
}
