//! Requests to work on, and statuses to count.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::BasicProperties;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use voice_otp_publisher::topology;
use voice_otp_schemas::request::rfc3339;
use voice_otp_schemas::{TenantId, Timestamp};

use crate::broker::Vhost;

/// Where statuses are counted.
const COUNTED: &str = "bench.statuses";
/// Publishes on their way at once.
const WINDOW: usize = 512;

/// The `n`th number of those that may be called.
pub(crate) fn number(n: usize) -> String {
    const AREAS: [u32; 12] = [212, 213, 312, 415, 617, 702, 713, 808, 305, 404, 503, 602];
    let area = AREAS.get(n % AREAS.len()).copied().unwrap_or(212);
    let rest = n / AREAS.len();
    format!(
        "+1{area}{:03}{:04}",
        200 + rest / 9000 % 700,
        1000 + rest % 9000
    )
}

/// A request as an auth service writes it.
pub(crate) fn request(id: &str, tenant: &str, to: &str, life: Duration) -> String {
    let now = SystemTime::now();
    let (time, expires_at) = (
        rfc3339(Timestamp::from(now)),
        rfc3339(Timestamp::from(now + life)),
    );
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/bench","type":"dev.voiceotp.delivery.requested.v1","time":"{time}","data":{{"tenant_id":"{tenant}","to":"{to}","code":"493027","expires_at":"{expires_at}"}}}}"#
    )
}

/// The routing key of a tenant's requests.
pub(crate) fn routing_key(tenant: &str) -> anyhow::Result<String> {
    Ok(topology::lane_key(
        topology::REQUESTED_KEY,
        &TenantId::parse(tenant)?,
    ))
}

/// How a worker wants its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// CloudEvents, as they are.
    CloudEvents,
    /// Celery's protocol, version 2, around the event.
    Celery,
}

/// Puts messages into the queue of requests: they wait there for the worker under test.
pub(crate) async fn publish(
    vhost: &Vhost,
    format: Format,
    key: &str,
    bodies: impl Iterator<Item = String>,
) -> anyhow::Result<()> {
    let channel = vhost.connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions { nowait: false })
        .await?;
    let mut confirms = FuturesUnordered::new();
    if format == Format::Celery {
        crate::peers::declare_celery_queue(&channel).await?;
    }
    for body in bodies {
        let (exchange, key, (body, properties)) = match format {
            Format::CloudEvents => {
                let properties = BasicProperties::default()
                    .with_content_type("application/cloudevents+json".into());
                (topology::REQUESTS, key, (body, properties))
            }
            Format::Celery => (
                "",
                crate::peers::CELERY_QUEUE,
                crate::peers::celery_message(&body),
            ),
        };
        let confirm = channel
            .basic_publish(
                exchange.into(),
                key.into(),
                BasicPublishOptions {
                    mandatory: true,
                    immediate: false,
                },
                body.as_bytes(),
                properties.with_delivery_mode(2),
            )
            .await?;
        confirms.push(confirm);
        if confirms.len() >= WINDOW {
            confirms.next().await.context("a confirm")??;
        }
    }
    while let Some(confirmed) = confirms.next().await {
        confirmed?;
    }
    channel.close(200, "done".into()).await?;
    Ok(())
}

/// A queue that every status goes to, as to a dashboard that is away.
pub(crate) async fn count_statuses(vhost: &Vhost, binding: &str) -> anyhow::Result<()> {
    let channel = vhost.connection.create_channel().await?;
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(COUNTED.into(), durable, FieldTable::default())
        .await?;
    let bind = QueueBindOptions { nowait: false };
    channel
        .queue_bind(
            COUNTED.into(),
            topology::STATUS.into(),
            binding.into(),
            bind,
            FieldTable::default(),
        )
        .await?;
    channel.close(200, "done".into()).await?;
    Ok(())
}

/// Waits until `total` statuses have come, and says how many came a second: from the moment that a twentieth had come
/// until the last, so that a program's start doesn't count.
pub(crate) async fn statuses_per_second(
    vhost: &Vhost,
    total: u32,
    longest: Duration,
) -> anyhow::Result<f64> {
    let channel = vhost.connection.create_channel().await?;
    let look = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let began = Instant::now();
    let mut first: Option<(Instant, u32)> = None;
    loop {
        let count = channel
            .queue_declare(COUNTED.into(), look, FieldTable::default())
            .await?
            .message_count();
        if first.is_none() && count >= total / 20 {
            first = Some((Instant::now(), count));
        }
        if count >= total {
            let (since, had) = first.unwrap_or((began, 0));
            channel.close(200, "done".into()).await?;
            return Ok(f64::from(total - had) / since.elapsed().as_secs_f64());
        }
        anyhow::ensure!(
            began.elapsed() < longest,
            "only {count} of {total} statuses came in {longest:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
