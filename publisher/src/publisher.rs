//! The publisher: what a Rust auth service uses.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp_schemas::envelope::{LONGEST_BODY_BYTES, STRUCTURED, Trace};
use voice_otp_schemas::request::{CANCELLED, Cancelled, REQUESTED, Requested, VERIFIED, Verified};
use zeroize::Zeroizing;

pub use crate::channel::Declares;
use crate::channel::{Owner, Posted};
use crate::link;
use crate::message::{Message, PublishError};
use crate::topology::{CANCELLED_KEY, REQUESTED_KEY, REQUESTS, VERIFIED_KEY, lane_key};

/// How to publish.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `amqp://user:password@host:port/vhost`, or `amqps://…`.
    pub url: SecretString,
    /// The events' `source`: a URI reference that names the publisher.
    pub source: String,
    /// How long a publish may wait for the broker's confirm; 30 s by default.
    pub timeout: Duration,
    /// What is declared on every new connection.
    pub declares: Declares,
    /// Whether messages say, by the AMQP property `user_id`, whom they are from: the user of the URL. A tenant may have a list of
    /// who speaks for it. RabbitMQ refuses messages that say another user than the connection's, so switch it off where the
    /// broker knows the connection by another name than the URL's. On by default.
    pub say_user: bool,
    /// What the connection is called, for people who look at the broker.
    pub connection_name: String,
}

/// Publishes events, confirmed. Cheap to clone; one connection and one channel however many clones.
#[derive(Clone)]
pub struct Publisher {
    sender: mpsc::Sender<Posted>,
    ready: watch::Receiver<bool>,
    settings: Arc<Settings>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Messages that may wait in memory for the channel's task. Beyond, publishers wait.
const WAITING: usize = 1024;

impl Settings {
    /// Settings with defaults.
    pub fn new(url: SecretString, source: &str) -> Self {
        Self {
            url,
            source: source.to_owned(),
            timeout: Duration::from_secs(30),
            declares: Declares::Requests,
            say_user: true,
            connection_name: "voice-otp publisher".to_owned(),
        }
    }
}

impl Publisher {
    /// Starts a publisher. It connects by itself, and again whenever the connection is lost.
    ///
    /// # Errors
    /// [`link::Error::Url`] when the URL can't be read.
    pub fn start(settings: Settings) -> Result<Self, link::Error> {
        link::check(&settings.url)?;
        let (sender, inbox) = mpsc::channel(WAITING);
        let (ready_sender, ready) = watch::channel(false);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let owner = Owner {
            url: settings.url.clone(),
            name: settings.connection_name.clone(),
            user: if settings.say_user {
                link::user(&settings.url)
            } else {
                None
            },
            declares: settings.declares,
            inbox,
            ready: ready_sender,
            stop: stop.clone(),
        };
        tasks.spawn(owner.run());
        tasks.close();
        Ok(Self {
            sender,
            ready,
            settings: Arc::new(settings),
            stop,
            tasks,
        })
    }

    /// Whether a connection is up.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until a connection is up. Without one for ever, if the publisher has been closed.
    pub async fn ready(&self) {
        let mut ready = self.ready.clone();
        if ready.wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The events' `source`.
    pub(crate) fn source(&self) -> &str {
        &self.settings.source
    }

    /// Publishes a request to read a code out.
    ///
    /// # Errors
    /// [`PublishError`]; only [`PublishError::Unconfirmed`] leaves it open whether the broker has it.
    pub async fn request(&self, request: &Requested) -> Result<(), PublishError> {
        self.publish(request_message(request, self.source())?).await
    }

    /// Takes requests back. `id` is the event's own.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    pub async fn cancel(
        &self,
        id: &str,
        cancelled: &Cancelled,
        trace: &Trace,
    ) -> Result<(), PublishError> {
        self.publish(cancel_message(id, cancelled, self.source(), trace)?)
            .await
    }

