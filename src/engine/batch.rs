//! Groups that form by themselves: while one is being worked on, the next gathers. No timer adds a wait when traffic
//! is low, and load makes groups larger.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::ports::LedgerError;

/// What a member of a group is told when its group can't be worked on.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The ledger refuses this very item.
    #[error("the ledger refuses the row")]
    Refused(#[source] LedgerError),
    /// The batch has been closed.
    #[error("the worker is stopping")]
    Closed,
}

/// An item on its way, and whom to answer.
type Waiting<I, O> = (I, oneshot::Sender<Result<O, BatchError>>);

/// The entrance to a batch.
#[derive(Debug)]
pub struct Batch<I, O> {
    sender: mpsc::Sender<Waiting<I, O>>,
}

/// The working side of a batch.
pub struct Runner<I, O> {
    receiver: mpsc::Receiver<Waiting<I, O>>,
    most: usize,
    what: &'static str,
}

/// The pause before a group is tried again that met an unavailable ledger.
const LEDGER_PAUSE: Duration = Duration::from_millis(250);

/// A batch whose groups hold `most` items at most; `what` names it in the log.
pub fn batch<I, O>(most: usize, what: &'static str) -> (Batch<I, O>, Runner<I, O>) {
    let (sender, receiver) = mpsc::channel(most * 4);
    (
        Batch { sender },
        Runner {
            receiver,
            most,
            what,
        },
    )
}

impl<I, O> Batch<I, O> {
    /// Adds an item to the next group and waits for its answer.
    ///
    /// # Errors
    /// [`BatchError`] says whether the item or the batch is at fault. After a dropped wait the item may be worked on
    /// all the same.
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
    /// Works on groups until every [`Batch`] handle is gone, or `hard` says that time is up.
    pub async fn run<W, F>(mut self, work: W, hard: CancellationToken)
    where
        W: Fn(Vec<I>) -> F + Send,
        F: Future<Output = (Vec<I>, Result<Vec<O>, LedgerError>)> + Send,
    {
        let mut items = Vec::new();
        loop {
            // Cancel-safe: both arms only wait.
            let got = tokio::select! {
                got = self.receiver.recv_many(&mut items, self.most) => got,
                () = hard.cancelled() => 0,
            };
            if got == 0 {
                return;
            }
            let (group, answers): (Vec<I>, Vec<_>) = items.drain(..).unzip();
            // Cancel-safe: who waits for an answer hears that the batch is closed.
            tokio::select! {
                results = work_on(group, &work, self.what) => {
                    for (answer, result) in answers.into_iter().zip(results) {
                        // Who no longer waits needs no answer.
                        drop(answer.send(result));
                    }
                }
                () = hard.cancelled() => return,
            }
        }
    }
}

/// Works on a group until the ledger has it: an unavailable ledger is waited for, and a group that it refuses is
/// halved until the culprit stands alone.
pub(crate) async fn work_on<I, O, W, F>(
    group: Vec<I>,
    work: &W,
    what: &'static str,
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
                    tracing::info!(what, "the ledger is back");
                }
                results.extend(answers.into_iter().map(Ok));
            }
            Ok(_) => {
                let nonsense = LedgerError::Nonsense("a group and its answers differ in number");
                tracing::error!(
                    what,
                    error = &nonsense as &dyn std::error::Error,
                    "a group failed"
                );
                results.extend(part.iter().map(|_| {
                    Err(BatchError::Refused(LedgerError::Nonsense(
                        "answers are missing",
                    )))
                }));
            }
            Err(LedgerError::Unavailable(error)) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        what,
                        error = &*error as &dyn std::error::Error,
                        "the ledger can't be reached, trying again"
                    );
                }
                parts.push(part);
                tokio::time::sleep(LEDGER_PAUSE).await;
            }
            Err(error) if size > 1 => {
                tracing::debug!(
                    what,
                    size,
                    error = &error as &dyn std::error::Error,
                    "the ledger refuses a group, halving it"
                );
                let rest = part.split_off(size / 2);
                parts.push(rest);
                parts.push(part);
            }
            Err(error) => {
                tracing::error!(
                    what,
                    error = &error as &dyn std::error::Error,
                    "the ledger refuses a row"
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
    async fn a_bad_row_is_found_and_the_others_are_done() {
        let (entrance, runner) = batch::<u32, u32>(64, "numbers");
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let work = move |group: Vec<u32>| {
            let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                let result = if first {
                    Err(LedgerError::Unavailable("away".into()))
                } else if group.contains(&13) {
                    Err(LedgerError::Data("thirteen".into()))
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
