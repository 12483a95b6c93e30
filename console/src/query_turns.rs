//! Turns for searches and figures, which may take seconds: one at a time for each tenant, so that
//! none waits for another's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use voice_otp_schemas::TenantId;
use voice_otp_store::access::Role;

use crate::problem::Problem;

/// The turns of everybody.
pub(crate) struct QueryTurns {
    /// Bounds what the database does for all together. Each owner waits here at most once, so the
    /// wait is short.
    all: Arc<Semaphore>,
    owners: Mutex<HashMap<Owner, Arc<Queue>>>,
}

/// Who waits in one queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    Operators,
    Tenant(TenantId),
}

struct Queue {
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A turn, until it is dropped.
pub(crate) struct Turn {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// Queries at once, of all owners.
const MAX_QUERIES: usize = 4;
/// Queries that may wait for one owner's turn.
const MAX_WAITING: usize = 10;
/// How long a query may wait.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// When a refused client may try again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Queues beyond which unused ones are removed.
const MAX_QUEUES: usize = 1_000;

impl Default for QueryTurns {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MAX_QUERIES)),
            owners: Mutex::default(),
        }
    }
}

impl QueryTurns {
    /// Waits for the turn of a tenant's administrators or of the operators. An error if too many
    /// wait already, or the wait was too long.
    pub(crate) async fn take(&self, role: &Role) -> Result<Turn, Problem> {
        let queue = self.queue(match role {
            Role::Operator => Owner::Operators,
            Role::TenantAdmin(tenant) => Owner::Tenant(tenant.clone()),
        });
        let _place = queue.enter().ok_or_else(too_many)?;
        let turn = async {
            let own = Arc::clone(&queue.turn).acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Turn {
                _own: own,
                _all: all,
            })
        };
        let taken = tokio::time::timeout(MAX_WAIT, turn).await;
        taken.ok().flatten().ok_or_else(too_many)
    }

    fn queue(&self, owner: Owner) -> Arc<Queue> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.len() >= MAX_QUEUES {
            owners.retain(|_, queue| queue.is_used());
        }
        let queue = owners.entry(owner).or_insert_with(|| {
            Arc::new(Queue {
                turn: Arc::new(Semaphore::new(1)),
                waiting: AtomicUsize::new(0),
            })
        });
        Arc::clone(queue)
    }
}

fn too_many() -> Problem {
    let detail = "Too many searches and figures of this tenant are in progress. Wait for them, and \
                  send one at a time.";
    Problem::too_many_requests(detail).with_retry_after(RETRY_AFTER)
}

/// A place in a queue, until it is dropped.
struct Place<'a>(&'a Queue);

impl Queue {
    fn enter(&self) -> Option<Place<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Place(self);
        (before < MAX_WAITING).then_some(place)
    }

    fn is_used(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 || self.turn.available_permits() == 0
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Role {
        Role::TenantAdmin(TenantId::parse(name).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_waits_for_its_own_queries_only() {
        let turns = QueryTurns::default();
        let busy = turns.take(&tenant("busy")).await.unwrap();
        let role = tenant("busy");
        let queued = turns.take(&role);
        tokio::pin!(queued);
        assert!(futures_util::poll!(queued.as_mut()).is_pending());
        assert!(turns.take(&tenant("other")).await.is_ok());
        assert!(turns.take(&Role::Operator).await.is_ok());
        drop(busy);
        assert!(queued.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_is_refused_when_ten_wait_and_when_it_has_waited_for_ten_seconds() {
        let turns = QueryTurns::default();
        let _turn = turns.take(&tenant("busy")).await.unwrap();
        let busy = tenant("busy");
        let mut waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| Box::pin(turns.take(&busy)))
            .collect();
        for query in &mut waiting {
            assert!(futures_util::poll!(query).is_pending());
        }
        let refused = turns.take(&tenant("busy")).await.err().unwrap();
        assert_eq!(refused.status().as_u16(), 429);
        for query in waiting {
            assert_eq!(query.await.err().unwrap().status().as_u16(), 429);
        }
    }
}
