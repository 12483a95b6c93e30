//! The command line. Every setting is a flag and an environment variable; `--help` has them all.

mod tenant;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use tenant::{Account, Tenant, TenantSet, TestCall};

/// One-time passwords by phone call: reads codes out over tenants' own Twilio accounts.
#[derive(Debug, Parser)]
#[command(
    name = "voice-otp",
    version,
    max_term_width = 110,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// How to log.
    #[command(flatten)]
    pub log: Log,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Place calls: consume requests, pace and retry, follow the calls, emit statuses
    Worker(Box<Worker>),
    /// Bring the database up to date; safe twice, and from two places at once
    Migrate(Migrate),
    /// Keys that seal secrets
    #[command(subcommand)]
    Keys(Keys),
    /// Tenants and their Twilio voice settings
    #[command(subcommand)]
    Tenant(Box<Tenant>),
    /// Twilio accounts: pace, pause, limits; they belong to the account, whichever tenants share it
    #[command(subcommand)]
    Account(Account),
    /// Publish one request, or a file of events
    Publish(Box<Publish>),
    /// Show statuses as they happen
    Watch(Watch),
    /// Hear, or read, what calls say
    #[command(subcommand)]
    Speech(Speech),
    /// Serve the administrators' console: voice settings, test calls, methods, deliveries; and its API
    Console(Box<Console>),
    /// Tokens for the console and its API
    #[command(subcommand)]
    Token(Token),
    /// Twilio's HTTP surface for this job, to develop and test against
    Simulate(Simulate),
    /// Watch real events go through a real broker and database to simulated phones
    Demo(Demo),
    /// Exit 0 if the worker at `VOICE_OTP_LISTEN` is ready, else 1
    Healthcheck(Healthcheck),
}

/// How to log.
#[derive(Debug, Clone, Args)]
pub struct Log {
    /// Levels: error, warn, info, debug, trace, or by module (`voice_otp=debug,info`) [default: info for worker and
    /// simulate, error for demo, warn for the others]
    #[arg(
        long = "log",
        env = "VOICE_OTP_LOG",
        global = true,
        value_name = "LEVELS"
    )]
    pub levels: Option<String>,
    /// text or json
    #[arg(
        long = "log-format",
        env = "VOICE_OTP_LOG_FORMAT",
        default_value = "text",
        global = true,
        value_name = "FORMAT"
    )]
    pub format: String,
}

/// Where the broker is.
#[derive(Debug, Clone, Args)]
pub struct Broker {
    /// RabbitMQ: amqp://user:password@host:port/vhost, or amqps://…
    #[arg(
        long = "amqp-url",
        env = "VOICE_OTP_AMQP_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub amqp_url: Option<String>,
}

/// Where the database is.
#[derive(Debug, Clone, Args)]
pub struct Database {
    /// Postgres 13 or newer: postgres://user:password@host:port/database[?sslmode=require]
    #[arg(
        long = "database-url",
        env = "VOICE_OTP_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
}

/// The keys that seal secrets.
#[derive(Debug, Clone, Args)]
pub struct Sealing {
    /// id:base64 of 32 bytes[,…]: the first seals, all of them open; make one with `voice-otp keys new`
    #[arg(
        long = "keys",
        env = "VOICE_OTP_KEYS",
        hide_env_values = true,
        value_name = "KEYS"
    )]
    pub keys: Option<String>,
    /// File with the keys, in place of them
    #[arg(long = "keys-file", env = "VOICE_OTP_KEYS_FILE", value_name = "FILE")]
    pub keys_file: Option<PathBuf>,
}

/// How Twilio and the workers reach each other.
#[derive(Debug, Clone, Args)]
pub struct Reach {
    /// Instead of api.twilio.com and its regions: a simulator or proxy
    #[arg(long, env = "VOICE_OTP_TWILIO_URL", value_name = "URL")]
    pub twilio_url: Option<String>,
    /// Where Twilio reaches the workers, without a path; without it calls are polled
    #[arg(long, env = "VOICE_OTP_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Take a public URL that isn't https (true or false)
    #[arg(long, env = "VOICE_OTP_ALLOW_HTTP", default_value = "false", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub allow_http: String,
}

