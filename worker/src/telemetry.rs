//! The log, on standard error.

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::args::{LogFormat, Logging};

/// Sets up logging. `default_levels` apply where the user names none.
///
/// # Errors
/// A sentence that names the setting that is wrong.
pub(crate) fn start(logging: &Logging, default_levels: &str) -> Result<(), String> {
    let levels = EnvFilter::builder()
        .parse(logging.levels.as_deref().unwrap_or(default_levels))
        .map_err(|_| "VOICE_OTP_LOG: levels such as info or voice_otp=debug,info".to_owned())?;
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match logging.format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    };
    let layer = layer.with_filter(filter_fn(is_free_of_secrets));
    // It fails if a subscriber is set already: a program that embeds this one keeps its own.
    drop(
        tracing_subscriber::registry()
            .with(levels)
            .with(layer)
            .try_init(),
    );
    Ok(())
}

/// This program's own events hold no secret, at any level. Those of libraries do: lapin logs
/// returned messages and whole frames, the HTTP and Postgres clients log what they send at their
/// lower levels. So only warnings of other crates are logged, and nothing of lapin's.
fn is_free_of_secrets(metadata: &Metadata<'_>) -> bool {
    let own = metadata.target().starts_with("voice_otp");
    own || (*metadata.level() <= Level::WARN && !metadata.target().starts_with("lapin"))
}
