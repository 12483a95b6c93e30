//! Publishing statuses: confirmed, in order per delivery, then forgotten by the ledger.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::delivery::Key;
use crate::event::Event;
use crate::ports::{Ledger as _, Lower, Ports, StatusSink};

/// The entrance.
pub(super) struct Relay {
    sender: mpsc::Sender<Sent>,
    waiting: Arc<AtomicUsize>,
}

/// The working side.
pub(super) struct Runner<S> {
    sink: S,
    receiver: mpsc::Receiver<Sent>,
    /// Events on their way in and in the queue.
    waiting: Arc<AtomicUsize>,
    recent: Recent,
    finals: Finals,
    /// Read, and not known to be published.
    queue: Vec<Event>,
    /// Published, and not known to be forgotten by the ledger.
    done: Vec<(Key, u32)>,
    /// When the ledger is to forget them.
    forget_at: tokio::time::Instant,
    /// To be published beside the others.
    aside: Vec<(Vec<Event>, oneshot::Sender<bool>)>,
}

enum Sent {
    /// Just saved.
    New(Vec<Event>, Lower),
    /// Found in the ledger.
    Swept(Vec<Event>),
    /// In no order with others, and not in the ledger; the answer says whether all are published.
    Aside(Vec<Event>, oneshot::Sender<bool>),
}

/// The highest sequence of each delivery that was lately queued here: so that an event whose forerunner is on its
/// way is told from one whose forerunner somebody else has. Two generations, so that it stays small.
struct Recent {
    young: HashMap<Key, u32>,
    old: HashMap<Key, u32>,
    turned: tokio::time::Instant,
}

/// Final statuses that were lately published, by delivery and sequence: of one delivery there must not be two. Two generations.
struct Finals {
    young: HashMap<Key, u32>,
    old: HashMap<Key, u32>,
    turned: tokio::time::Instant,
    doubles: u64,
}

/// How long a generation of [`Finals`] is.
const FINALS_GENERATION: Duration = Duration::from_mins(1);
/// The most events that wait for the broker in memory. What is beyond stays in the ledger, for the sweeper.
const WAITING: usize = 50_000;
/// The most events in one window of publishes.
const WINDOW: usize = 256;
/// How long a generation of [`Recent`] is.
const GENERATION: Duration = Duration::from_secs(10);
/// How long a published event stays in the ledger at least, if few are published: many are forgotten at once. What a crash leaves
/// there is published again, the same event. Short, since another worker that changes the delivery meanwhile leaves the status of that
/// change to its sweeper.
const FORGET_AFTER: Duration = Duration::from_millis(20);
/// The pause after a window that could not be published.
const SINK_PAUSE: Duration = Duration::from_millis(250);

pub(super) fn new<S>(sink: S) -> (Relay, Runner<S>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let recent = Recent {
        young: HashMap::new(),
        old: HashMap::new(),
        turned: tokio::time::Instant::now(),
    };
    let waiting = Arc::new(AtomicUsize::new(0));
    (
        Relay {
            sender,
            waiting: Arc::clone(&waiting),
        },
        Runner {
            sink,
            receiver,
            waiting,
            recent,
            finals: Finals::new(),
            queue: Vec::new(),
            done: Vec::new(),
            forget_at: tokio::time::Instant::now(),
            aside: Vec::new(),
        },
    )
}

impl Relay {
    /// Sends the events of a change just saved. They are in the ledger, so a full relay may leave them there.
    pub(super) fn send(&self, events: Vec<Event>, lower: Lower) {
        if !events.is_empty() && self.waiting.load(Ordering::Relaxed) < WAITING {
            self.put(events.len(), Sent::New(events, lower));
        }
    }

    /// Sends events found in the ledger. What is in the queue already is told from what isn't there.
    pub(super) fn sweep(&self, events: Vec<Event>) {
        if !events.is_empty() && self.waiting.load(Ordering::Relaxed) < WAITING {
            self.put(events.len(), Sent::Swept(events));
        }
    }

    /// Publishes events that are in no order with others. False if one of them is not known to be published.
    pub(super) async fn aside(&self, events: Vec<Event>) -> bool {
        let (answer, answered) = oneshot::channel();
        self.put(events.len(), Sent::Aside(events, answer));
        answered.await.unwrap_or(false)
    }

    fn put(&self, events: usize, sent: Sent) {
        self.waiting.fetch_add(events, Ordering::Relaxed);
        if self.sender.try_send(sent).is_err() {
            self.waiting.fetch_sub(events, Ordering::Relaxed);
            tracing::debug!("the relay is full or closed, the sweeper will publish");
        }
    }
}

impl<S: StatusSink> Runner<S> {
    /// Publishes until closed and empty, or until time is up.
    pub(super) async fn run<P: Ports>(
        mut self,
        engine: Arc<Engine<P>>,
        closed: CancellationToken,
        hard: CancellationToken,
    ) {
        loop {
            let more = tokio::select! {
                more = self.round(&engine, &closed) => more,
                () = hard.cancelled() => false,
            };
            if !more {
                return;
            }
        }
    }

