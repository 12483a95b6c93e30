//! Requests on which the database gave up together: one of them may be the cause. They are admitted
//! again in parts that get smaller, apart from other requests, until the cause is alone.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::time::Instant;
use voice_otp_schemas::DeliveryKey;

use crate::engine::batch::{PARTS, alone_pause};
use crate::engine::sync::lock;

/// The requests that are admitted apart from others.
#[derive(Debug, Default)]
pub(in crate::engine) struct Suspects {
    by_key: Mutex<HashMap<DeliveryKey, Suspect>>,
}

#[derive(Debug)]
struct Suspect {
    /// How many of them are admitted together.
    part: usize,
    /// How often the database gave up on this one alone.
    failures_alone: u32,
    not_before: Instant,
}

impl Suspects {
    /// Records that the database gave up on a batch of this size with this request.
    pub(super) fn add(&self, key: &DeliveryKey, size: usize) {
        let mut by_key = lock(&self.by_key);
        let failures_alone = match by_key.get(key) {
            Some(known) if size == 1 => known.failures_alone + 1,
            Some(_) | None => 0,
        };
        let mut not_before = Instant::now();
        if size == 1 {
            not_before += alone_pause(failures_alone);
        }
        let suspect = Suspect {
            part: size.div_ceil(PARTS),
            failures_alone,
            not_before,
        };
        by_key.insert(key.clone(), suspect);
    }

    /// Records that a request has its verdict.
    pub(super) fn clear(&self, key: &DeliveryKey) {
        lock(&self.by_key).remove(key);
    }

    /// Leaves in `group` what may be admitted together: the requests without suspicion; if there
    /// are none, one part of the others, the largest parts first. The rest go to `later`.
    pub(super) fn select<T>(
        &self,
        group: &mut Vec<T>,
        key: impl Fn(&T) -> Option<DeliveryKey>,
        mut later: impl FnMut(&T),
    ) {
        let by_key = lock(&self.by_key);
        if by_key.is_empty() {
            return;
        }
        let suspect = |one: &T| key(one).and_then(|key| by_key.get(&key));
        let now = Instant::now();
        let part = if group.iter().any(|one| suspect(one).is_none()) {
            None
        } else {
            let due = group.iter().filter_map(suspect);
            let due = due.filter(|suspect| suspect.not_before <= now);
            due.map(|suspect| suspect.part).max()
        };
        let mut room = part.unwrap_or(0);
        group.retain(|one| {
            let stays = match suspect(one) {
                None => true,
                Some(suspect) => {
                    let fits = Some(suspect.part) == part && suspect.not_before <= now && room > 0;
                    room -= usize::from(fits);
                    fits
                }
            };
            if !stays {
                later(one);
            }
            stays
        });
    }
}
