//! Admission costs the same with any backlog, and with any number of archived days.

use std::time::Duration;

use super::{Bench, median};

/// Judged by ratio, since other tests run beside this one.
fn assert_alike(what: &str, small: Duration, large: Duration) {
    eprintln!("{what}: {small:?}, then {large:?}");
    assert!(
        large < small * 2 + Duration::from_millis(10),
        "{what}: {small:?}, then {large:?}"
    );
}

async fn admissions(bench: &Bench, tenant: &str, first: u32) -> Duration {
    let settings = bench.settings(tenant).await;
    let mut times = Vec::new();
    for n in 0..15 {
        let from = first + n * 100;
        times.push(bench.admit(&settings, from..from + 50).await);
    }
    median(times)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admission_to_a_shared_account_costs_the_same_with_a_backlog_of_three_hundred_thousand() {
    let bench = Bench::new().await;
    let acme = bench.tenant("acme", 1, 2000.0).await;
    bench.tenant("bell", 1, 2000.0).await;
    let empty = admissions(&bench, "acme", 0).await;
    bench.insert_waiting(&acme, 300_000).await;
    let full = admissions(&bench, "acme", 10_000).await;
    assert_alike("0 and 300,000 waiting, of the same tenant", empty, full);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admission_costs_the_same_with_one_and_with_thirty_seven_archived_days() {
    let bench = Bench::new().await;
    bench.tenant("acme", 1, 2000.0).await;
    let few = admissions(&bench, "acme", 0).await;
    bench
        .execute(
            "do $$ begin for n in 1..37 loop execute format( \
               'create table %I partition of finished for values from (%L) to (%L)', \
               'finished_' || to_char(current_date - n, 'YYYYMMDD'), \
               (current_date - n)::text || ' 00:00:00+00', \
               (current_date - n + 1)::text || ' 00:00:00+00'); end loop; end $$; \
             insert into finished (tenant_id, delivery_id, identity_key, identity_mac, context, \
                 attempt, sequence, admitted_at, expires_at, final_status, ended_at) \
               select 'acme', 'old-' || n, 'k', '', '{}', 1, 1, t, t, 'delivered', t \
                 from generate_series(1, 37000) n, \
                      lateral (select (current_date - 1 - n % 37)::timestamp \
                                   at time zone 'UTC' + interval '1 hour') x(t); \
             insert into finished_keys (tenant_id, delivery_id, identity_key, identity_mac, \
                 ended_at) \
               select tenant_id, delivery_id, identity_key, identity_mac, ended_at from finished",
        )
        .await;
    let many = admissions(&bench, "acme", 10_000).await;
    assert_alike("1 and 37 days", few, many);
    bench.stop().await;
}
