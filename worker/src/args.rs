//! The command line. Every setting is a flag, most are environment variables too; `--help` and
//! `docs/configuration.md` list them all.
//!
//! Durations, numbers and names are text here and are checked in `config` and
//! `commands`, which report every bad value at once; clap would stop at the
//! first.

mod account;
mod connections;
mod console;
mod publish;
mod speech;
mod tenant;
mod worker;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use account::{Account, Token};
pub use connections::{Broker, Cleartext, Database, EncryptionKeys, TwilioUrls};
pub use console::{Console, Demo, Simulate};
pub use publish::{Publish, Watch};
pub use speech::{Speech, SpeechPreview};
pub use tenant::{Tenant, TenantSet, TestCall};
pub use worker::{Healthcheck, Worker};

/// Read one-time passwords out by phone call, over tenants' own Twilio accounts
#[derive(Debug, Parser)]
#[command(
    name = "voice-otp",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
    /// The log.
    #[command(flatten)]
    pub logging: Logging,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Place calls: consume requests, keep rate limits, retry, follow calls, publish statuses
    Worker(Box<Worker>),
    /// Migrate the database to this version; safe to repeat and to run concurrently
    Migrate(Migrate),
    /// Check the database server
    #[command(subcommand)]
    Database(DatabaseCommand),
    /// Manage the keys that encrypt secrets
    #[command(subcommand)]
    Keys(Keys),
    /// Manage tenants and their Twilio voice settings
    #[command(subcommand)]
    Tenant(Box<Tenant>),
    /// Manage Twilio accounts: rate, pause, limits; shared by every tenant of the account
    #[command(subcommand)]
    Account(Account),
    /// Publish one request, or a file of events
    Publish(Box<Publish>),
    /// Show statuses as they are published
    Watch(Watch),
    /// Preview what calls say, and list the voices
    #[command(subcommand)]
    Speech(Speech),
    /// Serve the console for administrators, and its API
    Console(Box<Console>),
    /// Manage tokens for the console and its API
    #[command(subcommand)]
    Token(Token),
    /// Serve a simulator of Twilio's API, for development and tests
    Simulate(Simulate),
    /// Run requests of every outcome through the broker and the database to simulated phones
    Demo(Demo),
    /// Exit with 0 if the worker at `VOICE_OTP_LISTEN` is ready, else with 1
    Healthcheck(Healthcheck),
}

/// Arguments about the log.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub struct Logging {
    /// Log levels: error, warn, info, debug, trace, or by module (`voice_otp=debug,info`) [default:
    /// info for worker, console and simulate, error for demo, warn for the others]
    #[arg(
        long = "log",
        env = "VOICE_OTP_LOG",
        global = true,
        value_name = "LEVELS"
    )]
    pub levels: Option<String>,
    /// Log format
    #[arg(
        long = "log-format",
        env = "VOICE_OTP_LOG_FORMAT",
        value_enum,
        default_value = "text",
        global = true,
        value_name = "FORMAT"
    )]
    pub format: LogFormat,
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    // No doc comments: they would spread the two values over four lines of help.
    #[expect(missing_docs, reason = "the name says it")]
    Text,
    #[expect(missing_docs, reason = "the name says it")]
    Json,
}

/// Arguments of `migrate`.
#[derive(Debug, Args)]
pub struct Migrate {
    /// The database to migrate.
    #[command(flatten)]
    pub database: Database,
}

/// The subcommands of `database`.
#[derive(Debug, Subcommand)]
pub enum DatabaseCommand {
    /// Check what the guarantees need: sessions, replication, durability, clock, rights; exit with
    /// 1 if something is wrong
    Check {
        /// The program whose database role the URL has
        #[arg(
            long = "for",
            value_enum,
            default_value = "worker",
            value_name = "PROGRAM"
        )]
        program: DatabaseProgram,
        /// The database to check.
        #[command(flatten)]
        database: Database,
    },
}

/// A program with a database role of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DatabaseProgram {
    #[expect(missing_docs, reason = "the name says it")]
    Worker,
    #[expect(missing_docs, reason = "the name says it")]
    Console,
}

/// The subcommands of `keys`.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Generate a key and print it
    New {
        /// ID of the key: 1 to 32 of A-Z, a-z, 0-9, _ and - [default: k and a random number]
        #[arg(long)]
        id: Option<String>,
        /// Write the key to this file instead of printing it, readable by its owner only; an
        /// existing file is not changed
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}
