//! The policies that detect machines: `hang_up` and `wait_for_beep`.

use std::time::Duration;

use voice_otp::call::answer::{CallInstructions, CallStep, InstructionRequest};
use voice_otp::engine::UpdateOutcome;
use voice_otp::ports::Ledger as _;
use voice_otp::settings::policy::{RedialOutcome, RedialRule, Voicemail};
use voice_otp_schemas::reason::ReasonCode;

use super::super::test_bench::TestBench;
use super::{CODE, answered, bench_with, by, request, text};
use crate::memory::sample::{cancelled, draft, number};
use crate::memory::{Answer, CallEnd, CallTimeline};

#[tokio::test(start_paused = true)]
async fn a_machine_hears_nothing_under_the_policy_hang_up() {
    let bench = bench_with(Voicemail::HangUp);
    let (worker, attempt, call) = answered(&bench).await;
    assert_eq!(bench.telephony.posts()[0].policy, Some(Voicemail::HangUp));
    // A callback reports the answer before the machine is detected.
    let found = bench.ledger.find_attempt(attempt).await.unwrap().unwrap();
    assert_eq!(
        worker.engine.apply_call_update(found, attempt, &call).await,
        UpdateOutcome::Applied
    );
    let statuses = request(
        &bench,
        &worker,
        attempt,
        &by(&call, "machine_start"),
        CallStep::Answered(Voicemail::HangUp),
        None,
    )
    .await;
    assert!(matches!(statuses, CallInstructions::HangUp));
    // A second request gets the same instructions.
    let statuses = request(
        &bench,
        &worker,
        attempt,
        &call,
        CallStep::Answered(Voicemail::HangUp),
        None,
    )
    .await;
    assert!(matches!(statuses, CallInstructions::HangUp));
    let statuses = bench.until_final("a").await;
    let last = statuses.last().unwrap();
    assert_eq!(
        (last.status.as_str(), last.reason.as_ref().unwrap().code),
        ("voicemail", ReasonCode::Voicemail)
    );
    assert_eq!(last.answered_by.as_deref(), Some("machine_start"));
}

#[tokio::test(start_paused = true)]
async fn a_person_hears_the_code_and_the_time_of_machine_detection_does_not_count_as_heard() {
    let bench = bench_with(Voicemail::HangUp);
    // The call requests its instructions about 1 s after it was answered, and lasts 14 s.
    let talks = |seconds| {
        Answer::Accepts(CallTimeline {
            end: CallEnd::Answered(Duration::from_secs(seconds)),
            ..CallTimeline::default()
        })
    };
    bench.telephony.answers(&number(1), &[talks(14)]);
    let (worker, attempt, call) = answered(&bench).await;
    let statuses = request(
        &bench,
        &worker,
        attempt,
        &by(&call, "human"),
        CallStep::Answered(Voicemail::HangUp),
        None,
    )
    .await;
    assert_eq!(text(&statuses).matches(CODE).count(), 3);
    let statuses = bench.until_final("a").await;
    let last = statuses.last().unwrap();
    assert_eq!(
        (last.status.as_str(), last.answered_by.as_deref()),
        ("delivered", Some("human"))
    );

    let bench = bench_with(Voicemail::HangUp);
    bench.telephony.answers(&number(1), &[talks(14)]);
    let (worker, attempt, call) = answered(&bench).await;
    let found = bench.ledger.find_attempt(attempt).await.unwrap().unwrap();
    let request = InstructionRequest {
        step: CallStep::Answered(Voicemail::HangUp),
        digits: None,
        listened: Some(Duration::from_secs(6)),
    };
    worker
        .engine
        .answer(found, attempt, &by(&call, "human"), &request)
        .await
        .unwrap();
    assert_eq!(
        bench.until_final("a").await.last().unwrap().status.as_str(),
        "hung_up",
        "Twilio listened for 6 of the 14 seconds"
    );
}

