//! `voice-otp keys`.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::anyhow;
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use voice_otp_store::Keyring;

use crate::cli::Keys;
use crate::config::Wrong;
use crate::telemetry::say;
use crate::verb::Failed;

pub(crate) fn run(keys: Keys) -> Result<(), Failed> {
    let Keys::New { id, file } = keys;
    let id = id.unwrap_or_else(|| format!("k{}", rand::rng().random_range(1000..10_000)));
    let key = Keyring::generate(&id);
    let readable = Keyring::parse(&SecretString::from(key.expose_secret()));
    readable.map_err(|_| Wrong(vec!["--id: 1 to 32 of A-Z, a-z, 0-9, _ and -".to_owned()]))?;
    match file {
        Some(file) => write(&file, &key),
        None => say(key.expose_secret()).map_err(|_| Failed::Error(anyhow!("can't write the key"))),
    }
}

/// Writes a key where there is none: to lose one is to lose every secret that it sealed. The file appears whole or not at all.
fn write(file: &Path, key: &SecretString) -> Result<(), Failed> {
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
    // A link fails where the file is there; a rename would replace it.
    let linked = written.and_then(|()| std::fs::hard_link(&unfinished, file));
    drop(std::fs::remove_file(&unfinished));
    match linked.and_then(|()| File::open(directory)?.sync_all()) {
        Ok(()) => Ok(say(&format!("wrote a key to {}", file.display()))?),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(say(&format!(
            "{} is there already and is left alone",
            file.display()
        ))?),
        Err(error) => Err(Failed::Error(
            anyhow!(error).context(format!("write a key to {}", file.display())),
        )),
    }
}
