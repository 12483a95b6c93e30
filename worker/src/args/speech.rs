//! The arguments about what calls say.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Database, EncryptionKeys};

/// The subcommands of `speech`.
#[derive(Debug, Subcommand)]
pub enum Speech {
    /// Print what a call would say, and its TwiML; no call is placed
    Preview(Box<SpeechPreview>),
    /// List the locales and their voices
    Locales,
}

/// Arguments of `speech preview`.
#[derive(Debug, Args)]
pub struct SpeechPreview {
    /// Code to read: 4 to 10 letters or digits
    #[arg(long)]
    pub code: String,
    /// Language, BCP 47; the nearest supported locale is used
    #[arg(long, value_name = "TAG")]
    pub locale: Option<String>,
    /// Number that would be called: its country's language is used if no other is set
    #[arg(long, value_name = "+1…")]
    pub to: Option<String>,
    /// Use this tenant's speech settings; needs --database-url and --keys
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// Time to live of the code when the call is answered (up to 1h)
    #[arg(long = "life", value_name = "DURATION", default_value = "5m")]
    pub time_to_live: String,
    /// Write a sound file too; needs the program espeak-ng
    #[arg(long, value_name = "FILE")]
    pub wav: Option<PathBuf>,
    /// The database with the tenant's settings.
    #[command(flatten)]
    pub database: Database,
    /// The keys of the tenant's secrets.
    #[command(flatten)]
    pub keys: EncryptionKeys,
}