    /// Says that a code was entered. `id` is the event's own.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    pub async fn verified(
        &self,
        id: &str,
        verified: &Verified,
        trace: &Trace,
    ) -> Result<(), PublishError> {
        self.publish(verified_message(id, verified, self.source(), trace)?)
            .await
    }

    /// Publishes any message: resolves when the broker has it safe.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    pub async fn publish(&self, message: Message) -> Result<(), PublishError> {
        let posted = self.post(message).await?;
        posted.await.unwrap_or(Err(PublishError::Closed))
    }

    /// Hands a message over, in order with the others of this caller; its answer can be waited for later.
    ///
    /// # Errors
    /// [`PublishError::Invalid`] or [`PublishError::Closed`]; nothing was sent then.
    pub async fn post(
        &self,
        message: Message,
    ) -> Result<oneshot::Receiver<Result<(), PublishError>>, PublishError> {
        message.check()?;
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + self.settings.timeout;
        let posted = Posted {
            message: Arc::new(message),
            deadline,
            answer,
        };
        match tokio::time::timeout_at(deadline, self.sender.send(posted)).await {
            Ok(Ok(())) => Ok(answered),
            Ok(Err(_)) => Err(PublishError::Closed),
            Err(_) => Err(PublishError::Unconfirmed(
                "too many messages wait for the broker",
            )),
        }
    }

    /// Stops: what waits is answered, the connection closed.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

pub(crate) fn request_message(request: &Requested, source: &str) -> Result<Message, PublishError> {
    let message_id = format!("{}/{}", request.tenant_id, request.delivery_id);
    event(
        lane_key(REQUESTED_KEY, &request.tenant_id),
        REQUESTED,
        message_id,
        request.to_json(source),
        &request.trace,
    )
}

pub(crate) fn cancel_message(
    id: &str,
    cancelled: &Cancelled,
    source: &str,
    trace: &Trace,
) -> Result<Message, PublishError> {
    let message_id = format!("{}/{id}", cancelled.tenant_id);
    event(
        lane_key(CANCELLED_KEY, &cancelled.tenant_id),
        CANCELLED,
        message_id,
        cancelled.to_json(id, source, None),
        trace,
    )
}

pub(crate) fn verified_message(
    id: &str,
    verified: &Verified,
    source: &str,
    trace: &Trace,
) -> Result<Message, PublishError> {
    let message_id = format!("{}/{id}", verified.tenant_id);
    event(
        lane_key(VERIFIED_KEY, &verified.tenant_id),
        VERIFIED,
        message_id,
        verified.to_json(id, source, None),
        trace,
    )
}

/// The type of the events with a routing key.
#[cfg(feature = "spool")]
pub(crate) fn kind_of(routing_key: &str) -> Option<&'static str> {
    [
        (REQUESTED_KEY, REQUESTED),
        (CANCELLED_KEY, CANCELLED),
        (VERIFIED_KEY, VERIFIED),
    ]
    .into_iter()
    .find_map(|(key, kind)| routing_key.starts_with(key).then_some(kind))
}

/// A message that carries an event on its way to the workers.
pub(crate) fn event(
    routing_key: String,
    kind: &'static str,
    message_id: String,
    body: Zeroizing<Vec<u8>>,
    trace: &Trace,
) -> Result<Message, PublishError> {
    if body.len() > LONGEST_BODY_BYTES {
        return Err(PublishError::Invalid("an event of more than 64 KiB"));
    }
    Ok(Message {
        exchange: REQUESTS,
        routing_key,
        message_id,
        kind,
        content_type: STRUCTURED,
        headers: trace_headers(trace),
        // Not set: a worker that comes back late says `expired` by itself, in the order of the queue.
        expiration: None,
        body,
    })
}

/// The trace context as text headers.
pub fn trace_headers(trace: &Trace) -> Vec<(&'static str, String)> {
    let parent = trace
        .traceparent
        .iter()
        .map(|text| ("traceparent", text.clone()));
    parent
        .chain(
            trace
                .tracestate
                .iter()
                .map(|text| ("tracestate", text.clone())),
        )
        .collect()
}
