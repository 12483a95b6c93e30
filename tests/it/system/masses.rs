//! Events that come in masses, and close together: verifications and cancellations right after
//! their requests.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::harness::{Program, System, number, request, rfc3339};

const LIFE: Duration = Duration::from_mins(10);
const LONGEST: Duration = Duration::from_mins(2);

/// A `cancelled` or `verified` event of now.
fn event(kind: &str, tenant: &str, subject: (&str, &str)) -> Value {
    json!({
        "specversion": "1.0",
        "id": format!("{kind}-{}", subject.1),
        "source": "/test",
        "type": format!("dev.voiceotp.delivery.{kind}.v1"),
        "time": rfc3339(SystemTime::now()),
        "data": { "tenant_id": tenant, subject.0: subject.1 },
    })
}

fn texts(events: &[Value]) -> Vec<String> {
    events.iter().map(ToString::to_string).collect()
}

async fn run(system: &System, args: &[&str]) {
    let output = Program::run(&system.environment(), args).await;
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_each_followed_by_its_verification_take_hardly_longer() {
    let count: usize = std::env::var("VOICE_OTP_MASSES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000);
    let system = System::start(1_000.0).await;
    system
        .tenant("acme", 1_000.0, |draft| draft.test_mode = true)
        .await;
    let mut statuses = system.broker.statuses().await;
    let _worker = system
        .worker_with(&[("VOICE_OTP_LOG", "warn".to_owned())])
        .await;
    let mut times = Vec::new();
    // The first round warms up.
    for (round, verified) in [("warm", true), ("plain", false), ("pairs", true)] {
        let mut events = Vec::new();
        for n in 0..count {
            let id = format!("{round}-{n}");
            events.push(request(&id, &number(n), "493027", LIFE));
            if verified {
                events.push(event("verified", "acme", ("delivery_id", &id)));
            }
        }
        let events = texts(&events);
        statuses.seen.clear();
        let began = Instant::now();
        tokio::join!(
            system.broker.publish_all(&events),
            statuses.until_finals(count, LONGEST)
        );
        while system.broker.depth("voice-otp.requests").await > 0 {}
        times.push(began.elapsed());
    }
    let [_, plain, pairs] = times[..] else {
        unreachable!("there are three rounds");
    };
    eprintln!("{count} requests: {plain:?}; with a verification each: {pairs:?}");
    // Publishing twice as many messages counts too. One by one, they took 16 times as long.
    assert!(
        pairs < plain * 4 + Duration::from_secs(1),
        "{plain:?} without, {pairs:?} with verifications"
    );
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_requests_with_a_cancellation_by_user_after_each_none_is_called() {
    const PAIRS: usize = 1_000;
    let system = System::start(100.0).await;
    let mut statuses = system.broker.statuses().await;
    let quiet = [("VOICE_OTP_LOG", "warn".to_owned())];
    let _workers = (
        system.worker_with(&quiet).await,
        system.worker_with(&quiet).await,
    );
    // What isn't cancelled is seen to wait.
    run(&system, &["tenant", "pause", "acme"]).await;
    let mut events = Vec::new();
    for n in 0..PAIRS {
        let (id, user) = (format!("pair-{n}"), format!("user-{n}"));
        let mut one = request(&id, &number(n), "493027", LIFE);
        one["data"]["user_ref"] = json!(user);
        events.push(one);
        events.push(event("cancelled", "acme", ("user_ref", &user)));
    }
    // Half of them without a lane, the others in the tenant's.
    let (common, laned) = events.split_at(PAIRS);
    let publishing = async {
        for event in texts(laned) {
            let bytes = zeroize::Zeroizing::new(event.into_bytes());
            let message = voice_otp_publisher::event::message(bytes).unwrap();
            drop(system.publisher.enqueue(message).await.unwrap());
        }
    };
    let common = texts(common);
    tokio::join!(
        system.broker.publish_all(&common),
        publishing,
        statuses.until_finals(PAIRS, LONGEST)
    );
    run(&system, &["tenant", "resume", "acme"]).await;
    for n in 0..PAIRS {
        let id = format!("pair-{n}");
        assert_eq!(statuses.names(&id).last(), Some(&"cancelled"), "{id}");
        assert_eq!(statuses.reason(&id), "cancelled_by_request", "{id}");
    }
    assert_eq!(system.simulator.calls().len(), 0);
    system.stop().await;
}

#[tokio::test]
async fn locked_deliveries_delay_no_other_tenant() {
    const LOCKED: usize = 6;
    let system = System::start(100.0).await;
    system.tenant("other", 100.0, |_| {}).await;
    let mut statuses = system.broker.statuses().await;
    let _worker = system.worker().await;
    run(&system, &["tenant", "pause", "acme"]).await;
    for n in 0..LOCKED {
        let mut one = request(&format!("locked-{n}"), &number(n), "493027", LIFE);
        one["data"]["user_ref"] = json!(format!("user-{n}"));
        system.publish_json(&one).await;
    }
    statuses.until_count("accepted", LOCKED, LONGEST).await;
    let client = system.database.pool.get().await.unwrap();
    client.batch_execute("begin").await.unwrap();
    let lock = "select 1 from deliveries where tenant_id = 'acme' for update";
    assert_eq!(client.execute(lock, &[]).await.unwrap(), LOCKED as u64);
    for n in 0..LOCKED {
        let (id, user) = (format!("locked-{n}"), format!("user-{n}"));
        for subject in [
            event("verified", "acme", ("delivery_id", &id)),
            event("cancelled", "acme", ("user_ref", &user)),
            event("cancelled", "acme", ("delivery_id", &id)),
        ] {
            system.publish_json(&subject).await;
        }
    }
    let mut longest = Duration::ZERO;
    for n in 0..20 {
        let id = format!("free-{n}");
        let mut one = request(&id, &number(100 + n), "493027", LIFE);
        one["data"]["tenant_id"] = json!("other");
        let began = Instant::now();
        system.publish_json(&one).await;
        statuses
            .until("another tenant's request is accepted", LONGEST, |seen| {
                seen.iter()
                    .any(|(_, event)| event.data.delivery_id.as_str() == id)
            })
            .await;
        longest = longest.max(began.elapsed());
    }
    eprintln!("accepted beside locked rows: within {longest:?}");
    assert!(
        longest < Duration::from_secs(2),
        "accepted after {longest:?}"
    );
    let early = statuses.seen.iter();
    let early = early.filter(|(_, event)| event.data.status.as_str() == "cancelled");
    assert_eq!(early.count(), 0, "the rows are locked");
    client.batch_execute("commit").await.unwrap();
    statuses.until_count("cancelled", LOCKED, LONGEST).await;
    drop(client);
    system.stop().await;
}
