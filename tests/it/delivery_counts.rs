//! Figures count a delivery once: before it is archived, and after.

use std::time::Duration;

use voice_otp_schemas::TenantId;
use voice_otp_store::history;

use crate::database::Database;

/// A tally without the hour, for comparing.
type Counted = (String, Option<String>, i64, i64, (i64, i64));

async fn counted(database: &Database, recent: i64) -> Vec<Counted> {
    let tenant = TenantId::parse("acme").unwrap();
    let since = chrono::Utc::now() - Duration::from_hours(24);
    let tallies = history::tally(&database.pool, &tenant, since)
        .await
        .unwrap();
    let counted_now: i64 = tallies.iter().map(|tally| tally.recent).sum();
    assert_eq!(
        counted_now, recent,
        "so many are counted when they are read"
    );
    let mut counted: Vec<Counted> = tallies
        .into_iter()
        .map(|tally| {
            let (outcome, digits) = (tally.outcome, tally.to_masked);
            (
                outcome,
                digits,
                tally.deliveries,
                tally.placed,
                tally.to_ring,
            )
        })
        .collect();
    counted.sort();
    counted
}

/// Deliveries of two tenants that ended three hours ago.
async fn insert(database: &Database, first: i32, last: i32) {
    let client = database.pool.get().await.unwrap();
    client
        .execute(
            "insert into deliveries (tenant_id, delivery_id, state, wake_at, identity_key, \
               identity_mac, to_masked, context, admitted_at, expires_at, place_by, sequence, \
               placed_at, ringing_at, final_status, ended_at) \
             select case when n % 5 = 0 then 'other' else 'acme' end, 'd' || n, 'final', t, \
               'test', '', case when n % 2 = 0 then '+1415*****71' end, \
               case when n % 7 = 0 then '{\"test_call\": \"true\"}' else '{}' end::jsonb, t, t, \
               t, 3, case when n % 3 > 0 then t end, \
               case when n % 3 = 1 then t + interval '1500 ms' end, \
               case when n % 3 > 0 then 'delivered' else 'rejected' end, t \
               from generate_series($1::int, $2::int) n, \
                 (select date_trunc('hour', clock_timestamp()) - interval '3 hours' as t) now",
            &[&first, &last],
        )
        .await
        .unwrap();
}

async fn archive(database: &Database) {
    let client = database.pool.get().await.unwrap();
    client
        .batch_execute(
            "select maintain_archive_partitions(interval '1 hour', interval '30 days'); \
             select archive_finished(interval '1 hour', 1000)",
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn a_delivery_counts_once_before_and_after_it_is_archived() {
    let database = Database::fresh().await;
    insert(&database, 1, 100).await;
    let before = counted(&database, 68).await;
    assert_eq!(before.len(), 4, "{before:?}");
    archive(&database).await;
    assert_eq!(counted(&database, 0).await, before);
    archive(&database).await;
    assert_eq!(
        counted(&database, 0).await,
        before,
        "nothing is counted twice"
    );

    // Another hundred with the same outcomes are added to the same counts.
    insert(&database, 106, 205).await;
    let together = counted(&database, 68).await;
    archive(&database).await;
    assert_eq!(counted(&database, 0).await, together);
    let sum = |counted: &[Counted]| counted.iter().map(|one| one.2).sum::<i64>();
    assert_eq!((sum(&before), sum(&together)), (68, 136));
    database.drop_schema().await;
}
