//! How a delivery lives when all goes well, and what is no delivery at all.

use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp::engine::{Dead, Disposition};
use voice_otp::failure::Class;
use voice_otp::ports::{Directory as _, Ledger as _};
use voice_otp::progress::{Call, CallStatus};
use voice_otp::settings::Draft;
use voice_otp::speech::Part;
use voice_otp_schemas::TenantId;
use voice_otp_schemas::reason::ReasonCode;

use super::bench::{Bench, steps, words};
use crate::memory::sample::{Ask, account, draft, key, number, verified};
use crate::memory::{Answer, Life, Then};

#[tokio::test(start_paused = true)]
async fn a_request_is_accepted_placed_and_delivered() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    worker
        .take(&[Ask::new("acme", "a").calling(7).reading("A1b2")])
        .await;
    let told = bench.ended("a").await;
    assert_eq!(
        words(&told),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(
        told.iter().map(|data| data.attempt).collect::<Vec<_>>(),
        [0, 1, 1, 1, 1]
    );
    assert!(told[0].due_at.is_some() && told[0].call_sid.is_none());
    assert!(
        told[1..]
            .iter()
            .all(|data| data.call_sid == told[1].call_sid && data.call_sid.is_some())
    );
    let last = &told[4];
    assert_eq!(
        (last.call_duration_s, last.test, last.to_masked.as_deref()),
        (Some(30), false, Some("+1415*****07"))
    );
    assert!(
        last.timings.placed_ms < last.timings.answered_ms
            && last.timings.answered_ms < last.timings.ended_ms
    );
    assert_eq!(last.context.entries()["flow"], "login");

    let posts = bench.caller.posts();
    assert_eq!(posts.len(), 1);
    assert_eq!(
        (posts[0].to.expose(), posts[0].from.expose()),
        (number(7).as_str(), "+12025550123")
    );
    assert_eq!(posts[0].account, account(1));
    let script = posts[0]
        .script
        .as_ref()
        .expect("it says what it has to say by itself");
    let said: String = script
        .parts
        .iter()
        .filter_map(|part| {
            if let Part::Symbol(word) = part {
                Some(word.as_str())
            } else {
                None
            }
        })
        .collect();
    assert_eq!(said, "AoneBtwo".repeat(3));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        bench.ledger.outbox_len(),
        0,
        "what is published is forgotten"
    );
    assert_eq!(worker.engine.holds(), 0, "what is over is let go of");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_ending_of_a_call_is_the_deliverys() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    let endings = [
        (Then::Ends(CallStatus::Busy), "busy", Some(ReasonCode::Busy)),
        (
            Then::Ends(CallStatus::NoAnswer),
            "no_answer",
            Some(ReasonCode::NoAnswer),
        ),
        (
            Then::Ends(CallStatus::Failed),
            "failed",
            Some(ReasonCode::CarrierFailed),
        ),
        (
            Then::Ends(CallStatus::Canceled),
            "cancelled",
            Some(ReasonCode::CanceledAtProvider),
        ),
        (
            Then::Talks(Duration::from_secs(2)),
            "hung_up",
            Some(ReasonCode::HungUp),
        ),
        (Then::Talks(Duration::from_secs(40)), "delivered", None),
    ];
    for (n, (then, word, reason)) in (1..).zip(endings) {
        bench.caller.answers(
            &number(n),
            &[Answer::Takes(Life {
                then,
                ..Life::default()
            })],
        );
        worker.take(&[Ask::new("acme", word).calling(n)]).await;
        let told = bench.ended(word).await;
        assert_eq!(words(&told).last(), Some(&word));
        assert_eq!(
            told.last()
                .unwrap()
                .reason
                .as_ref()
                .map(|reason| reason.code),
            reason
        );
    }
    assert_eq!(bench.caller.posts().len(), endings.len());
}

#[tokio::test(start_paused = true)]
async fn a_repeat_calls_nobody_and_other_content_is_dead() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    let ask = Ask::new("acme", "a");
    let (same, other) = (
        ask.incoming(bench.now()),
        ask.clone().reading("111111").incoming(bench.now()),
    );
    let group = [ask.incoming(bench.now()), same];
    assert_eq!(
        worker.take_in(&group).await,
        [Disposition::Done, Disposition::Done]
    );
    let conflict = Disposition::Dead(Dead::ConflictingDuplicate);
    assert_eq!(
        worker.take_in(std::slice::from_ref(&other)).await,
        [conflict]
    );
    bench.ended("a").await;
    worker.take(&[ask]).await;
    assert_eq!(worker.take_in(&[other]).await, [conflict]);
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(bench.caller.posts().len(), 1);
    assert_eq!(
        bench.told(&key("acme", "a")).len(),
        5,
        "a repeat says nothing, before the end or after"
    );
}

