//! The policy `press_key`: the code is read only after the callee has pressed the key.

use std::time::Duration;

use voice_otp::call::answer::{CallInstructions, CallStep};
use voice_otp::call::{Call, CallStatus};
use voice_otp::settings::policy::Voicemail;
use voice_otp_schemas::reason::ReasonCode;

use super::super::test_bench::TestBench;
use super::{CODE, answered, bench_with, request, text};
use crate::memory::sample::{Request, cancelled, draft, number};
use crate::memory::{Answer, CallEnd, CallTimeline};

#[tokio::test(start_paused = true)]
async fn the_code_is_read_only_after_the_key_is_pressed() {
    let bench = bench_with(Voicemail::PressKey);
    let (worker, attempt, call) = answered(&bench).await;
    let post = &bench.telephony.posts()[0];
    assert_eq!(
        (post.script.is_none(), post.policy),
        (true, Some(Voicemail::PressKey)),
        "the POST contains no code"
    );
    let prompt = request(
        &bench,
        &worker,
        attempt,
        &call,
        CallStep::Answered(Voicemail::PressKey),
        None,
    )
    .await;
    assert!(
        text(&prompt).contains("press one") && !text(&prompt).contains("four"),
        "{}",
        text(&prompt)
    );
    let CallInstructions::Gather { step, .. } = prompt else {
        panic!("no prompt")
    };
    let wrong = request(&bench, &worker, attempt, &call, step, Some("7")).await;
    assert!(text(&wrong).contains("press one") && !text(&wrong).contains("four"));
    let CallInstructions::Gather { step, .. } = wrong else {
        panic!("no prompt")
    };
    let mut step = step;
    // Three readings at most.
    for reading in 1..=3 {
        let read = request(&bench, &worker, attempt, &call, step, Some("1")).await;
        assert_eq!(text(&read).matches(CODE).count(), 1);
        match (reading, read) {
            (1 | 2, CallInstructions::Gather { step: next, .. }) => step = next,
            (3, CallInstructions::Say(_)) => {}
            (_, other) => panic!("reading {reading}: {other:?}"),
        }
    }
    assert_eq!(
        bench.until_final("a").await.last().unwrap().status.as_str(),
        "delivered"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pressed_key_counts_as_delivered_however_soon_the_call_ends() {
    let bench = bench_with(Voicemail::PressKey);
    bench.telephony.answers(
        &number(1),
        &[Answer::Accepts(CallTimeline {
            end: CallEnd::Answered(Duration::from_secs(3)),
            ..CallTimeline::default()
        })],
    );
    let (worker, attempt, call) = answered(&bench).await;
    request(
        &bench,
        &worker,
        attempt,
        &call,
        CallStep::KeyPressed {
            reading: 1,
            wrong: 0,
        },
        Some("1"),
    )
    .await;
    assert_eq!(
        bench.until_final("a").await.last().unwrap().status.as_str(),
        "delivered"
    );
}

#[tokio::test(start_paused = true)]
async fn without_the_right_key_no_code_is_read_and_nothing_is_delivered() {
    let bench = bench_with(Voicemail::PressKey);
    let (worker, attempt, call) = answered(&bench).await;
    let mut step = CallStep::Answered(Voicemail::PressKey);
    for _ in 0..3 {
        let CallInstructions::Gather { step: next, .. } =
            request(&bench, &worker, attempt, &call, step, Some("9")).await
        else {
            break;
        };
        step = next;
    }
    let CallInstructions::Say(last) =
        request(&bench, &worker, attempt, &call, step, Some("9")).await
    else {
        panic!("the call prompts forever")
    };
    assert_eq!(last.text(), "Goodbye.");
    let statuses = bench.until_final("a").await;
    let last = statuses.last().unwrap();
    assert_eq!(
        (last.status.as_str(), last.reason.as_ref().unwrap().code),
        ("hung_up", ReasonCode::NoKey)
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_or_finished_delivery_plays_nothing_more() {
    let bench = bench_with(Voicemail::PressKey);
    bench.telephony.answers(
        &number(1),
        &[Answer::Accepts(CallTimeline {
            ringing: Duration::from_secs(20),
            ..CallTimeline::default()
        })],
    );
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    bench.until_status("a", "placed").await;
    let (attempt, call) = bench.telephony.calls_of_attempts().remove(0);
    worker.process(&[cancelled("acme", "a", bench.now())]).await;
    let call = Call {
        status: CallStatus::InProgress,
        ..call
    };
    let statuses = request(
        &bench,
        &worker,
        attempt,
        &call,
        CallStep::KeyPressed {
            reading: 1,
            wrong: 0,
        },
        Some("1"),
    )
    .await;
    assert!(matches!(statuses, CallInstructions::HangUp));
    assert_eq!(
        bench.until_final("a").await.last().unwrap().status.as_str(),
        "cancelled"
    );
    let statuses = request(
        &bench,
        &worker,
        attempt,
        &call,
        CallStep::KeyPressed {
            reading: 1,
            wrong: 0,
        },
        Some("1"),
    )
    .await;
    assert!(
        matches!(statuses, CallInstructions::HangUp),
        "the URL is invalid once the delivery is final"
    );
}

#[tokio::test(start_paused = true)]
async fn an_expired_code_is_not_read_and_a_call_without_instructions_is_our_fault() {
    let bench = bench_with(Voicemail::PressKey);
    bench.telephony.answers(
        &number(1),
        &[Answer::Accepts(CallTimeline {
            end: CallEnd::Answered(Duration::from_mins(4)),
            ..CallTimeline::default()
        })],
    );
    let (worker, attempt, call) = answered(&bench).await;
    request(
        &bench,
        &worker,
        attempt,
        &call,
        CallStep::Answered(Voicemail::PressKey),
        None,
    )
    .await;
    tokio::time::sleep(Duration::from_mins(3)).await;
    let statuses = request(
        &bench,
        &worker,
        attempt,
        &call,
        CallStep::KeyPressed {
            reading: 1,
            wrong: 0,
        },
        Some("1"),
    )
    .await;
    assert!(matches!(statuses, CallInstructions::HangUp));
    assert_eq!(
        bench.until_final("a").await.last().unwrap().status.as_str(),
        "expired"
    );

    let bench = bench_with(Voicemail::PressKey);
    let _answered = answered(&bench).await;
    let statuses = bench.until_final("a").await;
    let last = statuses.last().unwrap();
    assert_eq!(
        (last.status.as_str(), last.reason.as_ref().unwrap().code),
        ("failed", ReasonCode::RequestRefused)
    );
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_needs_callbacks_is_rejected_where_twilio_cannot_reach_the_workers() {
    let bench = TestBench::new();
    let mut draft = draft(1, 1.0);
    draft.voicemail = Voicemail::PressKey;
    bench.directory.save("acme", &draft);
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench.until_final("a").await;
    let last = statuses.last().unwrap();
    assert_eq!(
        (last.status.as_str(), last.reason.as_ref().unwrap().code),
        ("rejected", ReasonCode::VoiceNotConfigured)
    );
    assert!(bench.telephony.posts().is_empty());
}
