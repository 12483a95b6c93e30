//! A migration that adds a column to every table while workers run: the statements that they have
//! prepared go on.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use voice_otp_publisher::{Message, topology};
use zeroize::Zeroizing;

use crate::harness::{System, number, request};

/// Long enough for every request to be placed, however busy the machine is.
const LIFE: Duration = Duration::from_mins(3);
/// How much later than usual a request may be placed because of a migration. The lock of `alter
/// table` waits for running transactions, and new ones wait for it.
const DELAY: Duration = Duration::from_secs(5);
const REQUESTS: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_added_to_every_table_under_load_makes_no_request_late() {
    let system = System::start(100.0).await;
    let mut statuses = system.broker.statuses().await;
    let (mut one, mut two) = (system.worker().await, system.worker().await);
    let publish = async |n: usize| {
        let event = request(&format!("load-{n}"), &number(n), "493027", LIFE);
        let message = Message {
            exchange: topology::REQUESTS,
            routing_key: topology::REQUESTED_KEY.to_owned(),
            message_id: format!("load-{n}"),
            kind: "test",
            content_type: "application/cloudevents+json",
            headers: Vec::new(),
            expiration: None,
            body: Zeroizing::new(event.to_string().into_bytes()),
        };
        system.publisher.publish(message).await.unwrap();
    };
    // Every statement is prepared before the first column is added.
    let mut published = HashMap::new();
    for n in 0..20 {
        published.insert(format!("load-{n}"), Instant::now());
        publish(n).await;
    }
    statuses.until_finals(20, Duration::from_secs(30)).await;
    let tables = tables(&system).await;
    assert!(tables.len() > 15, "{tables:?}");
    let migrating = async {
        for table in &tables {
            add_column(&system, table).await;
        }
    };
    let publishing = async {
        for n in 20..REQUESTS {
            publish(n).await;
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    };
    tokio::join!(migrating, publishing);
    statuses
        .until_finals(REQUESTS, Duration::from_mins(1))
        .await;
    statuses.assert_sound();
    let mut slowest = Duration::ZERO;
    for n in 0..REQUESTS {
        let id = format!("load-{n}");
        assert_eq!(statuses.names(&id).last(), Some(&"delivered"), "{id}");
        assert_eq!(system.calls_to(&number(n)), 1, "{id}");
        let times: Vec<_> = statuses
            .of(&id)
            .iter()
            .filter(|event| ["accepted", "placed"].contains(&event.data.status.as_str()))
            .map(|event| chrono::DateTime::parse_from_rfc3339(&event.time).unwrap())
            .collect();
        let took = (times[times.len() - 1] - times[0]).to_std().unwrap();
        slowest = slowest.max(took);
    }
    eprintln!(
        "{} tables; from accepted to placed at most {slowest:?}",
        tables.len()
    );
    assert!(slowest < DELAY, "{slowest:?}");
    for worker in [&mut one, &mut two] {
        assert!(worker.terminate().await.success());
    }
    system.stop().await;
}

/// The tables of the schema; partitions get their columns from their table.
async fn tables(system: &System) -> Vec<String> {
    let client = system.database.pool.get().await.unwrap();
    let tables = client
        .query(
            "select c.oid::regclass::text from pg_class c \
              where c.relkind in ('r', 'p') and not c.relispartition \
                and c.relnamespace = current_schema()::regnamespace order by 1",
            &[],
        )
        .await
        .unwrap();
    tables.iter().map(|row| row.get(0)).collect()
}

/// As `voice-otp migrate` does it: a lock that doesn't come soon is given up and asked for again,
/// so that no one waits behind it.
async fn add_column(system: &System, table: &str) {
    let client = system.database.pool.get().await.unwrap();
    let sql = format!(
        "begin; set local lock_timeout = '500ms'; alter table {table} add column added text; commit"
    );
    while client.batch_execute(&sql).await.is_err() {
        client.batch_execute("rollback").await.unwrap();
    }
}
