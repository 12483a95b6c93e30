//! Batches that form by themselves: while one is being processed, the next one gathers. No timer
//! adds latency when traffic is low, and load makes batches larger.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::retry::as_error;
use crate::ports::LedgerError;

/// Why an item was not processed.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The database rejects this item.
    #[error("the database rejected the row")]
    Refused(#[source] LedgerError),
    /// The database gave up on a batch with this item. The item must be tried again in a smaller
    /// batch, while others go on.
    #[error("the database gave up on the batch")]
    GaveUp,
    /// The batch is closed: the worker is stopping.
    #[error("the worker is stopping")]
    Closed,
}

/// An item, and where its answer goes.
type Waiting<I, O> = (I, oneshot::Sender<Result<O, BatchError>>);

/// The entrance to a batch.
#[derive(Debug)]
pub struct Batch<I, O> {
    sender: mpsc::Sender<Waiting<I, O>>,
}

/// The task that processes batches.
pub struct Runner<I, O> {
    receiver: mpsc::Receiver<Waiting<I, O>>,
    max_batch: usize,
    /// Names the operation in the log.
    operation: &'static str,
}

/// A part of a batch that the database gave up on, and the pause before it is tried again.
type Part<I, O> = (Vec<Waiting<I, O>>, Duration);

/// The pause before a batch is retried after the database was unavailable.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Into how many parts a batch is divided that the database gave up on. Each level may cost the
/// time that a statement may take.
pub(crate) const PARTS: usize = 8;
/// The first pause before an item is retried alone that the database gave up on; doubled each time.
const FIRST_ALONE_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_ALONE_PAUSE: Duration = Duration::from_mins(1);

/// Divides a batch that the database gave up on.
pub(crate) fn smaller_parts<I>(mut group: Vec<I>) -> Vec<Vec<I>> {
    let size = group.len().div_ceil(PARTS).max(1);
    let mut parts = Vec::with_capacity(PARTS);
    while !group.is_empty() {
        let rest = group.split_off(size.min(group.len()));
        parts.push(std::mem::replace(&mut group, rest));
    }
    parts
}

/// The pause before an item is retried alone, after this many failures alone.
pub(crate) fn alone_pause(failures: u32) -> Duration {
    FIRST_ALONE_PAUSE
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(LONGEST_ALONE_PAUSE)
}

/// A batch of up to `max_batch` items; `operation` names it in the log.
pub fn batch<I, O>(max_batch: usize, operation: &'static str) -> (Batch<I, O>, Runner<I, O>) {
    let (sender, receiver) = mpsc::channel(max_batch * 4);
    (
        Batch { sender },
        Runner {
            receiver,
            max_batch,
            operation,
        },
    )
}

impl<I, O> Batch<I, O> {
    /// Adds an item to the next batch and waits for its answer.
    ///
    /// # Errors
    /// [`BatchError`] says whether the item was rejected or the batch is closed. If the wait is
    /// dropped, the item may be processed nevertheless.
    pub async fn submit(&self, item: I) -> Result<O, BatchError> {
        let (answer, answered) = oneshot::channel();
        self.sender
            .send((item, answer))
            .await
            .map_err(|_| BatchError::Closed)?;
        answered.await.unwrap_or(Err(BatchError::Closed))
    }
}

impl<I: Send + Sync + 'static, O: Send + 'static> Runner<I, O> {
    /// Processes batches until every [`Batch`] handle is dropped, or `hard` is cancelled. What the
    /// database gives up on is processed in smaller parts meanwhile, without delaying others; an
    /// item that fails alone has no answer until it succeeds.
    pub async fn run<W, F>(mut self, work: W, hard: CancellationToken)
    where
        W: Fn(Vec<I>) -> F + Send + Sync + 'static,
        F: Future<Output = (Vec<I>, Result<Vec<O>, LedgerError>)> + Send + 'static,
    {
        let work = Arc::new(work);
        let mut aside = JoinSet::new();
        let set_aside = |aside: &mut JoinSet<_>, parts: Vec<Part<I, O>>| {
            for (part, pause) in parts {
                let work = Arc::clone(&work);
                aside.spawn(async move {
                    tokio::time::sleep(pause).await;
                    answer(part, &*work, self.operation, pause).await
                });
            }
        };
        let mut items = Vec::new();
        let mut open = true;
        while open || !aside.is_empty() {
            // Cancel-safe: the arms only wait, and receive what they return.
            let received = tokio::select! {
                received = self.receiver.recv_many(&mut items, self.max_batch), if open => received,
                Some(Ok(parts)) = aside.join_next() => {
                    set_aside(&mut aside, parts);
                    continue;
                }
                () = hard.cancelled() => return,
            };
            open = received > 0;
            // Cancel-safe: the senders of the items learn that the batch is closed.
            let answering = answer(
                std::mem::take(&mut items),
                &*work,
                self.operation,
                Duration::ZERO,
            );
            tokio::pin!(answering);
            let parts = loop {
                tokio::select! {
                    parts = &mut answering => break parts,
                    Some(Ok(parts)) = aside.join_next() => set_aside(&mut aside, parts),
                    () = hard.cancelled() => return,
                }
            };
            set_aside(&mut aside, parts);
        }
    }
}

