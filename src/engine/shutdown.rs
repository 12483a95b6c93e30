//! How a worker is asked to stop.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The two stages of stopping.
#[derive(Debug, Clone, Default)]
pub(super) struct Shutdown {
    /// Take up nothing new; finish what is in progress.
    pub(super) soft: CancellationToken,
    /// Stop now, whatever is in progress.
    pub(super) hard: CancellationToken,
}

impl Shutdown {
    /// Sleeps. Returns true if the worker is asked to take up nothing new before the time is up.
    pub(super) async fn sleep_or_soft(&self, pause: Duration) -> bool {
        // Cancel-safe: both arms only wait.
        tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = self.soft.cancelled() => true,
        }
    }

    /// Sleeps. Returns true if the worker must stop now before the time is up.
    pub(super) async fn sleep_or_hard(&self, pause: Duration) -> bool {
        // Cancel-safe: both arms only wait.
        tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = self.hard.cancelled() => true,
        }
    }
}
