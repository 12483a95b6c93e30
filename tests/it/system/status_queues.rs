//! A consumer's queue that doesn't take its tenant's statuses harms no one else.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use voice_otp_publisher::topology;

use crate::harness::{System, number, request};

const DASHBOARD: &str = "test.dashboard";
const LIFE: Duration = Duration::from_mins(3);
/// How long after its change a status arrives at the latest, on a machine that does much else.
const PROMPT: TimeDelta = TimeDelta::seconds(3);

/// A queue of a tenant that is soon full and then refuses.
async fn refusing_queue(system: &System, tenant: &str) {
    let channel = system.broker.connection.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(10));
    arguments.insert(
        "x-overflow".into(),
        AMQPValue::LongString("reject-publish".into()),
    );
    channel
        .queue_declare(DASHBOARD.into(), QueueDeclareOptions::default(), arguments)
        .await
        .unwrap();
    let key = format!("status.*.{tenant}");
    channel
        .queue_bind(
            DASHBOARD.into(),
            topology::STATUS.into(),
            key.as_str().into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    channel.close(200, "done".into()).await.unwrap();
}

fn of(tenant: &str, id: &str, to: &str) -> serde_json::Value {
    let mut event = request(id, to, "493027", LIFE);
    event["data"]["tenant_id"] = tenant.into();
    event
}

#[tokio::test]
async fn a_full_queue_that_refuses_delays_no_other_tenants_statuses_and_multiplies_none() {
    let system = System::start(200.0).await;
    system.tenant("other", 200.0, |_| {}).await;
    refusing_queue(&system, "acme").await;
    let mut statuses = system.broker.statuses().await;
    let worker = system.worker().await;
    for n in 0..400 {
        let id = format!("full-{n}");
        system.publish_json(&of("acme", &id, &number(n))).await;
    }
    for n in 0..10 {
        let id = format!("other-{n}");
        system
            .publish_json(&of("other", &id, &number(1_000 + n)))
            .await;
        statuses
            .until(
                "another tenant's final status",
                Duration::from_mins(1),
                |seen| {
                    seen.iter().any(|(_, event)| {
                        event.data.delivery_id.as_str() == id && event.data.is_final
                    })
                },
            )
            .await;
        let last = statuses.of(&id).pop().unwrap();
        let changed_at = DateTime::parse_from_rfc3339(&last.time).unwrap();
        let delay = Utc::now() - changed_at.with_timezone(&Utc);
        assert!(delay < PROMPT, "{id}: {delay}");
        statuses.collect_for(Duration::from_secs(3)).await;
    }
    let mut copies: HashMap<(String, u32), usize> = HashMap::new();
    for (_, event) in &statuses.seen {
        let id = event.data.delivery_id.as_str().to_owned();
        *copies.entry((id, event.data.sequence)).or_default() += 1;
    }
    // The queue is probed with a status that it has refused if no other one waits, as at first on a
    // busy machine.
    let often = copies.values().filter(|copies| **copies > 2).count();
    let most = copies.values().max();
    assert!(often <= 4 && most <= Some(&5), "{often}, {most:?}");
    let warnings = worker.log().matches("a queue refuses").count();
    assert!((1..=4).contains(&warnings), "{}", worker.log());

    system.broker.delete_queue(DASHBOARD).await;
    system
        .publish_json(&of("acme", "later", &number(2_000)))
        .await;
    statuses
        .until("later statuses", Duration::from_mins(1), |seen| {
            seen.iter()
                .any(|(_, event)| event.data.delivery_id.as_str() == "later" && event.data.is_final)
        })
        .await;
    system.stop().await;
}
