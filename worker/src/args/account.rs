//! The arguments about Twilio accounts and about tokens.

use clap::Subcommand;

use super::Database;

/// The subcommands of `account`.
#[derive(Debug, Subcommand)]
pub enum Account {
    /// List the accounts with rate, tenants, queueing delay, pause and circuit
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The database with the accounts.
        #[command(flatten)]
        database: Database,
    },
    /// Pause an account: requests are accepted and wait until they are resumed or expire
    Pause {
        /// Twilio account SID
        sid: String,
        /// The database with the accounts.
        #[command(flatten)]
        database: Database,
    },
    /// Resume an account: waiting deliveries get new slots in their order of arrival
    Resume {
        /// Twilio account SID
        sid: String,
        /// The database with the accounts.
        #[command(flatten)]
        database: Database,
    },
    /// Change the rate limit of an account, for waiting deliveries too; 0 pauses the account
    Rate {
        /// Twilio account SID
        sid: String,
        /// Calls per second (0.001 to 10000, or 0)
        calls_per_second: f64,
        /// The database with the accounts.
        #[command(flatten)]
        database: Database,
    },
    /// Limit the calls in progress of an account (Twilio error 10004); earlier calls don't count
    MaxCalls {
        /// Twilio account SID
        sid: String,
        /// Maximum calls in progress, or none
        #[arg(value_name = "CALLS|none")]
        max_calls: String,
        /// The database with the accounts.
        #[command(flatten)]
        database: Database,
    },
    /// Limit the share of an account's next slots that one of several tenants may occupy
    Share {
        /// Twilio account SID
        sid: String,
        /// Share (above 0, up to 1) [default: 0.5]
        share: f64,
        /// The database with the accounts.
        #[command(flatten)]
        database: Database,
    },
}

/// The subcommands of `token`.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Create a token and print it, once
    Create {
        /// Role: operator for everything, tenant-admin for one tenant
        #[arg(long, value_name = "ROLE")]
        role: String,
        /// Tenant of a tenant-admin
        #[arg(long, value_name = "ID")]
        tenant: Option<String>,
        /// Validity (1m to 366days)
        #[arg(long, default_value = "90d", value_name = "DURATION")]
        expires: String,
        /// Owner, shown in lists and in the audit log (1 to 100 characters)
        #[arg(long, value_name = "NAME")]
        name: String,
        /// The database with the tokens.
        #[command(flatten)]
        database: Database,
    },
    /// List the tokens, without their text
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The database with the tokens.
        #[command(flatten)]
        database: Database,
    },
    /// Revoke a token and end the sessions that were started with it
    Revoke {
        /// ID of the token, as `voice-otp token list` prints it
        id: String,
        /// The database with the tokens.
        #[command(flatten)]
        database: Database,
    },
}
