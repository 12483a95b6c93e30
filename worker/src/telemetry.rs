//! What the program tells the people who run it.

use std::io::{IsTerminal as _, Write as _};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::cli::Log;

/// Sets logging up, to standard error. `usual` are the levels where none are asked for.
///
/// # Errors
/// A sentence that says which setting is wrong.
pub(crate) fn start(log: &Log, usual: &str) -> Result<(), String> {
    let levels = EnvFilter::builder()
        .parse(log.levels.as_deref().unwrap_or(usual))
        .map_err(|_| "VOICE_OTP_LOG: levels such as info or voice_otp=debug,info".to_owned())?;
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match log.format.as_str() {
        "text" => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        "json" => layer.json().flatten_event(true).boxed(),
        _ => return Err("VOICE_OTP_LOG_FORMAT: text or json".to_owned()),
    };
    let layer = layer.with_filter(filter_fn(is_fit_to_print));
    // It has been set up already where the program runs inside another.
    drop(
        tracing_subscriber::registry()
            .with(levels)
            .with(layer)
            .try_init(),
    );
    Ok(())
}

/// Our own words hold no secret, at any level. Libraries' do: lapin prints returned messages and whole frames, the HTTP
/// and Postgres clients print what they send at their lower levels. So of theirs only warnings pass, and of lapin's none.
fn is_fit_to_print(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target().starts_with("voice_otp");
    ours || (*metadata.level() <= Level::WARN && !metadata.target().starts_with("lapin"))
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
