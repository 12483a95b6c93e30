//! One client of the console that harms no other: idle connections, many searches, invalid tokens,
//! many streams.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::client::{TIMEOUT, create_token, get, send};
use crate::harness::{Console, System, memory_bytes};

/// Connections that send nothing, and what they may cost together.
const IDLE: usize = 2_000;
const MAX_GROWTH_BYTES: u64 = 40 << 20;

/// The memory of a process that has done what it does after its start.
async fn settled_memory_bytes(pid: u32) -> u64 {
    let mut last = 0;
    loop {
        let memory = memory_bytes(pid);
        if memory.abs_diff(last) < 1 << 20 {
            return memory;
        }
        last = memory;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Connections that have sent nothing, or a request that was answered.
async fn connect_idle(address: &str, request: &str) -> Vec<TcpStream> {
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut connection = TcpStream::connect(address).await.unwrap();
        if !request.is_empty() {
            connection.write_all(request.as_bytes()).await.unwrap();
            connection.read_u8().await.unwrap();
        }
        idle.push(connection);
    }
    idle
}

#[tokio::test]
async fn two_thousand_idle_connections_cost_a_console_or_worker_forty_megabytes_at_most() {
    let system = System::start(50.0).await;
    let console = Console::start(&system).await;
    let worker = system.worker().await;
    let http = reqwest::Client::new();
    for (name, pid, address, path) in [
        ("console", console.pid(), console.address(), "/livez"),
        ("worker", worker.pid(), worker.address.as_str(), "/readyz"),
    ] {
        for request in ["", "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let before = settled_memory_bytes(pid).await;
            let idle = connect_idle(address, request).await;
            // Answered once all of them are accepted, and beside them.
            let answer = http.get(format!("http://{address}{path}")).send().await;
            assert_eq!(answer.unwrap().status(), StatusCode::OK, "{name}");
            let growth = memory_bytes(pid).saturating_sub(before);
            assert!(growth < MAX_GROWTH_BYTES, "{name}: {growth} bytes");
            drop(idle);
        }
    }
    console.stop().await;
    system.stop().await;
}

/// A small version of a tenant with a million deliveries.
const DELIVERIES: i64 = 200_000;

#[tokio::test]
async fn forty_searches_and_figures_of_a_large_tenant_delay_no_other_tenant() {
    let system = System::start(50.0).await;
    let console = Console::start(&system).await;
    let (acme, other) = (
        create_token(&system, "tenant-admin", Some("acme")).await,
        create_token(&system, "tenant-admin", Some("other")).await,
    );
    let client = system.database.pool.get().await.unwrap();
    client
        .execute(
            "insert into finished (tenant_id, delivery_id, identity_key, identity_mac, to_masked, \
               context, attempt, sequence, admitted_at, expires_at, final_status, ended_at) \
             select 'acme', 'd' || n, 'k', '', '+1415*****' || n % 100, '{}', 1, 3, t, t, \
               'delivered', t \
               from (select n, clock_timestamp() - n * interval '10 ms' as t \
                       from generate_series(1, $1::bigint) n) as d",
            &[&DELIVERIES],
        )
        .await
        .unwrap();
    drop(client);
    let requests = (0..40).map(|n| {
        let path = if n % 2 == 0 {
            "/api/v1/tenants/acme/deliveries?id=nothing"
        } else {
            "/api/v1/tenants/acme/figures?hours=168"
        };
        console
            .http
            .get(console.url(path))
            .bearer_auth(&acme)
            .send()
    });
    let attack = futures_util::future::join_all(requests);
    let visit = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            let started = Instant::now();
            let (status, _) = get(&console, &other, "/api/v1/tenants/other/deliveries").await;
            assert_eq!(status, StatusCode::OK);
            slowest = slowest.max(started.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        slowest
    };
    let (answers, slowest) = tokio::join!(attack, visit);
    let mut refused = 0;
    for answer in answers {
        let answer = answer.unwrap();
        match answer.status() {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => {}
            StatusCode::TOO_MANY_REQUESTS => {
                assert!(answer.headers().contains_key("retry-after"));
                let problem: serde_json::Value = answer.json().await.unwrap();
                assert_eq!(problem["type"], "urn:voice-otp:too-many");
                refused += 1;
            }
            status => panic!("{status}"),
        }
    }
    assert!(refused > 0, "some of 40 are refused");
    // 25 s before; the tests' machine may be busy.
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    console.stop().await;
    system.stop().await;
}

#[tokio::test]
async fn a_search_ends_in_the_database_when_its_client_is_gone() {
    let system = System::start(50.0).await;
    let console = Console::start(&system).await;
    let acme = create_token(&system, "tenant-admin", Some("acme")).await;
    let client = system.database.pool.get().await.unwrap();
    // Holds the search up until this transaction ends.
    client
        .batch_execute("begin; lock table finished in access exclusive mode")
        .await
        .unwrap();
    let search = console
        .http
        .get(console.url("/api/v1/tenants/acme/deliveries"))
        .bearer_auth(&acme)
        .timeout(Duration::from_millis(700))
        .send();
    assert!(search.await.is_err(), "the search waits");
    let watcher = system.database.another_pool();
    let watcher = watcher.get().await.unwrap();
    let ended = async {
        loop {
            let waiting: i64 = watcher
                .query_one(
                    "select count(*) from pg_locks where relation = 'finished'::regclass \
                       and not granted",
                    &[],
                )
                .await
                .unwrap()
                .get(0);
            if waiting == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, ended).await.expect("it ends");
    client.batch_execute("rollback").await.unwrap();
    let (status, _) = get(&console, &acme, "/api/v1/tenants/acme/deliveries").await;
    assert_eq!(status, StatusCode::OK, "the tenant's turn is free again");
    console.stop().await;
    system.stop().await;
}

#[tokio::test]
async fn sign_ins_of_one_address_are_limited_and_its_valid_tokens_work() {
    let system = System::start(50.0).await;
    let console = Console::start(&system).await;
    let acme = create_token(&system, "tenant-admin", Some("acme")).await;
    let (status, _) = get(&console, &acme, "/api/v1/me").await;
    assert_eq!(status, StatusCode::OK);
    let mut refused = None;
    for n in 0..200 {
        let form = [("token", format!("vot_{n}")), ("code", String::new())];
        let answer = console.http.post(console.url("/sign-in")).form(&form);
        let answer = answer.send().await.unwrap();
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    let refused = refused.expect("sign-ins are refused in the end");
    assert!(refused.headers().contains_key("retry-after"));
    let page = refused.text().await.unwrap();
    assert!(page.contains("Too many sign-ins"), "{page}");

    let mut statuses = Vec::new();
    for n in 0..300 {
        let answer = send(
            &console,
            &format!("vot_{n}"),
            Method::GET,
            "/api/v1/me",
            None,
        )
        .await;
        statuses.push(answer.status());
    }
    assert_eq!(statuses[0], StatusCode::UNAUTHORIZED);
    assert!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS));
    let (status, _) = get(&console, &acme, "/api/v1/me").await;
    assert_eq!(status, StatusCode::OK, "a valid token works meanwhile");
    console.stop().await;
    system.stop().await;
}

#[tokio::test]
async fn a_token_has_a_bounded_number_of_event_streams() {
    let system = System::start(50.0).await;
    let console = Console::start(&system).await;
    let (acme, second) = (
        create_token(&system, "tenant-admin", Some("acme")).await,
        create_token(&system, "tenant-admin", Some("acme")).await,
    );
    let path = "/api/v1/tenants/acme/events";
    let mut open = Vec::new();
    let refused = loop {
        let stream = send(&console, &acme, Method::GET, path, None).await;
        if stream.status() != StatusCode::OK {
            break stream;
        }
        open.push(stream);
        assert!(open.len() < 100, "there is a limit");
    };
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("retry-after"));
    let problem: serde_json::Value = refused.json().await.unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("event streams open"), "{detail}");
    let stream = send(&console, &second, Method::GET, path, None).await;
    assert_eq!(stream.status(), StatusCode::OK, "another token has its own");
    open.pop();
    let opened = async {
        while send(&console, &acme, Method::GET, path, None)
            .await
            .status()
            != StatusCode::OK
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, opened)
        .await
        .expect("a stream that is closed makes room");
    console.stop().await;
    system.stop().await;
}
