//! Statuses as they happen, on a queue of one's own.

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Consumer, ExchangeKind};
use secrecy::SecretString;
use voice_otp_publisher::link::{self, Link};
use voice_otp_publisher::topology;
use voice_otp_schemas::status::StatusEvent;

/// A consumer of statuses.
pub(crate) struct Tail {
    link: Link,
    consumer: Consumer,
}

impl Tail {
    /// Binds to the statuses of a tenant, or of all. What is published from now on is seen.
    pub(crate) async fn start(url: &SecretString, tenant: Option<&str>) -> anyhow::Result<Self> {
        let link = link::connect(url, "voice-otp watch").await?;
        let channel = link.connection.create_channel().await.context("open a channel")?;
        let durable =
            ExchangeDeclareOptions { passive: false, durable: true, auto_delete: false, internal: false, nowait: false };
        channel
            .exchange_declare(topology::STATUS.into(), ExchangeKind::Topic, durable, FieldTable::default())
            .await
            .context("declare the exchange of statuses")?;
        // Exclusive: it goes with this connection, and nobody else reads from it.
        let own = QueueDeclareOptions { passive: false, durable: false, exclusive: true, auto_delete: true, nowait: false };
        let queue = channel.queue_declare("".into(), own, FieldTable::default()).await.context("declare a queue")?;
        let key = format!("status.*.{}", tenant.unwrap_or("*"));
        channel
            .queue_bind(
                queue.name().clone(),
                topology::STATUS.into(),
                key.as_str().into(),
                QueueBindOptions { nowait: false },
                FieldTable::default(),
            )
            .await
            .context("bind to the statuses")?;
        // Nothing to acknowledge: what is missed was missed.
        let options = BasicConsumeOptions { no_local: false, no_ack: true, exclusive: true, nowait: false };
        let consumer = channel
            .basic_consume(queue.name().clone(), "".into(), options, FieldTable::default())
            .await
            .context("consume statuses")?;
        Ok(Self { link, consumer })
    }

    /// The next status, as it came and understood; what isn't one is passed over. None when the connection is lost.
    pub(crate) async fn next(&mut self) -> Option<(String, StatusEvent)> {
        loop {
            let delivery = tokio::select! {
                delivery = self.consumer.next() => delivery?.ok()?,
                () = self.link.lost() => return None,
            };
            let Ok(text) = String::from_utf8(delivery.data) else { continue };
            if let Ok(event) = serde_json::from_str(&text) {
                return Some((text, event));
            }
        }
    }
}

/// One line for a person.
pub(crate) fn line(event: &StatusEvent) -> String {
    let data = &event.data;
    let style = match (data.is_final, data.status.as_str()) {
        (true, "delivered") => console::Style::new().green(),
        (true, "busy" | "no_answer" | "hung_up" | "voicemail" | "cancelled" | "expired") => console::Style::new().yellow(),
        (true, _) => console::Style::new().red(),
        (false, "deferred") => console::Style::new().magenta(),
        (false, _) => console::Style::new().cyan(),
    };
    // Only time of day and milliseconds: the day is today.
    let time = event.time.split_once('T').map_or(event.time.as_str(), |(_, time)| time.trim_end_matches('Z'));
    let number = data.to_masked.as_deref().unwrap_or("");
    let mut line = format!(
        "{time}  {:<10} {:<24} {:<16} {}",
        data.tenant_id.as_str(),
        data.delivery_id.as_str(),
        number,
        style.apply_to(format!("{:<9}", data.status))
    );
    if data.attempt > 1 {
        line.push_str(&format!("  attempt {}", data.attempt));
    }
    if let Some(duration) = data.call_duration_s {
        line.push_str(&format!("  {duration} s"));
    }
    if data.test {
        line.push_str("  test");
    }
    if let Some(reason) = &data.reason {
        let code = serde_json::to_value(reason.code).ok().and_then(|code| code.as_str().map(str::to_owned)).unwrap_or_default();
        line.push_str(&format!("  {code}: {}", reason.message));
    }
    line
}