/// Processes a batch and sends its answers. Returns what the database gave up on, in smaller parts.
async fn answer<I, O, W, F>(
    batch: Vec<Waiting<I, O>>,
    work: &W,
    operation: &'static str,
    paused: Duration,
) -> Vec<Part<I, O>>
where
    I: Send,
    O: Send,
    W: Fn(Vec<I>) -> F + Sync,
    F: Future<Output = (Vec<I>, Result<Vec<O>, LedgerError>)> + Send,
{
    let alone = batch.len() == 1;
    let (group, mut answers): (Vec<I>, VecDeque<_>) = batch.into_iter().unzip();
    let mut parts = Vec::new();
    for worked in work_on_parts(group, work, operation).await {
        match worked {
            Worked::Done(result) => {
                if let Some(answer) = answers.pop_front() {
                    // The sender may not wait any more.
                    drop(answer.send(result));
                }
            }
            Worked::GaveUp(part) => {
                let its_answers = answers.drain(..part.len().min(answers.len()));
                let part: Vec<Waiting<I, O>> = part.into_iter().zip(its_answers).collect();
                if alone {
                    let longer = (paused * 2).clamp(FIRST_ALONE_PAUSE, LONGEST_ALONE_PAUSE);
                    parts.push((part, longer));
                } else {
                    let smaller = smaller_parts(part).into_iter();
                    parts.extend(smaller.map(|part| (part, Duration::ZERO)));
                }
            }
        }
    }
    parts
}

/// Processes a batch until the ledger has it: waits for an unavailable database, and halves a batch
/// that the database rejects until the rejected item is alone. Items of a batch that the database
/// gave up on have [`BatchError::GaveUp`], at once.
pub(crate) async fn work_on<I, O, W, F>(
    group: Vec<I>,
    work: &W,
    operation: &'static str,
) -> Vec<Result<O, BatchError>>
where
    I: Send,
    O: Send,
    W: Fn(Vec<I>) -> F + Sync,
    F: Future<Output = (Vec<I>, Result<Vec<O>, LedgerError>)> + Send,
{
    let mut results = Vec::with_capacity(group.len());
    for worked in work_on_parts(group, work, operation).await {
        match worked {
            Worked::Done(result) => results.push(result),
            Worked::GaveUp(part) => {
                results.extend(part.iter().map(|_| Err(BatchError::GaveUp)));
            }
        }
    }
    results
}

/// What became of a part of a batch.
enum Worked<I, O> {
    /// The result of one item.
    Done(Result<O, BatchError>),
    /// The database gave up on these items together.
    GaveUp(Vec<I>),
}

/// Does the work of [`work_on`].
async fn work_on_parts<I, O, W, F>(
    group: Vec<I>,
    work: &W,
    operation: &'static str,
) -> Vec<Worked<I, O>>
where
    I: Send,
    O: Send,
    W: Fn(Vec<I>) -> F + Sync,
    F: Future<Output = (Vec<I>, Result<Vec<O>, LedgerError>)> + Send,
{
    let mut results = Vec::with_capacity(group.len());
    let mut parts = vec![group];
    let mut failing = false;
    while let Some(part) = parts.pop() {
        let size = part.len();
        let (mut part, result) = work(part).await;
        match result {
            Ok(answers) if answers.len() == size => {
                if std::mem::take(&mut failing) {
                    tracing::info!(operation, "database available again");
                }
                results.extend(answers.into_iter().map(Ok).map(Worked::Done));
            }
            Ok(_) => {
                let violation = || LedgerError::ProtocolViolation("answers are missing");
                tracing::error!(operation, error = as_error(&violation()), "a batch failed");
                let refused = || Worked::Done(Err(BatchError::Refused(violation())));
                results.extend(part.iter().map(|_| refused()));
            }
            Err(error @ LedgerError::Unavailable(_)) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        operation,
                        error = as_error(&error),
                        "database unavailable; retrying"
                    );
                }
                parts.push(part);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error @ LedgerError::GaveUp(_)) => {
                tracing::warn!(
                    operation,
                    size,
                    error = as_error(&error),
                    "the database gave up on a batch; retrying in smaller parts"
                );
                results.push(Worked::GaveUp(part));
            }
            Err(error) if size > 1 => {
                tracing::debug!(
                    operation,
                    size,
                    error = as_error(&error),
                    "the database rejected a batch; halving it"
                );
                let rest = part.split_off(size / 2);
                parts.push(rest);
                parts.push(part);
            }
            Err(error) => {
                tracing::error!(
                    operation,
                    error = as_error(&error),
                    "the database rejected a row"
                );
                results.push(Worked::Done(Err(BatchError::Refused(error))));
            }
        }
    }
    results
}

