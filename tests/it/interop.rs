//! Tests against other software: clients in other languages, AsyncAPI's parser, Twilio's helper
//! libraries, a mock made from Twilio's own `OpenAPI` description, and the previous release.
//! `./dev interop` installs it and runs these tests.

mod clients;
mod prism;
mod signatures;
mod twiml;
mod upgrade;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Where `./dev interop` has installed the third-party software.
fn folder() -> PathBuf {
    PathBuf::from(
        std::env::var_os("VOICE_OTP_INTEROP")
            .expect("VOICE_OTP_INTEROP is missing: run these with ./dev interop"),
    )
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A Node.js script. It finds its modules beside itself, so it is in the folder of the
/// installation.
fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command
        .arg(folder().join(script))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A Python script.
fn python(script: &Path) -> Command {
    let mut command = Command::new(folder().join("venv/bin/python"));
    command.arg(script).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command, which must succeed, and returns its output.
async fn run(mut command: Command) -> String {
    let output = tokio::time::timeout(Duration::from_mins(1), command.output())
        .await
        .expect("the command ends before the timeout")
        .unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn asyncapis_own_parser_accepts_the_document() {
    let mut command = node("asyncapi.mjs");
    command.arg(repository().join("schemas/asyncapi.json"));
    assert_eq!(run(command).await, "6 channels, 5 operations");
}
