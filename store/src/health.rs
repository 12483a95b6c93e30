//! What works with the database, for readiness and the log.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use voice_otp::ports::LedgerError;

use crate::{grants, pooler, sqlstate};

/// What works with the database. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<Operations>>);

/// Operations that a worker must be able to execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Admit,
    Start,
    Save,
    Claim,
    Sweep,
    Listen,
}

#[derive(Debug, Default)]
struct Operations {
    states: BTreeMap<Operation, State>,
    /// How far this machine's clock is from the database's, as last measured.
    clock_difference: Duration,
    next_id: u64,
}

#[derive(Debug, Default)]
struct State {
    /// When each execution that is under way began.
    under_way: BTreeMap<u64, Instant>,
    failure: Option<Failure>,
}

/// Nothing has succeeded since.
#[derive(Debug)]
struct Failure {
    since: Instant,
    reason: String,
    is_logged: bool,
}

/// An execution under way. Dropped, it is no longer.
struct UnderWay<'a> {
    health: &'a Health,
    operation: Operation,
    id: u64,
    began: Instant,
}

/// How long an operation may fail, or have no answer, before it is reported.
const TOLERANCE: Duration = Duration::from_secs(5);
/// How far the machine's clock may be from the database's before it is reported.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "admitting requests",
            Self::Start => "starting attempts",
            Self::Save => "saving changes",
            Self::Claim => "claiming due deliveries",
            Self::Sweep => "sweeping the outbox",
            Self::Listen => "listening for changed settings",
        }
    }
}

impl Health {
    /// What has not worked for five seconds: a sentence for each.
    pub fn problems(&self) -> Vec<String> {
        let operations = self.lock();
        let mut problems: Vec<String> = operations
            .states
            .iter()
            .filter_map(|(operation, state)| state.problem(*operation))
            .collect();
        if operations.clock_difference > CLOCK_TOLERANCE {
            problems.push(format!(
                "this machine's clock is {} s from the database's; check both with NTP",
                operations.clock_difference.as_secs()
            ));
        }
        problems
    }

    /// Executes an operation, and remembers whether it worked.
    pub(crate) async fn watch<T>(
        &self,
        operation: Operation,
        execution: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        let under_way = self.begin(operation);
        let result = execution.await;
        match &result {
            Err(LedgerError::Unavailable(error) | LedgerError::GaveUp(error)) => {
                self.failed(operation, under_way.began, reason(&**error));
            }
            // The database answers, even if it rejects a row.
            Ok(_) | Err(_) => self.succeeded(operation),
        }
        result
    }

    pub(crate) fn set_clock_difference(&self, difference: Duration) {
        self.lock().clock_difference = difference;
    }

    pub(crate) fn succeeded(&self, operation: Operation) {
        let failure = {
            let mut operations = self.lock();
            operations
                .states
                .entry(operation)
                .or_default()
                .failure
                .take()
        };
        if let Some(failure) = failure.filter(|failure| failure.is_logged) {
            tracing::info!(
                failed_for_s = failure.since.elapsed().as_secs(),
                "{} works again",
                operation.as_str()
            );
        }
    }

    /// Records a failure of an execution that began at `began`.
    pub(crate) fn failed(&self, operation: Operation, began: Instant, reason: String) {
        let mut operations = self.lock();
        let state = operations.states.entry(operation).or_default();
        let failure = state.failure.get_or_insert(Failure {
            since: began,
            reason: String::new(),
            is_logged: false,
        });
        failure.reason = reason;
        if failure.since.elapsed() >= TOLERANCE && !failure.is_logged {
            failure.is_logged = true;
            tracing::warn!(
                failed_for_s = failure.since.elapsed().as_secs(),
                reason = failure.reason,
                "{} fails; retrying",
                operation.as_str()
            );
        }
    }

    fn begin(&self, operation: Operation) -> UnderWay<'_> {
        let began = Instant::now();
        let mut operations = self.lock();
        let id = operations.next_id;
        operations.next_id += 1;
        let state = operations.states.entry(operation).or_default();
        state.under_way.insert(id, began);
        UnderWay {
            health: self,
            operation,
            id,
            began,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Operations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn problem(&self, operation: Operation) -> Option<String> {
        let name = operation.as_str();
        if let Some(failure) = &self.failure
            && failure.since.elapsed() >= TOLERANCE
        {
            let seconds = failure.since.elapsed().as_secs();
            return Some(format!("{name} fails for {seconds} s: {}", failure.reason));
        }
        let (_, oldest) = self.under_way.first_key_value()?;
        (oldest.elapsed() >= TOLERANCE)
            .then(|| format!("{name} has no answer for {} s", oldest.elapsed().as_secs()))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut operations = self.health.lock();
        if let Some(state) = operations.states.get_mut(&self.operation) {
            state.under_way.remove(&self.id);
        }
    }
}

/// An error with its sources, in words that show no row.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> String {
    let mut words = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(cause) = explain(error) {
            words.push(cause);
            break;
        }
        words.push(error.to_string());
        next = error.source();
    }
    words.join(": ")
}

/// What an error of Postgres says, or what it says about a pooler or a missing right.
fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    let postgres = error.downcast_ref::<tokio_postgres::Error>()?;
    pooler::explain(error)
        .map(str::to_owned)
        .or_else(|| grants::explain(error))
        .or_else(|| Some(sqlstate::in_words(postgres)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn claim(health: &Health, answer: Result<(), &'static str>) {
        let execution = async { answer.map_err(|why| LedgerError::Unavailable(why.into())) };
        drop(health.watch(Operation::Claim, execution).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_reported_after_five_seconds_until_a_success() {
        let health = Health::default();
        claim(&health, Err("read-only")).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        claim(&health, Err("read-only")).await;
        assert_eq!(health.problems(), Vec::<String>::new());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(
            health.problems(),
            ["claiming due deliveries fails for 6 s: read-only"]
        );
        claim(&health, Ok(())).await;
        assert_eq!(health.problems(), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_reported_while_it_is_awaited() {
        let health = Health::default();
        {
            let silent = health.watch::<()>(Operation::Sweep, std::future::pending());
            assert!(
                tokio::time::timeout(Duration::from_secs(7), silent)
                    .await
                    .is_err()
            );
            let silent = health.watch::<()>(Operation::Sweep, std::future::pending());
            tokio::pin!(silent);
            drop(tokio::time::timeout(Duration::from_secs(7), &mut silent).await);
            assert_eq!(
                health.problems(),
                ["sweeping the outbox has no answer for 7 s"]
            );
        }
        assert_eq!(
            health.problems(),
            Vec::<String>::new(),
            "an execution that was dropped is not awaited"
        );
    }

    #[test]
    fn a_clock_that_differs_is_reported() {
        let health = Health::default();
        health.set_clock_difference(Duration::from_secs(91));
        assert_eq!(health.problems().len(), 1);
        health.set_clock_difference(Duration::from_millis(20));
        assert!(health.problems().is_empty());
    }
}