/// Settings of a worker.
#[derive(Debug, Clone, Args)]
pub struct Worker {
    /// Where the broker is.
    #[command(flatten)]
    pub broker: Broker,
    /// Where the database is.
    #[command(flatten)]
    pub database: Database,
    /// The keys.
    #[command(flatten)]
    pub sealing: Sealing,
    /// How Twilio and this worker reach each other.
    #[command(flatten)]
    pub reach: Reach,
    /// Address of /livez, /readyz and Twilio's callbacks
    #[arg(
        long,
        env = "VOICE_OTP_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "HOST:PORT"
    )]
    pub listen: String,
    /// A call is placed no later than this before its code expires: ringing and one reading must fit
    #[arg(
        long,
        env = "VOICE_OTP_LEAD",
        default_value = "30s",
        value_name = "DURATION"
    )]
    pub lead: String,
    /// After SIGTERM, time to finish what is in flight; must be less than the orchestrator's kill
    #[arg(
        long,
        env = "VOICE_OTP_GRACE",
        default_value = "25s",
        value_name = "DURATION"
    )]
    pub grace: String,
    /// The longest an answer of Twilio is waited for
    #[arg(
        long,
        env = "VOICE_OTP_POST_TIMEOUT",
        default_value = "15s",
        value_name = "DURATION"
    )]
    pub post_timeout: String,
    /// After a placement whose outcome is unknown: how long until its absence from Twilio's call list counts
    #[arg(
        long,
        env = "VOICE_OTP_SETTLE_AFTER",
        default_value = "10s",
        value_name = "DURATION"
    )]
    pub settle_after: String,
    /// How long a finished delivery is known, against repeats: without code or number; a day to 35 days
    #[arg(
        long,
        env = "VOICE_OTP_RETENTION",
        default_value = "7days",
        value_name = "DURATION"
    )]
    pub retention: String,
    /// The most placements in flight at once; once half are, an account has a sixteenth of them at most
    #[arg(
        long,
        env = "VOICE_OTP_CONCURRENCY",
        default_value = "1000",
        value_name = "CALLS"
    )]
    pub concurrency: String,
    /// The most unacknowledged messages that the broker hands over from the queue for all; an eighth of it from each lane
    #[arg(
        long,
        env = "VOICE_OTP_PREFETCH",
        default_value = "1000",
        value_name = "MESSAGES"
    )]
    pub prefetch: String,
    /// The most database connections
    #[arg(
        long,
        env = "VOICE_OTP_DATABASE_POOL",
        default_value = "8",
        value_name = "CONNECTIONS"
    )]
    pub database_pool: String,
}

/// Settings of a migration.
#[derive(Debug, Args)]
pub struct Migrate {
    /// Where the database is.
    #[command(flatten)]
    pub database: Database,
}

/// What to do about keys.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a key and print it
    New {
        /// Its id: 1 to 32 of A-Z, a-z, 0-9, _ and -; by default k and a random number
        #[arg(long)]
        id: Option<String>,
        /// Write it to this file, which only its owner may read, instead of printing it; a file that is there is left alone
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// What to publish.
#[derive(Debug, Args)]
pub struct Publish {
    /// The tenant
    #[arg(long, required_unless_present = "file")]
    pub tenant: Option<String>,
    /// The number to call, E.164
    #[arg(long, required_unless_present = "file")]
    pub to: Option<String>,
    /// The code; it can be seen in the list of processes, --code-file can't
    #[arg(long, conflicts_with_all = ["code_file", "file"])]
    pub code: Option<String>,
    /// File with the code; - reads standard input
    #[arg(long, value_name = "FILE|-", conflicts_with = "file")]
    pub code_file: Option<PathBuf>,
    /// How long the code is good for
    #[arg(long, default_value = "180s", value_name = "DURATION")]
    pub expires_in: String,
    /// The language, BCP 47
    #[arg(long, value_name = "TAG")]
    pub locale: Option<String>,
    /// The delivery's id; a random one where not given
    #[arg(long)]
    pub id: Option<String>,
    /// The user, opaque
    #[arg(long)]
    pub user_ref: Option<String>,
    /// Follow the statuses; exit 0 only when delivered
    #[arg(long, conflicts_with = "file")]
    pub wait: bool,
    /// File of structured CloudEvents, one a line; - reads standard input
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["tenant", "to"])]
    pub file: Option<PathBuf>,
    /// Where the broker is.
    #[command(flatten)]
    pub broker: Broker,
}

/// What to watch.
#[derive(Debug, Args)]
pub struct Watch {
    /// Only this tenant's
    #[arg(long)]
    pub tenant: Option<String>,
    /// The events as they are, one a line
    #[arg(long)]
    pub json: bool,
    /// From the log first what happened in this time, such as 10m
    #[arg(long, value_name = "DURATION")]
    pub since: Option<String>,
    /// Where the broker is.
    #[command(flatten)]
    pub broker: Broker,
}

