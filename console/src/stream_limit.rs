//! A limit of the event streams that are open with one token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::problem::Problem;

/// The open event streams of each token, by its id. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct StreamLimit(Arc<Mutex<HashMap<Uuid, usize>>>);

/// An open stream, until it is dropped.
pub(crate) struct OpenStream {
    token_id: Uuid,
    streams: StreamLimit,
}

/// Streams with one token, or with sessions that were opened with it.
pub(crate) const MAX_STREAMS_PER_TOKEN: usize = 20;
/// When a client may try again: a page may be closed by then.
const RETRY_AFTER: Duration = Duration::from_secs(30);

impl StreamLimit {
    /// Counts a stream of a token. An error if the token has too many.
    pub(crate) fn open(&self, token_id: Uuid) -> Result<OpenStream, Problem> {
        let mut counts = self.counts();
        let count = counts.entry(token_id).or_default();
        if *count >= MAX_STREAMS_PER_TOKEN {
            let detail = format!(
                "This token has {MAX_STREAMS_PER_TOKEN} event streams open, its sessions included. \
                 Close one, for example a page of the console, or use another token; operators \
                 create tokens with voice-otp token create."
            );
            return Err(Problem::too_many_requests(detail).with_retry_after(RETRY_AFTER));
        }
        *count += 1;
        Ok(OpenStream {
            token_id,
            streams: self.clone(),
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Uuid, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut counts = self.streams.counts();
        if let Some(count) = counts.get_mut(&self.token_id) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.token_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_a_bounded_number_of_streams_and_no_other_waits_for_it() {
        let limit = StreamLimit::default();
        let token = Uuid::from_u128(1);
        let mut open: Vec<OpenStream> = (0..MAX_STREAMS_PER_TOKEN)
            .map(|_| limit.open(token).unwrap())
            .collect();
        assert!(limit.open(token).is_err());
        assert!(limit.open(Uuid::from_u128(2)).is_ok());
        open.pop();
        assert!(limit.open(token).is_ok());
        drop(open);
        assert!(limit.counts().is_empty());
    }
}
