//! Isolation between accounts, and operators' commands, which take effect at once.

use std::time::{Duration, Instant};

use crate::harness::{ACCOUNT, Program, System, number, request};

const LIFE: Duration = Duration::from_mins(3);

/// Makes the tenant `other` use its own rate limit.
const UNVERIFY: &str = "update voice_settings set credentials_verified = false, \
                        version = version + 1000 where tenant_id = 'other'";

fn of(tenant: &str, id: &str, to: &str) -> serde_json::Value {
    let mut event = request(id, to, "493027", LIFE);
    event["data"]["tenant_id"] = tenant.into();
    event
}

async fn run(system: &System, args: &[&str]) -> (Option<i32>, String) {
    let output = Program::run(&system.environment(), args).await;
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test]
async fn a_locked_rate_limit_row_delays_its_own_account_only() {
    let system = System::start(100.0).await;
    // The tenant's credentials aren't verified, so it has its own rate limit.
    system.tenant("other", 100.0, |_| {}).await;
    let client = system.database.pool.get().await.unwrap();
    client.execute(UNVERIFY, &[]).await.unwrap();
    let mut statuses = system.broker.statuses().await;
    let _worker = system.worker().await;
    for (tenant, n) in [("acme", 1), ("other", 2)] {
        system
            .publish_json(&of(tenant, &format!("{tenant}-warm"), &number(n)))
            .await;
    }
    statuses.until_finals(2, Duration::from_secs(30)).await;
    client.execute(UNVERIFY, &[]).await.unwrap();
    client.batch_execute("begin").await.unwrap();
    let locked = client
        .execute(
            "select 1 from pacing where pace_key = $1 for update",
            &[&ACCOUNT],
        )
        .await
        .unwrap();
    assert_eq!(locked, 1);
    let start = Instant::now();
    for n in 0..10 {
        system
            .publish_json(&of("acme", &format!("a{n}"), &number(100 + n)))
            .await;
        system
            .publish_json(&of("other", &format!("b{n}"), &number(200 + n)))
            .await;
    }
    while (0..10)
        .map(|n| system.calls_to(&number(200 + n)))
        .sum::<usize>()
        < 10
    {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "the other account waits"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        (0..10)
            .map(|n| system.calls_to(&number(100 + n)))
            .sum::<usize>(),
        0,
        "the locked account's calls wait"
    );
    client.batch_execute("commit").await.unwrap();
    statuses.until_finals(22, Duration::from_secs(30)).await;
    statuses.assert_sound();
    assert_eq!(
        (0..10)
            .map(|n| system.calls_to(&number(100 + n)))
            .sum::<usize>(),
        10
    );
    drop(client);
    system.stop().await;
}

#[tokio::test]
async fn an_account_is_paused_resumed_and_rate_limited_while_it_runs() {
    let system = System::start(100.0).await;
    let mut statuses = system.broker.statuses().await;
    let _worker = system.worker().await;
    assert_eq!(
        run(&system, &["account", "rate", ACCOUNT, "0"]).await.0,
        Some(0)
    );
    let (code, listed) = run(&system, &["account", "list"]).await;
    assert!(code == Some(0) && listed.contains("paused"), "{listed}");
    // A change takes effect within a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for n in 0..5 {
        system
            .publish_json(&of("acme", &format!("p{n}"), &number(n)))
            .await;
    }
    statuses
        .until_count("deferred", 5, Duration::from_secs(10))
        .await;
    assert_eq!(statuses.reason("p0"), "paused");
    assert_eq!(system.simulator.calls().len(), 0);
    let (code, said) = run(&system, &["account", "rate", ACCOUNT, "200"]).await;
    assert!(code == Some(0) && said.contains("still paused"), "{said}");
    assert_eq!(
        run(&system, &["account", "resume", ACCOUNT]).await.0,
        Some(0)
    );
    statuses.until_finals(5, Duration::from_secs(20)).await;

    assert_eq!(run(&system, &["tenant", "pause", "acme"]).await.0, Some(0));
    let (_, shown) = run(&system, &["tenant", "show", "acme"]).await;
    assert!(
        shown.contains("paused                       tenant"),
        "{shown}"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    system.publish_json(&of("acme", "t0", &number(50))).await;
    statuses
        .until_count("deferred", 6, Duration::from_secs(10))
        .await;
    assert_eq!(run(&system, &["tenant", "resume", "acme"]).await.0, Some(0));
    statuses.until_finals(6, Duration::from_secs(20)).await;
    statuses.assert_sound();
    assert_eq!(system.simulator.calls().len(), 6);

    assert_eq!(
        run(&system, &["account", "max-calls", ACCOUNT, "2"])
            .await
            .0,
        Some(0)
    );
    assert_eq!(
        run(&system, &["account", "share", ACCOUNT, "0.3"]).await.0,
        Some(0)
    );
    let (_, listed) = run(&system, &["account", "list", "--json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (
            &listed[0]["max_calls"],
            &listed[0]["tenant_share"],
            &listed[0]["calls_per_second"]
        ),
        (&2.into(), &0.3.into(), &200.0.into())
    );
    for (args, code, says) in [
        (vec!["account", "rate", "AC1", "1"], 2, "the account's SID"),
        (
            vec!["account", "rate", ACCOUNT, "20000"],
            2,
            "0.001 to 10000",
        ),
        (
            vec!["account", "max-calls", ACCOUNT, "0"],
            2,
            "from 1 on, or none",
        ),
        (vec!["account", "share", ACCOUNT, "1.5"], 2, "above 0"),
        (
            vec!["account", "pause", "ACbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"],
            1,
            "no account",
        ),
        (vec!["tenant", "pause", "unknown"], 1, "no tenant"),
    ] {
        let (got, said) = run(&system, &args).await;
        assert!(
            got == Some(code) && said.contains(says),
            "{args:?}: {got:?} {said}"
        );
    }
    system.stop().await;
}
