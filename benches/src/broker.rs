//! A vhost for one measurement, on the broker that `./dev` starts.

use anyhow::Context as _;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use secrecy::SecretString;
use voice_otp_publisher::topology;

pub(crate) struct Vhost {
    pub(crate) url: SecretString,
    pub(crate) connection: Connection,
    api: String,
    name: String,
}

impl Vhost {
    /// Creates a vhost with the whole topology.
    pub(crate) async fn fresh() -> anyhow::Result<Self> {
        let (base, api) = (
            from_environment("VOICE_OTP_AMQP_URL")?,
            from_environment("VOICE_OTP_TEST_RABBITMQ_API")?,
        );
        let name = format!("bench-{}", uuid::Uuid::new_v4().simple());
        let created = reqwest::Client::new()
            .put(format!("{api}/api/vhosts/{name}"))
            .send()
            .await?;
        anyhow::ensure!(
            created.status().is_success(),
            "create a vhost: {}",
            created.status()
        );
        let authority = base
            .split('/')
            .nth(2)
            .context("VOICE_OTP_AMQP_URL is a URL")?;
        let url = format!("amqp://{authority}/{name}");
        let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
        topology::declare_all(&connection).await?;
        Ok(Self {
            url: SecretString::from(url),
            connection,
            api,
            name,
        })
    }

    /// The number of messages in a queue.
    pub(crate) async fn depth(&self, queue: &str) -> anyhow::Result<u32> {
        let channel = self.connection.create_channel().await?;
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let depth = channel
            .queue_declare(queue.into(), passive, FieldTable::default())
            .await?
            .message_count();
        channel.close(200, "done".into()).await?;
        Ok(depth)
    }

    pub(crate) async fn delete(self) -> anyhow::Result<()> {
        drop(self.connection.close(200, "done".into()).await);
        let deleted = reqwest::Client::new()
            .delete(format!("{}/api/vhosts/{}", self.api, self.name))
            .send()
            .await?;
        anyhow::ensure!(
            deleted.status().is_success(),
            "delete the vhost: {}",
            deleted.status()
        );
        Ok(())
    }
}

pub(crate) fn from_environment(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is missing: run it with ./dev bench"))
}
