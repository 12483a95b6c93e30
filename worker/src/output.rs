//! Lines for the people who run the program.

use std::io::Write as _;

/// Writes a line to standard error: for problems found before the log is set up, and for those that
/// end a command.
pub fn print_error(text: &str) {
    // If standard error is closed, there is no place left to report it.
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Writes a line to standard output.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn print_line(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").map_err(Into::into)
}

/// Writes a value to standard output as indented JSON.
///
/// # Errors
/// When standard output is closed, or the value has no JSON form.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print_line(&serde_json::to_string_pretty(value)?)
}
