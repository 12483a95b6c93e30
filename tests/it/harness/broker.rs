//! A vhost for one test, and the messages in it.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties, Consumer};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::mpsc;
use voice_otp_publisher::topology;
use voice_otp_schemas::status::StatusEvent;

use super::statuses::Statuses;

/// A vhost.
pub(crate) struct Broker {
    pub(crate) url: SecretString,
    vhost: String,
    pub(crate) connection: Connection,
}

/// A user of the broker, with permissions in one vhost.
pub(crate) struct User {
    /// The vhost's URL, with the user's name and password.
    pub(crate) url: SecretString,
    name: String,
    vhost: String,
}

fn from_environment(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is missing: run the tests with ./dev test"))
}

fn management() -> (reqwest::Client, String) {
    // Tests run in any order, so each that needs TLS code installs its provider. It fails if
    // another test was first.
    drop(rustls::crypto::ring::default_provider().install_default());
    (
        reqwest::Client::new(),
        from_environment("VOICE_OTP_TEST_RABBITMQ_API"),
    )
}

impl Broker {
    /// A vhost with the whole topology.
    pub(crate) async fn fresh() -> Self {
        let broker = Self::empty().await;
        topology::declare_all(&broker.connection).await.unwrap();
        broker
    }

    /// A vhost without any queue.
    pub(crate) async fn empty() -> Self {
        let vhost = format!("t-{}", uuid::Uuid::new_v4().simple());
        let (client, api) = management();
        let created = client
            .put(format!("{api}/api/vhosts/{vhost}"))
            .send()
            .await
            .unwrap();
        assert!(
            created.status().is_success(),
            "create a vhost: {}",
            created.status()
        );
        let base = from_environment("VOICE_OTP_AMQP_URL");
        let authority = base.split('/').nth(2).unwrap();
        let url = format!("amqp://{authority}/{vhost}");
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .unwrap();
        Self {
            url: SecretString::from(url),
            vhost,
            connection,
        }
    }

