//! The example clients of `schemas/clients`, unchanged, against a running worker.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use voice_otp_publisher::{connection, topology};
use voice_otp_schemas::json_schema::documents;

use super::{node, python, repository, run};
use crate::harness::{System, number};

/// A client that prints statuses.
struct Follower {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Follower {
    /// Starts the client, and waits until its queue is bound.
    async fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = tokio::time::timeout(Duration::from_secs(20), log.next_line())
            .await
            .expect("the client is ready before the timeout");
        assert_eq!(ready.unwrap().as_deref(), Some("ready"));
        // The client goes on writing, and must not meet a closed pipe.
        tokio_util::task::TaskTracker::new()
            .spawn(async move { while log.next_line().await.is_ok_and(|line| line.is_some()) {} });
        Self {
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
        }
    }

    /// The statuses of these deliveries, up to the final status of each.
    async fn until_final(&mut self, mut ids: BTreeSet<String>) -> Vec<serde_json::Value> {
        let mut events = Vec::new();
        while !ids.is_empty() {
            let line = tokio::time::timeout(Duration::from_secs(30), self.lines.next_line())
                .await
                .expect("the client prints before the timeout");
            let event: serde_json::Value =
                serde_json::from_str(&line.unwrap().expect("the client goes on")).unwrap();
            if event["data"]["final"] == true {
                assert_eq!(event["data"]["status"], "delivered", "{event}");
                ids.remove(event["subject"].as_str().unwrap());
            }
            events.push(event);
        }
        events
    }
}

fn schema(file: &str) -> jsonschema::Validator {
    let document = documents()
        .into_iter()
        .find(|document| document.file == file)
        .unwrap();
    jsonschema::draft202012::new(&document.schema).unwrap()
}

#[tokio::test]
async fn python_and_node_publish_and_follow_and_every_message_fits_its_schema() {
    let system = System::start(50.0).await;
    // Only this user may publish for the tenant, so the clients must set `user_id`, which the
    // broker checks.
    let user = connection::user_name(&system.broker.url).unwrap();
    system
        .tenant("acme", 50.0, |draft| draft.publishers = vec![user])
        .await;
    let mut requests = system.broker.copy_of(topology::REQUESTS, "otp.#").await;
    let mut statuses = system.broker.statuses().await;
    let _worker = system.worker().await;
    let clients = repository().join("schemas/clients");
    let with_url = |mut command: Command, args: &[&str]| {
        command
            .args(args)
            .env("VOICE_OTP_AMQP_URL", system.broker.url.expose_secret());
        command
    };
    let mut followers = [
        Follower::start(with_url(
            python(&clients.join("python/statuses.py")),
            &["acme"],
        ))
        .await,
        Follower::start(with_url(node("statuses.mjs"), &["acme"])).await,
    ];
    let mut ids = BTreeSet::new();
    for n in 0..3 {
        let (one, other) = (number(2 * n), number(2 * n + 1));
        ids.insert(
            run(with_url(
                python(&clients.join("python/publish.py")),
                &["acme", &one, "493027"],
            ))
            .await,
        );
        ids.insert(run(with_url(node("publish.mjs"), &["acme", &other, "00A1B2"])).await);
    }
    assert_eq!(ids.len(), 6);
    statuses.until_finals(6, Duration::from_secs(40)).await;
    statuses.collect_for(Duration::from_millis(300)).await;
    statuses.assert_sound();

    let status = schema("delivery.status.v1.json");
    for follower in &mut followers {
        let events = follower.until_final(ids.clone()).await;
        assert_eq!(
            events.len(),
            statuses.seen.len(),
            "each status is printed once"
        );
        assert!(events.iter().all(|event| status.is_valid(event)));
    }
    let requested = schema("delivery.requested.v1.json");
    for _ in 0..6 {
        let request = requests.recv().await.unwrap();
        assert!(requested.is_valid(&request), "{request}");
    }
    assert_eq!(system.simulator.calls().len(), 6);
    system.stop().await;
}

#[tokio::test]
async fn a_client_reports_a_request_that_was_not_stored() {
    let system = System::start(50.0).await;
    // The test's publisher declares the queue when it connects, so it must connect before the queue
    // is deleted.
    system.publisher.ready().await;
    system.broker.delete_queue(topology::REQUESTS).await;
    let clients = repository().join("schemas/clients");
    for mut command in [
        python(&clients.join("python/publish.py")),
        node("publish.mjs"),
    ] {
        command
            .args(["acme", &number(1), "493027"])
            .env("VOICE_OTP_AMQP_URL", system.broker.url.expose_secret());
        let output = tokio::time::timeout(Duration::from_secs(30), command.output())
            .await
            .expect("the client ends before the timeout")
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{command:?}: {log}"
        );
        assert!(
            log.contains("not stored: no worker has declared the queue yet"),
            "{command:?}: {log}"
        );
    }
    system.stop().await;
}
