//! `voice-otp keys`.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use voice_otp_store::Keyring;

use super::CommandError;
use crate::args::Keys;
use crate::config::UsageError;
use crate::output::print_line;

pub(super) fn run(keys: Keys) -> Result<(), CommandError> {
    let Keys::New { id, file } = keys;
    let id = id.unwrap_or_else(|| format!("k{}", rand::rng().random_range(1000..10_000)));
    let key = Keyring::generate(&id);
    if Keyring::parse(&key).is_err() {
        return Err(CommandError::Usage(UsageError(vec![
            "--id: 1 to 32 of A-Z, a-z, 0-9, _ and -".to_owned(),
        ])));
    }
    match file {
        Some(file) => write(&file, &key),
        None => Ok(print_line(key.expose_secret()).context("print the key")?),
    }
}

/// Writes a key to a new file. An existing one is left alone: with a lost key every secret that it
/// encrypted is lost. The file appears whole or not at all.
fn write(file: &Path, key: &SecretString) -> Result<(), CommandError> {
    let directory = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let unfinished = directory.join(format!(".voice-otp-key-{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut opened| {
            writeln!(opened, "{}", key.expose_secret()).and_then(|()| opened.sync_all())
        });
    // A hard link fails if the file exists; a rename would replace it.
    let linked = written.and_then(|()| std::fs::hard_link(&unfinished, file));
    drop(std::fs::remove_file(&unfinished));
    let file = file.display();
    match linked.and_then(|()| File::open(directory)?.sync_all()) {
        Ok(()) => Ok(print_line(&format!("wrote a key to {file}"))?),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Ok(print_line(&format!("{file} exists and was not changed"))?)
        }
        Err(error) => Err(CommandError::Failed(
            anyhow!(error).context(format!("write a key to {file}")),
        )),
    }
}
