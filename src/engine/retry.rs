//! Repeating a database operation until the database answers.

use std::error::Error;
use std::time::Duration;

use super::shutdown::Shutdown;

/// The pause before an operation is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Runs `operation` until it succeeds. `None` if the worker must stop first. `what` names the
/// operation in the log.
pub(super) async fn until_answered<T, E, F>(
    shutdown: &Shutdown,
    what: &'static str,
    mut operation: impl FnMut() -> F,
) -> Option<T>
where
    E: Error + 'static,
    F: Future<Output = Result<T, E>>,
{
    loop {
        match operation().await {
            Ok(answer) => return Some(answer),
            Err(error) => {
                tracing::debug!(
                    operation = what,
                    error = as_error(&error),
                    "database operation failed; retrying"
                );
            }
        }
        if shutdown.sleep_or_hard(RETRY_PAUSE).await {
            return None;
        }
    }
}

/// An error as a log field, with its chain of sources.
pub(super) fn as_error(error: &(impl Error + 'static)) -> &(dyn Error + 'static) {
    error
}