impl<I, O> Clone for Batch<I, O> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_rejected_row_is_found_and_the_others_are_processed() {
        let (entrance, runner) = batch::<u32, u32>(64, "numbers");
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let work = move |group: Vec<u32>| {
            let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                let result = if first {
                    Err(LedgerError::Unavailable("away".into()))
                } else if group.contains(&13) {
                    Err(LedgerError::InvalidRow("thirteen".into()))
                } else {
                    Ok(group.iter().map(|n| n * 2).collect())
                };
                (group, result)
            }
        };
        let tasks = tokio_util::task::TaskTracker::new();
        let items: Vec<_> = (0..40)
            .map(|n| {
                let entrance = entrance.clone();
                tasks.spawn(async move { entrance.submit(n).await })
            })
            .collect();
        drop(entrance);
        let all = async {
            let mut results = Vec::new();
            for item in items {
                results.push(item.await.unwrap());
            }
            results
        };
        let (results, ()) = tokio::join!(all, runner.run(work, CancellationToken::new()));
        for (n, result) in (0..).zip(results) {
            match result {
                Ok(double) => assert_eq!(double, n * 2),
                Err(BatchError::Refused(_)) => assert_eq!(n, 13),
                Err(other) => panic!("{other}"),
            }
        }
        assert!(calls.load(Ordering::SeqCst) < 20, "halving, not one by one");
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_that_the_database_gives_up_on_delays_no_other() {
        const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
        let (entrance, runner) = batch::<u32, u32>(64, "numbers");
        let stuck = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&stuck);
        let work = move |group: Vec<u32>| {
            let hit = group.contains(&13);
            let times = usize::from(hit) * counted.fetch_add(usize::from(hit), Ordering::SeqCst);
            async move {
                if hit && times < 6 {
                    tokio::time::sleep(STATEMENT_TIMEOUT).await;
                    return (group, Err(LedgerError::GaveUp("thirteen".into())));
                }
                let doubled = group.iter().map(|n| n * 2).collect();
                (group, Ok(doubled))
            }
        };
        let (began, hard) = (Instant::now(), CancellationToken::new());
        let tasks = tokio_util::task::TaskTracker::new();
        let submit = |n: u32| {
            let entrance = entrance.clone();
            tasks.spawn(async move {
                let answer = entrance.submit(n).await.unwrap();
                assert_eq!(answer, n * 2);
                began.elapsed()
            })
        };
        let first: Vec<_> = (0..64).map(submit).collect();
        let all = async {
            tokio::time::sleep(STATEMENT_TIMEOUT + Duration::from_millis(1)).await;
            for item in (100..110).map(submit).collect::<Vec<_>>() {
                let at = item.await.unwrap();
                assert!(at < STATEMENT_TIMEOUT + Duration::from_secs(1), "{at:?}");
            }
            let mut slow = 0;
            for item in first {
                let at = item.await.unwrap();
                slow += usize::from(at > STATEMENT_TIMEOUT + Duration::from_secs(1));
            }
            assert!(slow <= 8, "only its eighth waits longer: {slow}");
            hard.cancel();
            began.elapsed()
        };
        let (took, ()) = tokio::join!(all, runner.run(work, hard.clone()));
        assert!(
            took < Duration::from_mins(3),
            "it is retried alone: {took:?}"
        );
        assert_eq!(stuck.load(Ordering::SeqCst), 7, "with growing pauses");
    }
}
