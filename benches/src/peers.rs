//! Conventional workers in other languages, for comparison. They stand under `benches/peers`, and
//! `./dev bench` installs them.

use std::path::PathBuf;

use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use secrecy::ExposeSecret as _;
use tokio::process::{Child, Command};

use crate::broker::{Vhost, from_environment};
use crate::database::Database;

/// A worker to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Node.js with amqplib, undici and pg.
    Node,
    /// Celery with prefork, requests and psycopg2.
    Celery,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Node => "Node (amqplib, undici, pg)",
            Self::Celery => "Celery (prefork, requests)",
        }
    }
}

/// Celery's queue, which Celery itself declares with the same arguments.
pub(crate) const CELERY_QUEUE: &str = "bench.celery";

pub(crate) async fn declare_celery_queue(channel: &lapin::Channel) -> anyhow::Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(CELERY_QUEUE.into(), durable, arguments)
        .await?;
    Ok(())
}

/// Starts a peer on the queue of requests.
pub(crate) fn spawn(
    peer: Peer,
    vhost: &Vhost,
    database: &Database,
    twilio_url: &str,
) -> anyhow::Result<Child> {
    let installed = PathBuf::from(from_environment("VOICE_OTP_BENCH_PEERS")?);
    let mut command = match peer {
        Peer::Node => {
            let mut command = Command::new("node");
            command.arg(installed.join("node/worker.mjs"));
            command
        }
        Peer::Celery => {
            let mut command = Command::new(installed.join("venv/bin/python"));
            command
                .args(["-W", "ignore"])
                .arg(installed.join("celery/worker.py"))
                .current_dir(installed.join("celery"));
            command
        }
    };
    Ok(command
        .env("AMQP_URL", vhost.url.expose_secret())
        .env("DATABASE_URL", &database.server)
        .env("SEARCH_PATH", &database.schema)
        .env("TWILIO_URL", twilio_url)
        .env(
            "QUEUE",
            if peer == Peer::Celery {
                CELERY_QUEUE
            } else {
                voice_otp_publisher::topology::REQUESTS
            },
        )
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()?)
}

/// An event as a task in Celery's protocol, version 2
/// (<https://docs.celeryq.dev/en/stable/internals/protocol.html>).
pub(crate) fn celery_message(event: &str) -> (String, BasicProperties) {
    let id = uuid::Uuid::new_v4().to_string();
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("lang", "py"),
        ("task", "voice_otp.place"),
        ("id", id.as_str()),
        ("root_id", id.as_str()),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_correlation_id(id.as_str().into())
        .with_headers(headers);
    (
        format!(
            r#"[[{event}],{{}},{{"callbacks":null,"errbacks":null,"chain":null,"chord":null}}]"#
        ),
        properties,
    )
}