/// What is said, and how.
#[derive(Debug, Subcommand)]
pub enum Speech {
    /// What will be said, and its TwiML; nothing is called
    Preview(Box<SpeechPreview>),
    /// The locales that are spoken, and their voices
    Locales,
}

/// What to say.
#[derive(Debug, Args)]
pub struct SpeechPreview {
    /// The code: 4 to 10 letters or digits
    #[arg(long)]
    pub code: String,
    /// The language, BCP 47; the nearest that is spoken is taken
    #[arg(long, value_name = "TAG")]
    pub locale: Option<String>,
    /// The number called: its country's language is spoken where nothing else says which
    #[arg(long, value_name = "+1…")]
    pub to: Option<String>,
    /// In the manner of this tenant
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// How long the code is still good for when the phone is picked up
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub life: String,
    /// Write a sound file as well; needs the program espeak-ng
    #[arg(long, value_name = "FILE")]
    pub wav: Option<PathBuf>,
    /// Where the database is, for the tenant's settings.
    #[command(flatten)]
    pub database: Database,
    /// The keys.
    #[command(flatten)]
    pub sealing: Sealing,
}

/// Settings of a console.
#[derive(Debug, Clone, Args)]
pub struct Console {
    /// Where the broker is.
    #[command(flatten)]
    pub broker: Broker,
    /// Where the database is.
    #[command(flatten)]
    pub database: Database,
    /// The keys.
    #[command(flatten)]
    pub sealing: Sealing,
    /// How Twilio and the workers reach each other.
    #[command(flatten)]
    pub reach: Reach,
    /// Address of the console
    #[arg(
        long,
        env = "VOICE_OTP_CONSOLE_LISTEN",
        default_value = "127.0.0.1:8081",
        value_name = "HOST:PORT"
    )]
    pub listen: String,
    /// Whether browsers come by https, through a proxy: the session's cookie goes nowhere else then (true or false)
    #[arg(long, env = "VOICE_OTP_CONSOLE_HTTPS", default_value = "false", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub https: String,
}

/// What to do about tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token and print it, this once
    Create {
        /// operator: everything; tenant-admin: what is one tenant's
        #[arg(long, value_name = "ROLE")]
        role: String,
        /// Whose, for a tenant-admin
        #[arg(long, value_name = "ID")]
        tenant: Option<String>,
        /// How long it is good, at most 366 days
        #[arg(long, default_value = "90d", value_name = "DURATION")]
        expires: String,
        /// Who has it, for lists and the audit log
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
    },
    /// List tokens, without their texts
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
    },
    /// Make a token good for nothing, and end the sessions of who signed in with it
    Revoke {
        /// The token's id, from the list
        id: String,
        /// Where the database is.
        #[command(flatten)]
        database: Database,
    },
}

/// What to simulate.
#[derive(Debug, Args)]
pub struct Simulate {
    /// Address to listen on
    #[arg(
        long,
        env = "VOICE_OTP_SIMULATE_LISTEN",
        default_value = "127.0.0.1:8090",
        value_name = "HOST:PORT"
    )]
    pub listen: String,
    /// JSON file with the accounts: an array of objects with sid, `auth_token` and numbers; without it one is made and shown
    #[arg(long, value_name = "FILE")]
    pub accounts: Option<PathBuf>,
    /// Seed: a run with the same one repeats
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many times faster than life calls proceed
    #[arg(long, default_value_t = 1.0)]
    pub speed: f64,
}

/// How to demonstrate.
#[derive(Debug, Args)]
pub struct Demo {
    /// Stop at the end, and exit 0 only if each request ended as it should
    #[arg(long)]
    pub once: bool,
    /// Use the simulator at this address and workers that run already, instead of starting some
    #[arg(long, value_name = "URL")]
    pub simulator: Option<String>,
    /// Show the way to the console at this address, which runs already, instead of starting one
    #[arg(long, value_name = "URL")]
    pub console: Option<String>,
    /// The keys; made anew where not given.
    #[command(flatten)]
    pub sealing: Sealing,
    /// Where the broker is.
    #[command(flatten)]
    pub broker: Broker,
    /// Where the database is.
    #[command(flatten)]
    pub database: Database,
}

/// Whose health to check.
#[derive(Debug, Args)]
pub struct Healthcheck {
    /// The worker's address
    #[arg(
        long,
        env = "VOICE_OTP_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "HOST:PORT"
    )]
    pub listen: String,
}
