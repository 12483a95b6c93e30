//! `voice-otp keys`.

use anyhow::anyhow;
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use voice_otp_store::Keyring;

use crate::cli::Keys;
use crate::config::Wrong;
use crate::telemetry::say;
use crate::verb::Failed;

pub(crate) fn run(keys: Keys) -> Result<(), Failed> {
    let Keys::New { id } = keys;
    let id = id.unwrap_or_else(|| format!("k{}", rand::rng().random_range(1000..10_000)));
    let key = Keyring::generate(&id);
    let readable = Keyring::parse(&SecretString::from(key.expose_secret()));
    readable.map_err(|_| Wrong(vec!["--id: 1 to 32 of A-Z, a-z, 0-9, _ and -".to_owned()]))?;
    say(key.expose_secret()).map_err(|_| Failed::Error(anyhow!("can't write the key")))
}
