//! Batches that form by themselves: while one is being processed, the next one gathers. No timer
//! adds latency when traffic is low, and load makes batches larger.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::retry::as_error;
use crate::ports::LedgerError;

/// Why an item was not processed.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The database rejects this item.
    #[error("the database rejected the row")]
    Refused(#[source] LedgerError),
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

/// The pause before a batch is retried after the database was unavailable.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

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

impl<I: Send + Sync, O: Send> Runner<I, O> {
    /// Processes batches until every [`Batch`] handle is dropped, or `hard` is cancelled.
    pub async fn run<W, F>(mut self, work: W, hard: CancellationToken)
    where
        W: Fn(Vec<I>) -> F + Send,
        F: Future<Output = (Vec<I>, Result<Vec<O>, LedgerError>)> + Send,
    {
        let mut items = Vec::new();
        loop {
            // Cancel-safe: both arms only wait.
            let received = tokio::select! {
                received = self.receiver.recv_many(&mut items, self.max_batch) => received,
                () = hard.cancelled() => 0,
            };
            if received == 0 {
                return;
            }
            let (group, answers): (Vec<I>, Vec<_>) = items.drain(..).unzip();
            // Cancel-safe: the senders of the items learn that the batch is closed.
            tokio::select! {
                results = work_on(group, &work, self.operation) => {
                    for (answer, result) in answers.into_iter().zip(results) {
                        // The sender may not wait any more.
                        drop(answer.send(result));
                    }
                }
                () = hard.cancelled() => return,
            }
        }
    }
}

/// Processes a batch until the ledger has it: waits for an unavailable database, and halves a batch
/// that the database rejects until the rejected item is alone.
pub(crate) async fn work_on<I, O, W, F>(
    group: Vec<I>,
    work: &W,
    operation: &'static str,
) -> Vec<Result<O, BatchError>>
where
    I: Send,
    O: Send,
    W: Fn(Vec<I>) -> F + Send,
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
                results.extend(answers.into_iter().map(Ok));
            }
            Ok(_) => {
                let violation = || LedgerError::ProtocolViolation("answers are missing");
                tracing::error!(operation, error = as_error(&violation()), "a batch failed");
                results.extend(part.iter().map(|_| Err(BatchError::Refused(violation()))));
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
                results.push(Err(BatchError::Refused(error)));
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

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
}