    /// Receives every status from now on.
    pub(crate) async fn statuses(&self) -> Statuses {
        let mut consumer = self.bound_to(topology::STATUS, "status.#").await;
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio_util::task::TaskTracker::new().spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                let text = String::from_utf8(delivery.data).unwrap();
                let event: StatusEvent = serde_json::from_str(&text).unwrap();
                assert_eq!(delivery.routing_key.as_str(), event.routing_key());
                if sender.send((text, event)).is_err() {
                    return;
                }
            }
        });
        Statuses {
            receiver,
            seen: Vec::new(),
        }
    }

    /// Receives every price from now on.
    pub(crate) async fn prices(&self) -> mpsc::UnboundedReceiver<String> {
        let mut consumer = self.bound_to(topology::STATUS, "price.#").await;
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio_util::task::TaskTracker::new().spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                if sender
                    .send(String::from_utf8(delivery.data).unwrap())
                    .is_err()
                {
                    return;
                }
            }
        });
        receiver
    }

    /// Publishes many requests, confirmed together.
    pub(crate) async fn publish_all(&self, bodies: &[String]) {
        let channel = self.connection.create_channel().await.unwrap();
        channel
            .confirm_select(lapin::options::ConfirmSelectOptions::default())
            .await
            .unwrap();
        let mut confirms = Vec::new();
        for body in bodies {
            let properties =
                BasicProperties::default().with_content_type("application/cloudevents+json".into());
            let options = BasicPublishOptions {
                mandatory: true,
                immediate: false,
            };
            let key = topology::REQUESTED_KEY;
            let published = channel.basic_publish(
                topology::REQUESTS.into(),
                key.into(),
                options,
                body.as_bytes(),
                properties,
            );
            confirms.push(published.await.unwrap());
        }
        for confirm in confirms {
            confirm.await.unwrap();
        }
        channel.close(200, "done".into()).await.unwrap();
    }

    /// A copy of every message of an exchange with such a routing key, as JSON, from now on.
    #[cfg(feature = "interop")]
    pub(crate) async fn copy_of(
        &self,
        exchange: &str,
        key: &str,
    ) -> mpsc::UnboundedReceiver<serde_json::Value> {
        let mut consumer = self.bound_to(exchange, key).await;
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio_util::task::TaskTracker::new().spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                if sender
                    .send(serde_json::from_slice(&delivery.data).unwrap())
                    .is_err()
                {
                    return;
                }
            }
        });
        receiver
    }

    /// A consumer on an exclusive queue that is bound to an exchange.
    async fn bound_to(&self, exchange: &str, key: &str) -> Consumer {
        let channel = self.connection.create_channel().await.unwrap();
        let own = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel
            .queue_declare("".into(), own, FieldTable::default())
            .await
            .unwrap();
        let (name, none) = (queue.name().clone(), FieldTable::default());
        channel
            .queue_bind(
                name.clone(),
                exchange.into(),
                key.into(),
                QueueBindOptions::default(),
                none,
            )
            .await
            .unwrap();
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        channel
            .basic_consume(name, "".into(), options, FieldTable::default())
            .await
            .unwrap()
    }

    /// Publishes a message to the requests exchange, valid or not.
    pub(crate) async fn publish(&self, content_type: &[u8], body: &[u8]) {
        self.publish_with(
            BasicProperties::default()
                .with_content_type(std::str::from_utf8(content_type).unwrap().into()),
            body,
        )
        .await;
    }

    /// Publishes a message with properties to the requests exchange.
    pub(crate) async fn publish_with(&self, properties: BasicProperties, body: &[u8]) {
        let channel = self.connection.create_channel().await.unwrap();
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let key = topology::REQUESTED_KEY;
        channel
            .basic_publish(
                topology::REQUESTS.into(),
                key.into(),
                options,
                body,
                properties,
            )
            .await
            .unwrap()
            .await
            .unwrap();
        channel.close(200, "done".into()).await.unwrap();
    }

    /// The number of messages in a queue, redelivered ones included.
    pub(crate) async fn depth(&self, queue: &str) -> u32 {
        let channel = self.connection.create_channel().await.unwrap();
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let depth = channel
            .queue_declare(queue.into(), passive, FieldTable::default())
            .await
            .unwrap()
            .message_count();
        channel.close(200, "done".into()).await.unwrap();
        depth
    }

    /// Whether a queue exists.
    pub(crate) async fn has_queue(&self, queue: &str) -> bool {
        let (client, api) = management();
        let url = format!("{api}/api/queues/{}/{queue}?disable_stats=true", self.vhost);
        client.get(url).send().await.unwrap().status().is_success()
    }

    /// Creates a user with all permissions in the vhost.
    pub(crate) async fn user(&self) -> User {
        let name = format!("u-{}", uuid::Uuid::new_v4().simple());
        let (client, api) = management();
        let created = client
            .put(format!("{api}/api/users/{name}"))
            .json(&serde_json::json!({ "password": "secret", "tags": "" }))
            .send();
        created.await.unwrap().error_for_status().unwrap();
        let url = format!("amqp://{name}:secret@{}/{}", self.address(), self.vhost);
        let user = User {
            url: url.into(),
            name,
            vhost: self.vhost.clone(),
        };
        user.permit(".*", ".*", ".*").await;
        user
    }

    /// Deletes an exchange.
    pub(crate) async fn delete_exchange(&self, exchange: &str) {
        let channel = self.connection.create_channel().await.unwrap();
        channel
            .exchange_delete(exchange.into(), ExchangeDeleteOptions::default())
            .await
            .unwrap();
        channel.close(200, "done".into()).await.unwrap();
    }

    /// Deletes a queue.
    pub(crate) async fn delete_queue(&self, queue: &str) {
        let channel = self.connection.create_channel().await.unwrap();
        channel
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await
            .unwrap();
        channel.close(200, "done".into()).await.unwrap();
    }

    /// Waits for this many dead letters, and consumes them.
    pub(crate) async fn dead_letters(&self, wanted: usize) -> Vec<serde_json::Value> {
        let channel = self.connection.create_channel().await.unwrap();
        let mut letters = Vec::new();
        let receiving = async {
            while letters.len() < wanted {
                match channel
                    .basic_get(topology::DEAD.into(), BasicGetOptions { no_ack: true })
                    .await
                    .unwrap()
                {
                    Some(message) => {
                        let headers = format!("{:?}", message.delivery.properties);
                        let mut letter: serde_json::Value =
                            serde_json::from_slice(&message.delivery.data).unwrap();
                        letter["properties"] = headers.into();
                        letters.push(letter);
                    }
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), receiving).await;
        assert!(
            in_time.is_ok(),
            "{} of {wanted} dead letters",
            letters.len()
        );
        letters
    }

    /// The queues, as the management API lists them.
    pub(crate) async fn listed_queues(&self) -> String {
        let (client, api) = management();
        let url = format!("{api}/api/queues/{}?disable_stats=true", self.vhost);
        let listed = client.get(url).send().await.unwrap();
        listed.error_for_status().unwrap().text().await.unwrap()
    }

    /// Limits the number of queues in the vhost.
    pub(crate) async fn limit_queues(&self, most: u32) {
        let (client, api) = management();
        let limited = client
            .put(format!("{api}/api/vhost-limits/{}/max-queues", self.vhost))
            .json(&serde_json::json!({ "value": most }))
            .send()
            .await
            .unwrap();
        assert!(limited.status().is_success(), "{}", limited.status());
    }

    /// Deletes the vhost and everything in it.
    pub(crate) async fn delete(self) {
        drop(self.connection.close(200, "done".into()).await);
        let (client, api) = management();
        let deleted = client
            .delete(format!("{api}/api/vhosts/{}", self.vhost))
            .send()
            .await
            .unwrap();
        assert!(deleted.status().is_success());
    }

    /// The broker's host and port.
    pub(crate) fn address(&self) -> String {
        let authority = self
            .url
            .expose_secret()
            .split('/')
            .nth(2)
            .unwrap()
            .to_owned();
        authority.rsplit('@').next().unwrap().to_owned()
    }
}

impl User {
    /// Sets what the user may configure, write and read: regular expressions of names.
    pub(crate) async fn permit(&self, configure: &str, write: &str, read: &str) {
        let (client, api) = management();
        let permitted = client
            .put(format!(
                "{api}/api/permissions/{}/{}",
                self.vhost, self.name
            ))
            .json(&serde_json::json!({ "configure": configure, "write": write, "read": read }))
            .send();
        permitted.await.unwrap().error_for_status().unwrap();
    }

    /// Deletes the user.
    pub(crate) async fn delete(self) {
        let (client, api) = management();
        let deleted = client.delete(format!("{api}/api/users/{}", self.name));
        deleted.send().await.unwrap().error_for_status().unwrap();
    }
}
