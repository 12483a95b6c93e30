//! Requests to process, and statuses to count.

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

/// The queue in which statuses are counted.
const COUNTED: &str = "bench.statuses";
/// The number of unconfirmed publishes.
const WINDOW: usize = 512;

/// The `n`th of the numbers that may be called.
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
        "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/bench\",\
         \"type\":\"dev.voiceotp.delivery.requested.v1\",\"time\":\"{time}\",\
         \"data\":{{\"tenant_id\":\"{tenant}\",\"to\":\"{to}\",\"code\":\"493027\",\
         \"expires_at\":\"{expires_at}\"}}}}"
    )
}

/// The routing key of a tenant's requests.
pub(crate) fn routing_key(tenant: &str) -> anyhow::Result<String> {
    Ok(topology::lane_key(
        topology::REQUESTED_KEY,
        &TenantId::parse(tenant)?,
    ))
}

/// The format of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// CloudEvents, as voice-otp takes them.
    CloudEvents,
    /// Celery's protocol, version 2, around the event.
    Celery,
}

/// Publishes messages to the queue of requests, where they wait for the measured worker.
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

/// Declares a queue for statuses, as a dashboard has one.
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

/// Waits for `total` statuses. Returns the statuses per second, from the moment when a twentieth
/// had arrived until the last, so that a program's start doesn't count.
pub(crate) async fn statuses_per_second(
    vhost: &Vhost,
    total: u32,
    longest: Duration,
) -> anyhow::Result<f64> {
    let channel = vhost.connection.create_channel().await?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let start = Instant::now();
    let mut first: Option<(Instant, u32)> = None;
    loop {
        let count = channel
            .queue_declare(COUNTED.into(), passive, FieldTable::default())
            .await?
            .message_count();
        if first.is_none() && count >= total / 20 {
            first = Some((Instant::now(), count));
        }
        if count >= total {
            let (since, before) = first.unwrap_or((start, 0));
            channel.close(200, "done".into()).await?;
            return Ok(f64::from(total - before) / since.elapsed().as_secs_f64());
        }
        anyhow::ensure!(
            start.elapsed() < longest,
            "only {count} of {total} statuses arrived in {longest:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
