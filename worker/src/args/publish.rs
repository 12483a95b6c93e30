//! The arguments of the commands that publish and watch.

use std::path::PathBuf;

use clap::Args;

use super::{Broker, Cleartext};

/// Arguments of `publish`.
#[derive(Debug, Args)]
pub struct Publish {
    /// ID of the tenant
    #[arg(long, value_name = "ID", required_unless_present = "file")]
    pub tenant: Option<String>,
    /// Number to call, E.164
    #[arg(long, value_name = "+1…", required_unless_present = "file")]
    pub to: Option<String>,
    /// Code to read; visible in the process list, unlike --code-file
    #[arg(long, conflicts_with_all = ["code_file", "file"])]
    pub code: Option<String>,
    /// File with the code; - reads standard input
    #[arg(long, value_name = "FILE|-", conflicts_with = "file")]
    pub code_file: Option<PathBuf>,
    /// Time to live of the code (1s to 1h)
    #[arg(long, default_value = "180s", value_name = "DURATION")]
    pub expires_in: String,
    /// Language, BCP 47 [default: the tenant's]
    #[arg(long, value_name = "TAG")]
    pub locale: Option<String>,
    /// ID of the delivery [default: a random UUID]
    #[arg(long)]
    pub id: Option<String>,
    /// Opaque reference to the user; a newer request supersedes older ones of the same user
    #[arg(long)]
    pub user_ref: Option<String>,
    /// Follow the statuses, and exit with 0 only if the code was delivered
    #[arg(long, conflicts_with = "file")]
    pub wait: bool,
    /// File of structured CloudEvents, one per line; - reads standard input
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["tenant", "to"])]
    pub file: Option<PathBuf>,
    /// The broker to publish to.
    #[command(flatten)]
    pub broker: Broker,
    /// Whether its password may travel in the clear.
    #[command(flatten)]
    pub cleartext: Cleartext,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// Show this tenant's statuses only
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// Print the events as JSON, one per line
    #[arg(long)]
    pub json: bool,
    /// Start with the statuses of this time back, from the log, for example 10m (1s to 30days)
    #[arg(long, value_name = "DURATION")]
    pub since: Option<String>,
    /// The broker to watch.
    #[command(flatten)]
    pub broker: Broker,
    /// Whether its password may travel in the clear.
    #[command(flatten)]
    pub cleartext: Cleartext,
}