#[tokio::test(start_paused = true)]
async fn in_test_mode_nobody_is_called() {
    let bench = Bench::new();
    bench.directory.save(
        "acme",
        &Draft {
            test_mode: true,
            ..draft(1, 1.0)
        },
    );
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended("a").await;
    assert_eq!(words(&told), ["accepted", "delivered"]);
    assert!(told.iter().all(|data| data.test && data.call_sid.is_none()));
    assert!(bench.caller.posts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_taken_on_is_rejected_at_once_and_says_why() {
    let bench = Bench::new();
    bench.directory.save(
        "silent",
        &Draft {
            enabled: false,
            ..draft(2, 1.0)
        },
    );
    bench.directory.save(
        "spanish",
        &Draft {
            allowed_countries: vec!["ES".to_owned()],
            ..draft(3, 1.0)
        },
    );
    let worker = bench.worker("one").await;
    let cases = [
        (
            Ask::new("ghost", "a"),
            "rejected",
            ReasonCode::UnknownTenant,
        ),
        (
            Ask::new("silent", "a"),
            "rejected",
            ReasonCode::VoiceDisabled,
        ),
        (
            Ask::new("spanish", "a"),
            "rejected",
            ReasonCode::DestinationNotAllowed,
        ),
        (
            Ask::new("acme", "short").reading("12"),
            "rejected",
            ReasonCode::InvalidRequest,
        ),
        (
            Ask::new("acme", "long").living(Duration::from_hours(2)),
            "rejected",
            ReasonCode::InvalidRequest,
        ),
        (
            Ask::new("acme", "late").living(Duration::from_secs(29)),
            "expired",
            ReasonCode::ExpiredOnArrival,
        ),
    ];
    let start = bench.now();
    for (ask, word, code) in cases {
        worker.take(std::slice::from_ref(&ask)).await;
        let told = bench.ended_of(&ask.key()).await;
        assert_eq!(words(&told), [word]);
        assert_eq!(
            told[0].reason.as_ref().map(|reason| reason.code),
            Some(code)
        );
    }
    assert!(bench.now() < start + Duration::from_secs(1));
    assert!(bench.caller.posts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_tenants_credentials_are_proven_by_its_first_call() {
    let bench = Bench::new();
    let unproven = bench.directory.save("bell", &draft(2, 1.0));
    let worker = bench.worker("one").await;
    bench
        .caller
        .answers(&number(1), &[Answer::Fails(Class::Transient)]);
    worker
        .take(&[Ask::new("bell", "a"), Ask::new("bell", "b").calling(2)])
        .await;
    for id in ["a", "b"] {
        assert_eq!(
            steps(&bench.ended_of(&key("bell", id)).await).last(),
            Some(&"delivered")
        );
    }
    let settings = bench.directory.present(&unproven.tenant_id).unwrap();
    assert_eq!(
        settings.pace_key,
        account(2).as_str(),
        "from now on it shares the account's pace"
    );
    assert_eq!(bench.caller.posts().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn settings_that_changed_untold_are_read_again() {
    let bench = Bench::new();
    let worker = bench.worker_with_directory("one").await;
    let acme = TenantId::parse("acme").unwrap();
    bench
        .directory
        .settings(std::slice::from_ref(&acme))
        .await
        .unwrap();
    bench.directory.save_untold(
        "acme",
        &Draft {
            from: "+12025550199".to_owned(),
            ..draft(1, 1.0)
        },
    );
    worker.take(&[Ask::new("acme", "a")]).await;
    bench.ended("a").await;
    assert_eq!(bench.caller.posts()[0].from.expose(), "+12025550199");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_deleted_meanwhile_gets_no_more_calls() {
    let bench = Bench::new();
    let worker = bench.worker_with_directory("one").await;
    worker
        .take(&[Ask::new("acme", "a"), Ask::new("acme", "b").calling(2)])
        .await;
    bench.until_told("a", "placed").await;
    bench.directory.delete(&TenantId::parse("acme").unwrap());
    let told = bench.ended("b").await;
    assert_eq!(words(&told), ["accepted", "rejected"]);
    assert_eq!(
        told[1].reason.as_ref().unwrap().code,
        ReasonCode::UnknownTenant
    );
    assert_eq!(bench.caller.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_callback_may_be_faster_than_the_answer_to_the_post() {
    let bench = Bench::new();
    bench.caller.set_latency(Duration::from_secs(3));
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let attempt = bench.caller.posts()[0].attempt_id;
    let ringing: Call = bench.caller.calls().remove(0);
    assert_eq!(ringing.status, CallStatus::Ringing);
    for _ in 0..2 {
        let found = bench
            .ledger
            .find_attempt(attempt)
            .await
            .unwrap()
            .expect("the attempt is known");
        worker.engine.news(found, attempt, &ringing).await;
    }
    let told = bench.ended("a").await;
    assert_eq!(
        words(&told),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(worker.engine.counts().strays.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn an_entered_code_is_noted_and_changes_nothing() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    let group = [
        verified("acme", "a", bench.now()),
        verified("acme", "unknown", bench.now()),
    ];
    assert_eq!(
        worker.take_in(&group).await,
        [Disposition::Done, Disposition::Done]
    );
    assert_eq!(words(&bench.ended("a").await).last(), Some(&"delivered"));
}
