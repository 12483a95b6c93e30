//! Requests at a steady rate, and a subscriber to all statuses.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp_publisher::statuses::{Received, StatusStream};
use voice_otp_publisher::{Publisher, Settings, topology};
use voice_otp_schemas::request::Requested;
use voice_otp_schemas::status::StatusEvent;
use voice_otp_schemas::{Context, DeliveryId, OtpCode, PhoneNumber, TenantId, Timestamp};

use super::verdict::{Request, Status, Statuses};
use crate::load::number;

/// How long after its request a code expires.
const LIFE: Duration = Duration::from_mins(2);
/// The workers' margin: no call is placed later than this before its code expires.
pub(crate) const LEAD: Duration = Duration::from_secs(30);
/// When a request has its final status at the latest.
pub(crate) const LONGEST: Duration = LIFE.saturating_add(Duration::from_mins(1));
/// A request that the broker doesn't confirm for so long is given up.
const CONFIRM_TIMEOUT: Duration = Duration::from_mins(1);
/// The subscriber leaves a broker that says nothing for so long.
const SILENCE: Duration = Duration::from_secs(15);
const QUEUE: &str = "cluster.statuses";

/// What was published and what came back, so far.
#[derive(Clone, Default)]
pub(crate) struct Traffic(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    requests: HashMap<String, Request>,
    statuses: HashMap<String, Statuses>,
    /// The statuses that arrived, repeated ones included.
    received: usize,
}

/// Where a status was received.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Queue,
    Log,
}

impl Traffic {
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many confirmed requests have no final status yet.
    pub(crate) fn open(&self) -> usize {
        let record = self.lock();
        let ended = |delivery: &String| {
            let statuses = record.statuses.get(delivery);
            statuses.is_some_and(|all| all.values().flatten().any(|event| event.is_final))
        };
        let confirmed = record
            .requests
            .iter()
            .filter(|(_, one)| one.confirmed.is_some());
        confirmed.filter(|(delivery, _)| !ended(delivery)).count()
    }

    pub(crate) fn take(&self) -> (HashMap<String, Request>, HashMap<String, Statuses>, usize) {
        let record = std::mem::take(&mut *self.lock());
        (record.requests, record.statuses, record.received)
    }

    /// Publishes at a steady rate until it is stopped, and waits for the last confirm.
    pub(crate) async fn publish(
        &self,
        url: SecretString,
        rate: u32,
        tenants: Vec<String>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let settings = Settings {
            timeout: CONFIRM_TIMEOUT,
            ..Settings::new(url, "/cluster")
        };
        let publisher = Publisher::start(settings)?;
        let (start, tasks) = (Instant::now(), TaskTracker::new());
        for n in 0_u32.. {
            let due = Duration::from_secs(1) * n / rate;
            tokio::select! {
                () = tokio::time::sleep(due.saturating_sub(start.elapsed())) => {}
                () = stop.cancelled() => break,
            }
            let n = usize::try_from(n)?;
            let tenant = tenants.get(n % tenants.len()).context("a tenant")?;
            let request = request(n, tenant)?;
            let (delivery, traffic) = (request.delivery_id.to_string(), self.clone());
            traffic.lock().requests.insert(
                delivery.clone(),
                Request {
                    to: number(n),
                    published: Timestamp::from(SystemTime::now()),
                    confirmed: None,
                    // On a busy machine a POST takes time.
                    deadline: request.expires_at - LEAD / 2,
                },
            );
            let publisher = publisher.clone();
            tasks.spawn(async move {
                if publisher.request(&request).await.is_ok() {
                    let now = Timestamp::from(SystemTime::now());
                    if let Some(request) = traffic.lock().requests.get_mut(&delivery) {
                        request.confirmed = Some(now);
                    }
                }
            });
        }
        tasks.close();
        tasks.wait().await;
        publisher.close().await;
        Ok(())
    }