#[tokio::test(start_paused = true)]
async fn after_the_beep_a_machine_hears_the_code_and_a_fax_does_not() {
    for (answered_by, status) in [
        ("machine_end_beep", "delivered"),
        ("fax", "voicemail"),
        ("human", "delivered"),
    ] {
        let bench = bench_with(Voicemail::WaitForBeep);
        let (worker, attempt, call) = answered(&bench).await;
        assert_eq!(
            bench.telephony.posts()[0].policy,
            Some(Voicemail::WaitForBeep)
        );
        request(
            &bench,
            &worker,
            attempt,
            &by(&call, answered_by),
            CallStep::Answered(Voicemail::WaitForBeep),
            None,
        )
        .await;
        let statuses = bench.until_final("a").await;
        let last = statuses.last().unwrap();
        assert_eq!(
            (last.status.as_str(), last.answered_by.as_deref()),
            (status, Some(answered_by))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_cancelled_during_machine_detection_is_cancelled_and_not_redialled() {
    let bench = TestBench::new();
    bench.telephony.set_callbacks();
    let mut draft = draft(1, 1.0);
    draft.voicemail = Voicemail::HangUp;
    draft.redial.set(
        RedialOutcome::Voicemail,
        RedialRule {
            times: 2,
            after_s: 10,
        },
    );
    let settings = bench.directory.save("acme", &draft);
    bench.directory.verify_credentials(&settings);
    let (worker, attempt, call) = answered(&bench).await;
    let found = bench.ledger.find_attempt(attempt).await.unwrap().unwrap();
    assert_eq!(
        worker.engine.apply_call_update(found, attempt, &call).await,
        UpdateOutcome::Applied
    );
    worker.process(&[cancelled("acme", "a", bench.now())]).await;
    let step = CallStep::Answered(Voicemail::HangUp);
    assert!(matches!(
        request(
            &bench,
            &worker,
            attempt,
            &by(&call, "machine_start"),
            step,
            None
        )
        .await,
        CallInstructions::HangUp
    ));
    assert_eq!(
        bench.until_final("a").await.last().unwrap().status.as_str(),
        "cancelled"
    );
    tokio::time::sleep(Duration::from_mins(3)).await;
    assert_eq!(bench.telephony.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_answered_by_a_machine_can_be_redialled() {
    let bench = TestBench::new();
    bench.telephony.set_callbacks();
    let mut draft = draft(1, 1.0);
    draft.voicemail = Voicemail::HangUp;
    draft.redial.set(
        RedialOutcome::Voicemail,
        RedialRule {
            times: 1,
            after_s: 10,
        },
    );
    let settings = bench.directory.save("acme", &draft);
    bench.directory.verify_credentials(&settings);
    let (worker, attempt, call) = answered(&bench).await;
    request(
        &bench,
        &worker,
        attempt,
        &by(&call, "machine_start"),
        CallStep::Answered(Voicemail::HangUp),
        None,
    )
    .await;
    bench.until_status("a", "deferred").await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (attempt, call) = bench.telephony.calls_of_attempts().remove(1);
    request(
        &bench,
        &worker,
        attempt,
        &by(&call, "human"),
        CallStep::Answered(Voicemail::HangUp),
        None,
    )
    .await;
    let statuses = bench.until_final("a").await;
    let last = statuses.last().unwrap();
    assert_eq!(
        (
            last.status.as_str(),
            last.attempt,
            last.answered_by.as_deref()
        ),
        ("delivered", 2, Some("human"))
    );
}

#[tokio::test(start_paused = true)]
async fn the_policy_that_the_call_was_placed_under_counts_and_not_the_current_one() {
    let bench = bench_with(Voicemail::HangUp);
    let (worker, attempt, call) = answered(&bench).await;
    bench.tenant("acme", 1, 1.0);
    let statuses = request(
        &bench,
        &worker,
        attempt,
        &by(&call, "machine_start"),
        CallStep::Answered(Voicemail::HangUp),
        None,
    )
    .await;
    assert!(matches!(statuses, CallInstructions::HangUp));
    assert_eq!(
        bench.until_final("a").await.last().unwrap().status.as_str(),
        "voicemail"
    );
}