    async fn round<P: Ports>(&mut self, engine: &Engine<P>, closed: &CancellationToken) -> bool {
        let mut sent = Vec::new();
        while self.queue.len() + sent.len() < WINDOW {
            match self.receiver.try_recv() {
                Ok(more) => sent.push(more),
                Err(_) => break,
            }
        }
        if self.queue.is_empty() && sent.is_empty() {
            tokio::select! {
                more = self.receiver.recv() => match more {
                    Some(more) => sent.push(more),
                    None => return false,
                },
                () = tokio::time::sleep_until(self.forget_at), if !self.done.is_empty() => {}
                // What was sent before the closing is in the channel already.
                () = closed.cancelled() => match self.receiver.try_recv() {
                    Ok(more) => sent.push(more),
                    Err(_) if self.done.is_empty() => return false,
                    Err(_) => {}
                },
            }
        }
        for more in sent {
            self.accept(more);
        }
        let window: Vec<Event> = self.queue.drain(..self.queue.len().min(WINDOW)).collect();
        let ripe = self.done.len() >= WINDOW
            || tokio::time::Instant::now() >= self.forget_at
            || closed.is_cancelled();
        let done = if ripe {
            std::mem::take(&mut self.done)
        } else {
            Vec::new()
        };
        let forget = async {
            match if done.is_empty() {
                Ok(())
            } else {
                engine.ledger.published(&done).await
            } {
                Ok(()) => Vec::new(),
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "can't clear published statuses, trying again"
                    );
                    done.clone()
                }
            }
        };
        let publish = async {
            if window.is_empty() {
                Vec::new()
            } else {
                self.sink.publish(&window).await
            }
        };
        let (results, not_forgotten) = tokio::join!(publish, forget);
        let stuck = !not_forgotten.is_empty() && window.is_empty();
        self.done.extend(not_forgotten);
        for (events, answer) in std::mem::take(&mut self.aside) {
            let results = self.sink.publish(&events).await;
            self.waiting.fetch_sub(events.len(), Ordering::Relaxed);
            let all = results.len() == events.len() && results.iter().all(Result::is_ok);
            if answer.send(all).is_err() {
                tracing::debug!("who wanted to know has gone");
            }
        }
        let waits = self.sort_out(window, results) || stuck;
        engine
            .counts
            .finals_double
            .fetch_add(std::mem::take(&mut self.finals.doubles), Ordering::Relaxed);
        if waits {
            tokio::time::sleep(SINK_PAUSE).await;
        }
        true
    }

    fn accept(&mut self, sent: Sent) {
        self.recent.turn(&self.queue);
        let (events, lower) = match sent {
            Sent::New(events, lower) => (events, Some(lower)),
            Sent::Swept(events) => (events, None),
            Sent::Aside(events, answer) => {
                self.aside.push((events, answer));
                return;
            }
        };
        let waiting = Arc::clone(&self.waiting);
        for event in events {
            let before = self.recent.highest(&event.key);
            let queued = before.is_some_and(|before| before >= event.sequence);
            let in_order = match lower {
                // Swept events come in order, with all that is left of their delivery.
                None | Some(Lower::Published) => true,
                Some(Lower::Mine | Lower::Others) => {
                    before.is_some_and(|before| before + 1 >= event.sequence)
                }
            };
            if !queued && in_order {
                self.recent.young.insert(event.key.clone(), event.sequence);
                self.queue.push(event);
            } else {
                waiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Keeps what was not published, and whatever of the same delivery came after it, for the next round. True if
    /// there is any.
    fn sort_out(
        &mut self,
        window: Vec<Event>,
        results: Vec<Result<(), crate::ports::SinkError>>,
    ) -> bool {
        let mut failed: HashSet<Key> = HashSet::new();
        let mut again = Vec::new();
        let mut results = results.into_iter();
        for event in window {
            match results.next() {
                Some(Ok(())) if !failed.contains(&event.key) => {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.finals.note(&event);
                    if self.done.is_empty() {
                        self.forget_at = tokio::time::Instant::now() + FORGET_AFTER;
                    }
                    self.done.push((event.key.clone(), event.sequence));
                }
                Some(Err(error)) => {
                    if failed.is_empty() {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "can't publish statuses, trying again"
                        );
                    }
                    failed.insert(event.key.clone());
                    again.push(event);
                }
                Some(Ok(())) | None => {
                    failed.insert(event.key.clone());
                    again.push(event);
                }
            }
        }
        let any = !again.is_empty();
        again.append(&mut self.queue);
        self.queue = again;
        any
    }
}

impl Finals {
    fn new() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            turned: tokio::time::Instant::now(),
            doubles: 0,
        }
    }

    /// Notes an event that was published.
    fn note(&mut self, event: &Event) {
        if !event.is_final() {
            return;
        }
        if self.turned.elapsed() > FINALS_GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.turned = tokio::time::Instant::now();
        }
        let before = self
            .young
            .insert(event.key.clone(), event.sequence)
            .or_else(|| self.old.get(&event.key).copied());
        if before.is_some_and(|before| before != event.sequence) {
            self.doubles += 1;
            tracing::error!(
                tenant.id = %event.key.tenant_id,
                delivery.id = %event.key.delivery_id,
                "a second final status of a delivery was published"
            );
        }
    }
}

impl Recent {
    fn highest(&self, key: &Key) -> Option<u32> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    fn turn(&mut self, queue: &[Event]) {
        if self.turned.elapsed() > GENERATION {
            self.old = std::mem::take(&mut self.young);
            // What waits for a broker that is away stays young, however long that takes.
            self.young.extend(
                queue
                    .iter()
                    .map(|event| (event.key.clone(), event.sequence)),
            );
            self.turned = tokio::time::Instant::now();
        }
    }
}
