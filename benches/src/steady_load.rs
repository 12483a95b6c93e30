//! A steady load, and the time at which each of its calls reached Twilio.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use voice_otp_publisher::topology;

use crate::broker::Vhost;
use crate::database::{Account, Database};
use crate::load;
use crate::twilio::Recorder;

/// A vhost, a database and a Twilio.
pub(crate) struct Stage {
    pub(crate) vhost: Vhost,
    pub(crate) database: Database,
    pub(crate) twilio: Recorder,
}

impl Stage {
    pub(crate) async fn start(accounts: &[Account], twilio: Recorder) -> anyhow::Result<Self> {
        let (vhost, database) = (Vhost::fresh().await?, Database::fresh().await?);
        database.tenants(accounts).await?;
        Ok(Self {
            vhost,
            database,
            twilio,
        })
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.twilio.stop();
        self.vhost.delete().await?;
        self.database.drop_schema().await
    }
}

/// A load at a steady rate.
pub(crate) struct SteadyLoad<'a> {
    /// Requests per second.
    pub(crate) rate: f64,
    pub(crate) seconds: f64,
    /// The tenant of the `n`th request.
    pub(crate) tenant: &'a (dyn Fn(usize) -> String + Sync),
    /// The index of the first called number, so that loads don't share numbers.
    pub(crate) first_number: usize,
    pub(crate) life: Duration,
}

/// Publishes at a steady rate. Returns when the request for each number was handed to the broker.
pub(crate) async fn publish(
    vhost: &Vhost,
    load: &SteadyLoad<'_>,
) -> anyhow::Result<HashMap<String, Instant>> {
    let channel = vhost.connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions { nowait: false })
        .await?;
    let mut confirms = FuturesUnordered::new();
    let mut published = HashMap::new();
    let start = Instant::now();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of requests"
    )]
    let total = (load.rate * load.seconds) as usize;
    for n in 0..total {
        #[expect(clippy::cast_precision_loss, reason = "a number of requests")]
        let due = Duration::from_secs_f64(n as f64 / load.rate);
        tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
        let (tenant, to) = ((load.tenant)(n), load::number(load.first_number + n));
        let body = load::request(
            &format!("s{}-{n}", load.first_number),
            &tenant,
            &to,
            load.life,
        );
        published.insert(to, Instant::now());
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/cloudevents+json".into());
        let key = load::routing_key(&tenant)?;
        confirms.push(
            channel
                .basic_publish(
                    topology::REQUESTS.into(),
                    key.into(),
                    options,
                    body.as_bytes(),
                    properties,
                )
                .await?,
        );
        while confirms.len() > 512 {
            confirms.next().await.transpose()?;
        }
    }
    while let Some(confirmed) = confirms.next().await {
        confirmed?;
    }
    channel.close(200, "done".into()).await?;
    Ok(published)
}

/// The milliseconds from each publish to its POST's arrival. Waits until all POSTs have arrived, at
/// most for `longest`.
pub(crate) async fn latencies_ms(
    twilio: &Recorder,
    published: &HashMap<String, Instant>,
    longest: Duration,
) -> Vec<f64> {
    let mut latencies = Vec::new();
    let start = Instant::now();
    while latencies.len() < published.len() && start.elapsed() < longest {
        for post in twilio.take_posts() {
            if let Some(at) = published.get(&post.to) {
                latencies.push(post.at.duration_since(*at).as_secs_f64() * 1000.0);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    latencies
}
