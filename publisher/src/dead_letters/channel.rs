//! Publishing dead letters, on a connection and a channel of their own: whatever the broker refuses
//! here stops no status.

use std::collections::HashSet;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use secrecy::SecretString;
use tokio::time::{Instant, timeout_at};

use crate::connection::{self, BrokerConnection};
use crate::message::Message;
use crate::topology;

/// Publishes dead letters. Only one task can use it (ADR 3).
pub struct DeadLetterChannel {
    url: SecretString,
    connection_name: String,
    open: Option<(BrokerConnection, Channel)>,
    /// Whether the queue was declared, and not found missing since.
    is_declared: bool,
}

/// Why dead letters are not stored.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The broker can't be reached.
    #[error("the broker can't be reached")]
    Connect(#[from] connection::Error),
    /// The queue can't be declared.
    #[error("the queue {} can't be declared", topology::DEAD)]
    Declare(#[from] topology::Error),
    /// The queue was deleted. The next try declares it.
    #[error("the queue {} does not exist", topology::DEAD)]
    Missing,
    /// The queue is full, by an argument or a policy that refuses instead of dropping the oldest.
    #[error(
        "the queue {} is full and refuses messages (reject-publish)",
        topology::DEAD
    )]
    Full,
    /// The broker closed the channel or the connection. Without the write permission on
    /// `amq.default` it does.
    #[error("the broker refused to store dead letters")]
    Closed(#[from] lapin::Error),
    /// The broker doesn't answer.
    #[error("the broker did not confirm dead letters within 5 seconds")]
    TimedOut,
}

/// The time limit of one call of [`DeadLetterChannel::publish`], without connecting and declaring.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

impl DeadLetterChannel {
    /// A channel that is opened when it is first needed, and again whenever it was lost.
    pub fn new(url: SecretString, connection_name: String) -> Self {
        Self {
            url,
            connection_name,
            open: None,
            is_declared: false,
        }
    }

    /// Publishes letters and waits for their confirms. Returns which of them are stored, in order;
    /// and why not all, if so.
    pub async fn publish(&mut self, letters: &[Message]) -> (Vec<bool>, Option<Refusal>) {
        let mut stored = vec![false; letters.len()];
        let published = self.try_publish(letters, &mut stored).await;
        match &published {
            Ok(()) | Err(Refusal::Full) => {}
            Err(Refusal::Missing) => self.is_declared = false,
            // Left, not closed: what confirms nothing may be dead.
            Err(_) => self.open = None,
        }
        (stored, published.err())
    }

    /// Closes the connection.
    pub async fn close(&mut self) {
        if let Some((broker, channel)) = self.open.take() {
            // Before its connection: a dropped channel would still be closing while that closes.
            let closing = channel.close(200, "done".into());
            drop(tokio::time::timeout(CONFIRM_TIMEOUT, closing).await);
            broker.close().await;
        }
    }

    async fn try_publish(
        &mut self,
        letters: &[Message],
        stored: &mut [bool],
    ) -> Result<(), Refusal> {
        let channel = self.channel().await?;
        let until = Instant::now() + CONFIRM_TIMEOUT;
        // Mandatory: otherwise the broker drops and confirms them when the queue is gone. Not
        // immediate: RabbitMQ doesn't support it.
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let mut confirms = Vec::with_capacity(letters.len());
        for letter in letters {
            let (exchange, key) = (letter.exchange.into(), letter.routing_key.as_str().into());
            // Without the user: letters are the system's own, whichever user the workers are.
            let properties = letter.properties(None);
            let writing = channel.basic_publish(exchange, key, options, &letter.body, properties);
            confirms.push(timeout_at(until, writing).await.map_err(timed_out)??);
        }
        let mut is_acked = Vec::with_capacity(letters.len());
        // A returned message may be attached to another one's confirm, so it is matched by its id
        // once all are confirmed.
        let mut returned = Vec::new();
        for confirm in confirms {
            let confirmation = timeout_at(until, confirm).await.map_err(timed_out)??;
            is_acked.push(confirmation.is_ack());
            returned.extend(confirmation.take_message());
        }
        let rest = timeout_at(until, channel.wait_for_confirms()).await;
        returned.extend(rest.map_err(timed_out)??);
        let returned: HashSet<String> = returned
            .into_iter()
            .filter_map(|message| message.delivery.properties.message_id().clone())
            .map(|id| id.as_str().to_owned())
            .collect();
        for ((stored, letter), is_acked) in stored.iter_mut().zip(letters).zip(&is_acked) {
            *stored = *is_acked && !returned.contains(&letter.message_id);
        }
        match (returned.is_empty(), is_acked.contains(&false)) {
            (false, _) => Err(Refusal::Missing),
            (true, true) => Err(Refusal::Full),
            (true, false) => Ok(()),
        }
    }

    /// The channel, with confirms on; a new one if it was lost.
    async fn channel(&mut self) -> Result<Channel, Refusal> {
        let open = self.open.take();
        let open = open.filter(|(broker, channel)| broker.is_up() && channel.status().connected());
        let (broker, channel) = match open {
            Some(open) => open,
            None => self.connect().await?,
        };
        if !self.is_declared {
            topology::declare_dead_letters(&broker.connection).await?;
            self.is_declared = true;
        }
        self.open = Some((broker, channel.clone()));
        Ok(channel)
    }

    async fn connect(&self) -> Result<(BrokerConnection, Channel), Refusal> {
        let broker = connection::connect(&self.url, &self.connection_name).await?;
        let opening = async {
            let channel = broker.connection.create_channel().await?;
            // Not `nowait`: the broker's answer shows that confirms are on.
            let options = ConfirmSelectOptions { nowait: false };
            channel.confirm_select(options).await?;
            Ok(channel)
        };
        let opened: Result<lapin::Result<Channel>, _> =
            tokio::time::timeout(CONFIRM_TIMEOUT, opening).await;
        let channel = opened.map_err(timed_out)??;
        Ok((broker, channel))
    }
}

fn timed_out(_: tokio::time::error::Elapsed) -> Refusal {
    Refusal::TimedOut
}
