//! A release beside the one before it, under load.

use std::path::PathBuf;
use std::time::Duration;

use crate::database::Database;
use crate::harness::{Broker, Environment, Program, Statuses, System, Worker, number, request};

const LIFE: Duration = Duration::from_mins(2);
const REQUESTS: usize = 300;

/// The program of the previous release.
fn previous() -> PathBuf {
    std::env::var_os("VOICE_OTP_PREVIOUS_PROGRAM")
        .expect("VOICE_OTP_PREVIOUS_PROGRAM is missing: run this with ./dev interop")
        .into()
}

#[tokio::test]
async fn both_releases_run_side_by_side_while_the_database_is_migrated_under_load() {
    let (database, broker) = (Database::unmigrated().await, Broker::empty().await);
    // The previous release makes the tables and the queues.
    let prepare = |environment: Environment| async move {
        let migrated = Program::run_of(&previous(), &environment, &["migrate"]).await;
        assert!(migrated.status.success(), "{migrated:?}");
        let old = Worker::start_of(&previous(), environment, true, &[]).await;
        old.ready().await;
        old
    };
    let (system, mut old) = System::start_on(database, broker, 100.0, prepare).await;
    let mut statuses = system.broker.statuses().await;

    // The new worker doesn't start on the old schema, and says what to do.
    let refused = Program::run(&system.environment(), &["worker"]).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && text.contains("run: voice-otp migrate"),
        "{text}"
    );

    let publishing = async {
        for n in 0..REQUESTS {
            system
                .publish_json(&request(
                    &format!("up-{n}"),
                    &number(2_000 + n),
                    "493027",
                    LIFE,
                ))
                .await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let upgrading = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let migrated = Program::run(&system.environment(), &["migrate"]).await;
        assert!(migrated.status.success(), "{migrated:?}");
        // The previous release alone on the new schema, with the connections that it had.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let new = system.worker().await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(old.terminate().await.success());
        new
    };
    let ((), mut new) = tokio::join!(publishing, upgrading);
    statuses
        .until_finals(REQUESTS, Duration::from_mins(2))
        .await;
    statuses.collect_for(Duration::from_millis(500)).await;
    assert_each_is_delivered_once(&system, &mut statuses, &old, &new);
    assert!(new.terminate().await.success());
    system.stop().await;
}

fn assert_each_is_delivered_once(
    system: &System,
    statuses: &mut Statuses,
    old: &Worker,
    new: &Worker,
) {
    let mut ids = std::collections::HashSet::new();
    statuses
        .seen
        .retain(|(_, event)| ids.insert((event.source.clone(), event.id.clone())));
    statuses.assert_sound();
    for n in 0..REQUESTS {
        let id = format!("up-{n}");
        let logs = || format!("previous:\n{}\nnew:\n{}", old.log(), new.log());
        assert_eq!(
            statuses.names(&id).last(),
            Some(&"delivered"),
            "{id}: {}\n{}",
            statuses.reason(&id),
            logs()
        );
        assert_eq!(system.calls_to(&number(2_000 + n)), 1, "{id}\n{}", logs());
    }
}
