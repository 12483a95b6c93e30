//! Statuses and prices: as they happen, on a queue of one's own; or from the log, from some time on.

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Consumer, ExchangeKind};
use secrecy::SecretString;
use voice_otp_publisher::link::{self, Link};
use voice_otp_publisher::topology;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::price::PriceEvent;
use voice_otp_schemas::status::StatusEvent;

/// A consumer of statuses and prices.
pub(crate) struct Tail {
    link: Link,
    consumer: Consumer,
    /// Of the log only what is of this tenant, and not older than this.
    wanted: Option<(Option<String>, Timestamp)>,
}

/// What is told.
pub(crate) enum Told {
    /// What has become of a delivery.
    Status(Box<StatusEvent>),
    /// What a call cost.
    Price(Box<PriceEvent>),
}

/// How many of the log's events are on their way at once.
const LOG_PREFETCH: u16 = 1_000;

impl Tail {
    /// Binds to the statuses of a tenant, or of all. What is published from now on is seen.
    pub(crate) async fn start(url: &SecretString, tenant: Option<&str>) -> anyhow::Result<Self> {
        let link = link::connect(url, "voice-otp watch").await?;
        let channel = link
            .connection
            .create_channel()
            .await
            .context("open a channel")?;
        let durable = ExchangeDeclareOptions {
            passive: false,
            durable: true,
            auto_delete: false,
            internal: false,
            nowait: false,
        };
        channel
            .exchange_declare(
                topology::STATUS.into(),
                ExchangeKind::Topic,
                durable,
                FieldTable::default(),
            )
            .await
            .context("declare the exchange of statuses")?;
        // Exclusive: it goes with this connection, and nobody else reads from it.
        let own = QueueDeclareOptions {
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: true,
            nowait: false,
        };
        let queue = channel
            .queue_declare("".into(), own, FieldTable::default())
            .await
            .context("declare a queue")?;
        let tenant = tenant.unwrap_or("*");
        for key in [format!("status.*.{tenant}"), format!("price.{tenant}")] {
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
        }
        // Nothing to acknowledge: what is missed was missed.
        let options = BasicConsumeOptions {
            no_local: false,
            no_ack: true,
            exclusive: true,
            nowait: false,
        };
        let consumer = channel
            .basic_consume(
                queue.name().clone(),
                "".into(),
                options,
                FieldTable::default(),
            )
            .await
            .context("consume statuses")?;
        Ok(Self {
            link,
            consumer,
            wanted: None,
        })
    }

    /// Reads the log of statuses, of a tenant or of all, from a time on; then what happens.
    pub(crate) async fn since(
        url: &SecretString,
        tenant: Option<&str>,
        since: Timestamp,
    ) -> anyhow::Result<Self> {
        let link = link::connect(url, "voice-otp watch").await?;
        let channel = link
            .connection
            .create_channel()
            .await
            .context("open a channel")?;
        channel
            .basic_qos(LOG_PREFETCH, BasicQosOptions { global: false })
            .await
            .context("set the prefetch")?;
        let mut arguments = FieldTable::default();
        // The broker begins with the chunk that holds this time, so some may be older.
        let seconds = u64::try_from(since.timestamp()).unwrap_or(0);
        arguments.insert("x-stream-offset".into(), AMQPValue::Timestamp(seconds));
        let options = BasicConsumeOptions {
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
        };
        let consumer =
            channel.basic_consume(topology::STATUS_LOG.into(), "".into(), options, arguments).await.with_context(|| {
                format!(
                    "read {}: the broker has no such log (workers declare it), or this user may not read it",
                    topology::STATUS_LOG
                )
            })?;
        Ok(Self {
            link,
            consumer,
            wanted: Some((tenant.map(str::to_owned), since)),
        })
    }

    /// The next event, as it came and understood; what isn't one is passed over. None when the connection is lost.
    pub(crate) async fn next(&mut self) -> Option<(String, Told)> {
        loop {
            let delivery = tokio::select! {
                delivery = self.consumer.next() => delivery?.ok()?,
                () = self.link.lost() => return None,
            };
            if self.wanted.is_some() {
                // A log keeps what is acknowledged; it only lets more come.
                delivery
                    .ack(BasicAckOptions { multiple: false })
                    .await
                    .ok()?;
            }
            let Ok(text) = String::from_utf8(delivery.data) else {
                continue;
            };
            if let Some(told) = told(&text)
                && self
                    .wanted
                    .as_ref()
                    .is_none_or(|(tenant, since)| told.is_wanted(tenant.as_deref(), *since))
            {
                return Some((text, told));
            }
        }
    }

    /// The next status.
    pub(crate) async fn next_status(&mut self) -> Option<StatusEvent> {
        loop {
            if let (_, Told::Status(event)) = self.next().await? {
                return Some(*event);
            }
        }
    }
}

fn told(text: &str) -> Option<Told> {
    let status = serde_json::from_str(text)
        .ok()
        .map(|event| Told::Status(Box::new(event)));
    status.or_else(|| {
        serde_json::from_str(text)
            .ok()
            .map(|event| Told::Price(Box::new(event)))
    })
}

impl Told {
    fn is_wanted(&self, tenant: Option<&str>, since: Timestamp) -> bool {
        let (of, time) = match self {
            Self::Status(event) => (event.data.tenant_id.as_str(), &event.time),
            Self::Price(event) => (event.data.tenant_id.as_str(), &event.time),
        };
        let late = chrono::DateTime::parse_from_rfc3339(time).is_ok_and(|time| time >= since);
        late && tenant.is_none_or(|tenant| tenant == of)
    }

    /// One line for a person.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Status(event) => line(event),
            Self::Price(event) => {
                let data = &event.data;
                format!(
                    "{}  {:<13} {:<24} {:<16} {}  {} {}",
                    time_of_day(&event.time),
                    data.tenant_id.as_str(),
                    data.delivery_id.as_str(),
                    data.to_masked.as_deref().unwrap_or(""),
                    console::style(format!("{:<9}", "price")).dim(),
                    data.price,
                    data.price_unit,
                )
            }
        }
    }
}

/// Only time of day and milliseconds: the day is today.
fn time_of_day(time: &str) -> &str {
    time.split_once('T')
        .map_or(time, |(_, time)| time.trim_end_matches('Z'))
}

/// One line for a person.
pub(crate) fn line(event: &StatusEvent) -> String {
    let data = &event.data;
    let style = match (data.is_final, data.status.as_str()) {
        (true, "delivered") => console::Style::new().green(),
        (true, "busy" | "no_answer" | "hung_up" | "voicemail" | "cancelled" | "expired") => {
            console::Style::new().yellow()
        }
        (true, _) => console::Style::new().red(),
        (false, "deferred") => console::Style::new().magenta(),
        (false, _) => console::Style::new().cyan(),
    };
    let time = time_of_day(&event.time);
    let number = data.to_masked.as_deref().unwrap_or("");
    let mut line = format!(
        "{time}  {:<13} {:<24} {:<16} {}",
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
        let code = serde_json::to_value(reason.code)
            .ok()
            .and_then(|code| code.as_str().map(str::to_owned))
            .unwrap_or_default();
        line.push_str(&format!("  {code}: {}", reason.message));
    }
    line
}
