//! The publisher: confirmed publishing for auth services and workers in Rust.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp_schemas::envelope::{MAX_BODY_BYTES, STRUCTURED, Trace};
use voice_otp_schemas::request::{CANCELLED, Cancelled, REQUESTED, Requested, VERIFIED, Verified};
use zeroize::Zeroizing;

pub use crate::channel::TopologyScope;
use crate::channel::{ChannelTask, PendingMessage};
use crate::connection;
use crate::message::{Message, PublishError};
use crate::topology::{CANCELLED_KEY, REQUESTED_KEY, REQUESTS, VERIFIED_KEY, lane_key};

/// The settings of a publisher.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The broker: `amqp://user:password@host:port/vhost`, or `amqps://…`.
    pub url: SecretString,
    /// The `source` of the events: a URI reference that names the publisher.
    pub source: String,
    /// How long a publish may wait for the broker's confirm. Default: 30 s.
    pub timeout: Duration,
    /// The part of the topology that is declared on every new connection. Default:
    /// [`TopologyScope::Requests`].
    pub declare: TopologyScope,
    /// Whether messages carry the URL's user name as the AMQP property `user_id`. A tenant with a
    /// list of authorised publishers accepts only messages with a `user_id` on it. RabbitMQ refuses
    /// a `user_id` that is not the connection's user, so turn this off if the broker maps the
    /// connection to another user than the URL's. Default: `true`.
    pub set_user_id: bool,
    /// The name in the broker's list of connections. Default: `voice-otp publisher`.
    pub connection_name: String,
}

/// Publishes events with publisher confirms. Cheap to clone: all clones share one connection and
/// one channel.
#[derive(Clone)]
pub struct Publisher {
    sender: mpsc::Sender<PendingMessage>,
    ready: watch::Receiver<bool>,
    settings: Arc<Settings>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// How many messages may be queued in memory for the channel task. When the queue is full,
/// publishers wait.
const MAX_QUEUED_MESSAGES: usize = 1024;

impl Settings {
    /// The default settings, for this broker and this source.
    pub fn new(url: SecretString, source: &str) -> Self {
        Self {
            url,
            source: source.to_owned(),
            timeout: Duration::from_secs(30),
            declare: TopologyScope::Requests,
            set_user_id: true,
            connection_name: "voice-otp publisher".to_owned(),
        }
    }
}

impl Publisher {
    /// Starts a publisher. It connects in the background, and reconnects whenever the connection is
    /// lost.
    ///
    /// # Errors
    /// [`connection::Error::Url`] when the URL is invalid.
    pub fn start(settings: Settings) -> Result<Self, connection::Error> {
        connection::check_url(&settings.url)?;
        let (sender, inbox) = mpsc::channel(MAX_QUEUED_MESSAGES);
        let (ready_sender, ready) = watch::channel(false);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let task = ChannelTask {
            url: settings.url.clone(),
            connection_name: settings.connection_name.clone(),
            user_id: if settings.set_user_id {
                connection::user_name(&settings.url)
            } else {
                None
            },
            declare: settings.declare,
            inbox,
            ready: ready_sender,
            stop: stop.clone(),
        };
        tasks.spawn(task.run());
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

    /// Waits until a connection is up. Never resolves after the publisher is closed.
    pub async fn ready(&self) {
        let mut ready = self.ready.clone();
        if ready.wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The `source` of the events.
    pub(crate) fn source(&self) -> &str {
        &self.settings.source
    }

    /// Publishes a request to read a code out.
    ///
    /// # Errors
    /// [`PublishError`]. Only after [`PublishError::Unconfirmed`] the broker may have stored the
    /// event.
    pub async fn request(&self, request: &Requested) -> Result<(), PublishError> {
        self.publish(request_message(request, self.source())?).await
    }

    /// Publishes a cancellation. `id` is the id of the cancellation event, not of a delivery.
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

    /// Publishes that a code was entered. `id` is the id of the verification event, not of a
    /// delivery.
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

    /// Publishes a message. Resolves when the broker has stored and confirmed it.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    pub async fn publish(&self, message: Message) -> Result<(), PublishError> {
        let confirmed = self.enqueue(message).await?;
        confirmed.await.unwrap_or(Err(PublishError::Closed))
    }

    /// Queues a message and returns a receiver of its result, so that a caller can have several
    /// messages in flight. Messages of one caller are published in the order of its calls.
    ///
    /// # Errors
    /// [`PublishError::Invalid`] and [`PublishError::Closed`]; and [`PublishError::Unconfirmed`]
    /// when the queue stays full for the whole [`timeout`](Settings::timeout). The message was not
    /// sent.
    pub async fn enqueue(
        &self,
        message: Message,
    ) -> Result<oneshot::Receiver<Result<(), PublishError>>, PublishError> {
        message.check()?;
        let (result_sender, result) = oneshot::channel();
        let deadline = Instant::now() + self.settings.timeout;
        let pending = PendingMessage {
            message: Arc::new(message),
            deadline,
            result: result_sender,
        };
        match tokio::time::timeout_at(deadline, self.sender.send(pending)).await {
            Ok(Ok(())) => Ok(result),
            Ok(Err(_)) => Err(PublishError::Closed),
            Err(_) => Err(PublishError::Unconfirmed(
                "too many messages are queued for the broker",
            )),
        }
    }

    /// Stops the publisher: queued messages fail as [`PublishError::Unconfirmed`], and the
    /// connection is closed. Applies to every clone.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

pub(crate) fn request_message(request: &Requested, source: &str) -> Result<Message, PublishError> {
    event_message(
        lane_key(REQUESTED_KEY, &request.tenant_id),
        REQUESTED,
        request.key().to_string(),
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
    event_message(
        lane_key(CANCELLED_KEY, &cancelled.tenant_id),
        CANCELLED,
        message_id,
        cancelled.to_json(id, source),
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
    event_message(
        lane_key(VERIFIED_KEY, &verified.tenant_id),
        VERIFIED,
        message_id,
        verified.to_json(id, source, None),
        trace,
    )
}

/// The type of the events that are published with this routing key.
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

/// A message to the workers with this event in structured mode.
pub(crate) fn event_message(
    routing_key: String,
    kind: &'static str,
    message_id: String,
    body: Zeroizing<Vec<u8>>,
    trace: &Trace,
) -> Result<Message, PublishError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(PublishError::Invalid("the event has more than 64 KiB"));
    }
    Ok(Message {
        exchange: REQUESTS,
        routing_key,
        message_id,
        kind,
        content_type: STRUCTURED,
        headers: trace_headers(trace),
        // Not set: the request's `expires_at` decides, and only a worker can publish `expired`.
        expiration: None,
        body,
    })
}

/// The headers `traceparent` and `tracestate` of a trace context.
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