    /// Records statuses until it is stopped, over as many connections as it takes.
    pub(crate) async fn subscribe(&self, url: SecretString, stop: CancellationToken) {
        let receiving = async {
            loop {
                // Whatever ends a subscription, the queue keeps what comes until the next.
                drop(self.receive(&url).await);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        stop.run_until_cancelled(receiving).await;
    }

    /// Reads the status log from its start. RabbitMQ may keep messages of the subscriber's queue
    /// for a consumer that went away while the queue's leader was frozen. Returns how many statuses
    /// were in the log only.
    pub(crate) async fn read_log(&self, url: &SecretString) -> anyhow::Result<usize> {
        let known = |record: &Record| {
            let events = record.statuses.values().flat_map(BTreeMap::values);
            events.map(Vec::len).sum::<usize>()
        };
        let before = known(&self.lock());
        let mut log = StatusStream::since(url, None, Timestamp::UNIX_EPOCH).await?;
        while let Ok(Some((_, event))) = tokio::time::timeout(SILENCE, log.next()).await {
            if let Received::Status(event) = event {
                self.record(&event, Source::Log);
            }
        }
        let after = known(&self.lock());
        Ok(after - before)
    }

    async fn receive(&self, url: &SecretString) -> anyhow::Result<()> {
        // A frozen broker never answers, so nothing waits for it without a time limit.
        let consuming = tokio::time::timeout(SILENCE, async {
            let connection = connect(url).await?;
            let channel = connection.create_channel().await?;
            let qos = BasicQosOptions { global: false };
            channel.basic_qos(1_000, qos).await?;
            let consumer = channel
                .basic_consume(
                    QUEUE.into(),
                    "cluster".into(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            // The channel lives as long as its consumer.
            anyhow::Ok((connection, consumer))
        });
        let (_connection, mut consumer) = consuming.await??;
        while let Some(message) = tokio::time::timeout(SILENCE, consumer.next()).await? {
            let message = message?;
            // Prices come along and aren't looked at.
            if let Ok(event) = serde_json::from_slice::<StatusEvent>(&message.data) {
                self.record(&event, Source::Queue);
            }
            let acknowledging = message.ack(BasicAckOptions { multiple: false });
            tokio::time::timeout(SILENCE, acknowledging).await??;
        }
        Ok(())
    }

    fn record(&self, event: &StatusEvent, source: Source) {
        let mut record = self.lock();
        record.received += usize::from(source == Source::Queue);
        let status = Status {
            id: event.id.clone(),
            name: event.data.status.as_str(),
            is_final: event.data.is_final,
        };
        let statuses = record.statuses.entry(event.subject.clone()).or_default();
        let events = statuses.entry(event.data.sequence).or_default();
        if !events.contains(&status) {
            events.push(status);
        }
    }
}

/// Declares the topology, and a queue for the statuses that outlives its subscriber.
pub(crate) async fn declare(url: &SecretString) -> anyhow::Result<()> {
    let connection = connect(url).await?;
    topology::declare_all(&connection).await?;
    let channel = connection.create_channel().await?;
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    channel
        .queue_declare(QUEUE.into(), durable, arguments)
        .await?;
    channel
        .queue_bind(
            QUEUE.into(),
            topology::STATUS.into(),
            "status.#".into(),
            QueueBindOptions { nowait: false },
            FieldTable::default(),
        )
        .await?;
    connection.close(200, "done".into()).await?;
    Ok(())
}

async fn connect(url: &SecretString) -> anyhow::Result<Connection> {
    let url = format!("{}?heartbeat=10", url.expose_secret());
    let connecting = Connection::connect(&url, ConnectionProperties::default());
    Ok(tokio::time::timeout(Duration::from_secs(20), connecting).await??)
}

/// The `n`th request.
fn request(n: usize, tenant: &str) -> anyhow::Result<Requested> {
    let now = Timestamp::from(SystemTime::now());
    Ok(Requested {
        tenant_id: TenantId::parse(tenant)?,
        delivery_id: DeliveryId::parse(&format!("cluster-{n}"))?,
        to: PhoneNumber::parse(&number(n))?,
        code: OtpCode::parse("493027")?,
        expires_at: now + LIFE,
        locale: None,
        user_ref: None,
        extension: None,
        context: Context::default(),
        time: Some(now),
        trace: voice_otp_schemas::envelope::Trace::default(),
    })
}
