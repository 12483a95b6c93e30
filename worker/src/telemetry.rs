//! What the program tells the people who run it.

use std::io::{IsTerminal as _, Write as _};

use tracing_subscriber::EnvFilter;

use crate::cli::Log;

/// Sets logging up, to standard error. `usual` are the levels where none are asked for.
///
/// # Errors
/// A sentence that says which setting is wrong.
pub(crate) fn start(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::builder()
        .parse(&log.levels)
        .map_err(|_| "VOICE_OTP_LOG: levels such as info or voice_otp=debug,info".to_owned())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format.as_str() {
        "text" => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        "json" => builder.json().flatten_event(true).try_init(),
        _ => return Err("VOICE_OTP_LOG_FORMAT: text or json".to_owned()),
    };
    // It has been set up already where the program runs inside another.
    drop(started);
    Ok(())
}

/// Writes a line to standard error, where there is no log yet, or a person is to read it.
pub fn complain(text: &str) {
    // There is nobody to tell that standard error is gone.
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Writes a line to standard output.
///
/// # Errors
/// When nobody reads any more.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").map_err(Into::into)
}
