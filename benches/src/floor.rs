//! The floor: a bare loop that consumes, posts, publishes and acknowledges, with the same queue,
//! prefetch, body and statuses, but with no database and no guarantees.

use std::sync::Arc;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use secrecy::ExposeSecret as _;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use voice_otp_publisher::topology;

use crate::broker::{Vhost, from_environment};

/// The permits for POSTs in flight, and the prefetch.
const CONCURRENCY: usize = 256;
const PREFETCH: u16 = 1000;

struct Floor {
    http: reqwest::Client,
    twilio_url: String,
    statuses: Channel,
}

/// Runs as a separate process, `voice-otp-bench floor-worker`, until it is killed.
pub(crate) async fn run() -> anyhow::Result<()> {
    let (amqp_url, twilio_url) = (
        from_environment("AMQP_URL")?,
        from_environment("TWILIO_URL")?,
    );
    // Like the worker: one connection to consume on, one to publish on.
    let consuming =
        lapin::Connection::connect(&amqp_url, lapin::ConnectionProperties::default()).await?;
    let publishing =
        lapin::Connection::connect(&amqp_url, lapin::ConnectionProperties::default()).await?;
    let statuses = publishing.create_channel().await?;
    statuses
        .confirm_select(ConfirmSelectOptions { nowait: false })
        .await?;
    let http = reqwest::Client::builder()
        .pool_max_idle_per_host(512)
        .tcp_nodelay(true)
        .build()?;
    let floor = Arc::new(Floor {
        http,
        twilio_url,
        statuses,
    });
    let channel = consuming.create_channel().await?;
    channel
        .basic_qos(PREFETCH, BasicQosOptions { global: false })
        .await?;
    let mut consumer = channel
        .basic_consume(
            topology::REQUESTS.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let permits = Arc::new(Semaphore::new(CONCURRENCY));
    let tasks = TaskTracker::new();
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let floor = Arc::clone(&floor);
        drop(tasks.spawn(async move {
            let done = floor.process(delivery).await;
            drop(permit);
            done
        }));
    }
    Ok(())
}

impl Floor {
    async fn process(&self, delivery: Delivery) -> anyhow::Result<()> {
        let event: serde_json::Value = serde_json::from_slice(&delivery.data)?;
        let text = |at: &str| {
            event
                .pointer(at)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (id, tenant, to, code) = (
            text("/id"),
            text("/data/tenant_id"),
            text("/data/to"),
            text("/data/code"),
        );
        let account = format!(
            "AC{:032x}",
            tenant.trim_start_matches('t').parse::<usize>().unwrap_or(0)
        );
        let form = [
            ("To", to.as_str()),
            ("From", "+12025550190"),
            (
                "Twiml",
                &format!("<Response><Say>Your code is {code}</Say></Response>"),
            ),
            ("Timeout", "30"),
        ];
        let answer = self
            .http
            .post(format!(
                "{}/2010-04-01/Accounts/{account}/Calls.json",
                self.twilio_url
            ))
            .basic_auth(&account, Some("0123456789abcdef0123456789abcdef"))
            .form(&form)
            .send()
            .await?;
        let call: serde_json::Value = answer.json().await?;
        let sid = call
            .pointer("/sid")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        let (accepted, placed) = tokio::try_join!(
            self.publish_status(&id, &tenant, "accepted", 1, ""),
            self.publish_status(&id, &tenant, "placed", 2, sid)
        )?;
        accepted.await?;
        placed.await?;
        delivery
            .acker
            .ack(BasicAckOptions { multiple: false })
            .await?;
        Ok(())
    }

    async fn publish_status(
        &self,
        id: &str,
        tenant: &str,
        status: &str,
        sequence: u32,
        sid: &str,
    ) -> anyhow::Result<lapin::PublisherConfirm> {
        let body = serde_json::json!({
            "specversion": "1.0", "id": format!("{id}/{sequence}"),
            "source": format!("/voice-otp/{tenant}"),
            "type": "dev.voiceotp.delivery.status.v1", "subject": id,
            "time": "2026-11-25T12:00:00.000Z",
            "datacontenttype": "application/json",
            "data": {
                "delivery_id": id, "tenant_id": tenant, "status": status, "final": false,
                "sequence": sequence, "attempt": 1, "to_masked": "+1415*****71", "call_sid": sid,
                "timings": { "admitted_ms": 3, "due_ms": 3, "placed_ms": 9 },
                "context": {}, "test": false,
            },
        });
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/cloudevents+json".into());
        let key = format!("status.{status}.{tenant}");
        Ok(self
            .statuses
            .basic_publish(
                topology::STATUS.into(),
                key.into(),
                options,
                body.to_string().as_bytes(),
                properties,
            )
            .await?)
    }
}

/// Starts the floor on a vhost, as a process.
pub(crate) fn spawn(vhost: &Vhost, twilio_url: &str) -> anyhow::Result<tokio::process::Child> {
    Ok(tokio::process::Command::new(std::env::current_exe()?)
        .arg("floor-worker")
        .env("AMQP_URL", vhost.url.expose_secret())
        .env("TWILIO_URL", twilio_url)
        .kill_on_drop(true)
        .spawn()?)
}
