//! The arguments that several commands share, each group under a heading of its own in the help.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

/// Arguments about the broker.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Broker")]
pub struct Broker {
    /// RabbitMQ URL: amqp://user:password@host:port/vhost, or
    /// amqps://user:password@host:port/vhost[?cacertfile=/ca.pem]
    #[arg(
        long = "amqp-url",
        env = "VOICE_OTP_AMQP_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub amqp_url: Option<String>,
}

/// Arguments about the database.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct Database {
    /// PostgreSQL URL (13 or newer), as libpq reads it:
    /// postgres://user:password@host:port/database[?sslmode=verify-full&sslrootcert=FILE]
    #[arg(
        long = "database-url",
        env = "VOICE_OTP_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
    /// Whether its password may travel in the clear.
    #[command(flatten)]
    pub cleartext: Cleartext,
}

/// Whether passwords may travel in the clear.
#[derive(Debug, Clone, Args)]
pub struct Cleartext {
    /// Accept connections to RabbitMQ and Postgres on other machines without encryption: whoever
    /// listens on the network reads passwords
    #[arg(
        long,
        env = "VOICE_OTP_ALLOW_CLEARTEXT",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub allow_cleartext: bool,
}

/// Arguments about the keys that encrypt secrets.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Encryption keys")]
pub struct EncryptionKeys {
    /// Keys that encrypt secrets: id:base64 of 32 bytes, separated by commas; the first encrypts,
    /// all decrypt; `voice-otp keys new` generates one
    #[arg(
        long = "keys",
        env = "VOICE_OTP_KEYS",
        hide_env_values = true,
        value_name = "KEYS"
    )]
    pub keys: Option<String>,
    /// File with the keys, instead of --keys
    #[arg(long = "keys-file", env = "VOICE_OTP_KEYS_FILE", value_name = "FILE")]
    pub keys_file: Option<PathBuf>,
}

/// Arguments about the way to Twilio, and the way from Twilio to the workers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Twilio")]
pub struct TwilioUrls {
    /// URL of a simulator or proxy, instead of api.twilio.com and its regions
    #[arg(long, env = "VOICE_OTP_TWILIO_URL", value_name = "URL")]
    pub twilio_url: Option<String>,
    /// URL, without a path, under which Twilio reaches the workers [default: none, calls are
    /// polled]
    #[arg(long, env = "VOICE_OTP_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Accept a public URL that isn't https
    #[arg(
        long,
        env = "VOICE_OTP_ALLOW_HTTP",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub allow_http: bool,
}
