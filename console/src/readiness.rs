//! Whether the database answers.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use voice_otp_store::pool::Pool;

/// What the database answered last. Anyone may ask for it, so that it costs a statement a second
/// at most.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<(Instant, bool)>>);

/// How long an answer holds.
const HOLDS: Duration = Duration::from_secs(1);

impl Readiness {
    /// Whether the database answers a statement, as of a second ago at most.
    pub(crate) async fn is_ready(&self, pool: &Pool) -> bool {
        let mut last = self.0.lock().await;
        if let Some((at, is_ready)) = *last
            && at.elapsed() < HOLDS
        {
            return is_ready;
        }
        let is_ready = pool.ping().await.is_ok();
        *last = Some((Instant::now(), is_ready));
        is_ready
    }
}
