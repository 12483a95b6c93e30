//! Calls that ask what to say: the code is read to whom the tenant wants it read, and to nobody else.

use std::time::Duration;

use voice_otp::answer::{Answer as Told, Asked, Turn};
use voice_otp::delivery::AttemptId;
use voice_otp::engine::News;
use voice_otp::policy::{Again, Outcome, Voicemail};
use voice_otp::ports::Ledger as _;
use voice_otp::progress::{Call, CallStatus};
use voice_otp_schemas::reason::ReasonCode;

use super::bench::{Bench, Worker};
use crate::memory::sample::{Ask, cancelled, draft, number};
use crate::memory::{Answer, Life, Then};

fn bench(policy: Voicemail) -> Bench {
    let bench = Bench::new();
    bench.caller.set_callbacks();
    let mut draft = draft(1, 1.0);
    draft.voicemail = policy;
    let settings = bench.directory.save("acme", &draft);
    bench.directory.prove(&settings);
    bench
}

/// A worker, and a call that was answered.
async fn answered(bench: &Bench) -> (Worker, AttemptId, Call) {
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    bench.until_told("a", "placed").await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let (attempt, call) = bench.caller.calls_of_attempts().remove(0);
    assert_eq!(call.status, CallStatus::InProgress);
    (worker, attempt, call)
}

async fn ask(
    bench: &Bench,
    worker: &Worker,
    attempt: AttemptId,
    call: &Call,
    turn: Turn,
    digits: Option<&str>,
) -> Told {
    let found = bench.ledger.find_attempt(attempt).await.unwrap().unwrap();
    let asked = Asked {
        turn,
        digits: digits.map(str::to_owned),
        listened: None,
    };
    worker
        .engine
        .answer(found, attempt, call, &asked)
        .await
        .expect("it isn't stopping")
}

fn by(call: &Call, answered_by: &str) -> Call {
    Call {
        answered_by: Some(answered_by.to_owned()),
        ..call.clone()
    }
}

/// What is said, all of it.
fn words(told: &Told) -> String {
    match told {
        Told::Say(script) => script.text(),
        Told::UntilKey { prompts, last, .. } => prompts
            .iter()
            .chain([last])
            .map(|script| script.text() + "\n")
            .collect(),
        Told::HangUp => String::new(),
    }
}

const CODE: &str = "four nine three zero two seven";

#[tokio::test(start_paused = true)]
async fn the_code_is_read_only_to_who_presses_the_key() {
    let bench = bench(Voicemail::PressKey);
    let (worker, attempt, call) = answered(&bench).await;
    let post = &bench.caller.posts()[0];
    assert_eq!(
        (post.script.is_none(), post.policy),
        (true, Some(Voicemail::PressKey)),
        "no code goes to Twilio beforehand"
    );
    let question = ask(
        &bench,
        &worker,
        attempt,
        &call,
        Turn::Answered(Voicemail::PressKey),
        None,
    )
    .await;
    assert!(
        words(&question).contains("press one") && !words(&question).contains("four"),
        "{}",
        words(&question)
    );
    let Told::UntilKey { turn, .. } = question else {
        panic!("no question")
    };
    let wrong = ask(&bench, &worker, attempt, &call, turn, Some("7")).await;
    assert!(words(&wrong).contains("press one") && !words(&wrong).contains("four"));
    let Told::UntilKey { turn, .. } = wrong else {
        panic!("no question")
    };
    let mut turn = turn;
    // Three readings, and no more.
    for reading in 1..=3 {
        let read = ask(&bench, &worker, attempt, &call, turn, Some("1")).await;
        assert_eq!(words(&read).matches(CODE).count(), 1);
        match (reading, read) {
            (1 | 2, Told::UntilKey { turn: next, .. }) => turn = next,
            (3, Told::Say(_)) => {}
            (_, other) => panic!("reading {reading}: {other:?}"),
        }
    }
    assert_eq!(
        bench.ended("a").await.last().unwrap().status.as_str(),
        "delivered"
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_pressed_counts_however_soon_the_call_ends() {
    let bench = bench(Voicemail::PressKey);
    bench.caller.answers(
        &number(1),
        &[Answer::Takes(Life {
            then: Then::Talks(Duration::from_secs(3)),
            ..Life::default()
        })],
    );
    let (worker, attempt, call) = answered(&bench).await;
    ask(
        &bench,
        &worker,
        attempt,
        &call,
        Turn::Key {
            reading: 1,
            wrong: 0,
        },
        Some("1"),
    )
    .await;
    assert_eq!(
        bench.ended("a").await.last().unwrap().status.as_str(),
        "delivered"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_key_no_code_and_no_delivery() {
    let bench = bench(Voicemail::PressKey);
    let (worker, attempt, call) = answered(&bench).await;
    let mut turn = Turn::Answered(Voicemail::PressKey);
    for _ in 0..3 {
        let Told::UntilKey { turn: next, .. } =
            ask(&bench, &worker, attempt, &call, turn, Some("9")).await
        else {
            break;
        };
        turn = next;
    }
    let Told::Say(last) = ask(&bench, &worker, attempt, &call, turn, Some("9")).await else {
        panic!("it asks for ever")
    };
    assert_eq!(last.text(), "Goodbye.");
    let told = bench.ended("a").await;
    let last = told.last().unwrap();
    assert_eq!(
        (last.status.as_str(), last.reason.as_ref().unwrap().code),
        ("hung_up", ReasonCode::NoKey)
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_told_nothing_where_the_policy_is_to_hang_up() {
    let bench = bench(Voicemail::HangUp);
    let (worker, attempt, call) = answered(&bench).await;
    assert_eq!(bench.caller.posts()[0].policy, Some(Voicemail::HangUp));
    // That somebody answered is known before it is known who.
    let found = bench.ledger.find_attempt(attempt).await.unwrap().unwrap();
    assert_eq!(worker.engine.news(found, attempt, &call).await, News::Taken);
    let told = ask(
        &bench,
        &worker,
        attempt,
        &by(&call, "machine_start"),
        Turn::Answered(Voicemail::HangUp),
        None,
    )
    .await;
    assert!(matches!(told, Told::HangUp));
    // Also when it asks once more.
    let told = ask(
        &bench,
        &worker,
        attempt,
        &call,
        Turn::Answered(Voicemail::HangUp),
        None,
    )
    .await;
    assert!(matches!(told, Told::HangUp));
    let told = bench.ended("a").await;
    let last = told.last().unwrap();
    assert_eq!(
        (last.status.as_str(), last.reason.as_ref().unwrap().code),
        ("voicemail", ReasonCode::Voicemail)
    );
    assert_eq!(last.answered_by.as_deref(), Some("machine_start"));
}

#[tokio::test(start_paused = true)]
async fn a_person_is_told_the_code_and_the_time_of_listening_does_not_count_as_heard() {
    let bench = bench(Voicemail::HangUp);
    // Seven seconds go by before it asks, so of ten the person has heard three.
    let talks = |seconds| {
        Answer::Takes(Life {
            then: Then::Talks(Duration::from_secs(seconds)),
            ..Life::default()
        })
    };
    bench.caller.answers(&number(1), &[talks(14)]);
    let (worker, attempt, call) = answered(&bench).await;
    let told = ask(
        &bench,
        &worker,
        attempt,
        &by(&call, "human"),
        Turn::Answered(Voicemail::HangUp),
        None,
    )
    .await;
    assert_eq!(words(&told).matches(CODE).count(), 3);
    let told = bench.ended("a").await;
    let last = told.last().unwrap();
    assert_eq!(
        (last.status.as_str(), last.answered_by.as_deref()),
        ("delivered", Some("human"))
    );

    let bench = self::bench(Voicemail::HangUp);
    bench.caller.answers(&number(1), &[talks(14)]);
    let (worker, attempt, call) = answered(&bench).await;
    let found = bench.ledger.find_attempt(attempt).await.unwrap().unwrap();
    let asked = Asked {
        turn: Turn::Answered(Voicemail::HangUp),
        digits: None,
        listened: Some(Duration::from_secs(6)),
    };
    worker
        .engine
        .answer(found, attempt, &by(&call, "human"), &asked)
        .await
        .unwrap();
    assert_eq!(
        bench.ended("a").await.last().unwrap().status.as_str(),
        "hung_up",
        "six seconds of fourteen were Twilio's"
    );
}

#[tokio::test(start_paused = true)]
async fn after_the_beep_a_machine_is_told_and_a_fax_is_not() {
    for (answered_by, status) in [
        ("machine_end_beep", "delivered"),
        ("fax", "voicemail"),
        ("human", "delivered"),
    ] {
        let bench = bench(Voicemail::WaitForBeep);
        let (worker, attempt, call) = answered(&bench).await;
        assert_eq!(bench.caller.posts()[0].policy, Some(Voicemail::WaitForBeep));
        ask(
            &bench,
            &worker,
            attempt,
            &by(&call, answered_by),
            Turn::Answered(Voicemail::WaitForBeep),
            None,
        )
        .await;
        let told = bench.ended("a").await;
        let last = told.last().unwrap();
        assert_eq!(
            (last.status.as_str(), last.answered_by.as_deref()),
            (status, Some(answered_by))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_was_taken_back_or_is_over_says_nothing_any_more() {
    let bench = bench(Voicemail::PressKey);
    bench.caller.answers(
        &number(1),
        &[Answer::Takes(Life {
            rings: Duration::from_secs(20),
            ..Life::default()
        })],
    );
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    bench.until_told("a", "placed").await;
    let (attempt, call) = bench.caller.calls_of_attempts().remove(0);
    worker.take_in(&[cancelled("acme", "a", bench.now())]).await;
    let call = Call {
        status: CallStatus::InProgress,
        ..call
    };
    let told = ask(
        &bench,
        &worker,
        attempt,
        &call,
        Turn::Key {
            reading: 1,
            wrong: 0,
        },
        Some("1"),
    )
    .await;
    assert!(matches!(told, Told::HangUp));
    assert_eq!(
        bench.ended("a").await.last().unwrap().status.as_str(),
        "cancelled"
    );
    let told = ask(
        &bench,
        &worker,
        attempt,
        &call,
        Turn::Key {
            reading: 1,
            wrong: 0,
        },
        Some("1"),
    )
    .await;
    assert!(matches!(told, Told::HangUp), "it died with the delivery");
}

#[tokio::test(start_paused = true)]
async fn who_takes_it_back_while_twilio_listens_hears_of_no_machine_and_nobody_is_called_again() {
    let bench = Bench::new();
    bench.caller.set_callbacks();
    let mut draft = draft(1, 1.0);
    draft.voicemail = Voicemail::HangUp;
    draft.redial.set(
        Outcome::Voicemail,
        Again {
            times: 2,
            after_s: 10,
        },
    );
    let settings = bench.directory.save("acme", &draft);
    bench.directory.prove(&settings);
    let (worker, attempt, call) = answered(&bench).await;
    let found = bench.ledger.find_attempt(attempt).await.unwrap().unwrap();
    assert_eq!(worker.engine.news(found, attempt, &call).await, News::Taken);
    worker.take_in(&[cancelled("acme", "a", bench.now())]).await;
    let turn = Turn::Answered(Voicemail::HangUp);
    assert!(matches!(
        ask(
            &bench,
            &worker,
            attempt,
            &by(&call, "machine_start"),
            turn,
            None
        )
        .await,
        Told::HangUp
    ));
    assert_eq!(
        bench.ended("a").await.last().unwrap().status.as_str(),
        "cancelled"
    );
    tokio::time::sleep(Duration::from_mins(3)).await;
    assert_eq!(bench.caller.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_machine_may_be_called_again() {
    let bench = Bench::new();
    bench.caller.set_callbacks();
    let mut draft = draft(1, 1.0);
    draft.voicemail = Voicemail::HangUp;
    draft.redial.set(
        Outcome::Voicemail,
        Again {
            times: 1,
            after_s: 10,
        },
    );
    let settings = bench.directory.save("acme", &draft);
    bench.directory.prove(&settings);
    let (worker, attempt, call) = answered(&bench).await;
    ask(
        &bench,
        &worker,
        attempt,
        &by(&call, "machine_start"),
        Turn::Answered(Voicemail::HangUp),
        None,
    )
    .await;
    bench.until_told("a", "deferred").await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (attempt, call) = bench.caller.calls_of_attempts().remove(1);
    ask(
        &bench,
        &worker,
        attempt,
        &by(&call, "human"),
        Turn::Answered(Voicemail::HangUp),
        None,
    )
    .await;
    let told = bench.ended("a").await;
    let last = told.last().unwrap();
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
async fn what_the_call_was_placed_for_counts_and_not_what_the_tenant_wants_by_now() {
    let bench = bench(Voicemail::HangUp);
    let (worker, attempt, call) = answered(&bench).await;
    bench.tenant("acme", 1, 1.0);
    let told = ask(
        &bench,
        &worker,
        attempt,
        &by(&call, "machine_start"),
        Turn::Answered(Voicemail::HangUp),
        None,
    )
    .await;
    assert!(matches!(told, Told::HangUp));
    assert_eq!(
        bench.ended("a").await.last().unwrap().status.as_str(),
        "voicemail"
    );
}

#[tokio::test(start_paused = true)]
async fn an_expired_code_is_not_read_and_a_call_that_could_not_ask_is_our_fault() {
    let bench = bench(Voicemail::PressKey);
    bench.caller.answers(
        &number(1),
        &[Answer::Takes(Life {
            then: Then::Talks(Duration::from_mins(4)),
            ..Life::default()
        })],
    );
    let (worker, attempt, call) = answered(&bench).await;
    ask(
        &bench,
        &worker,
        attempt,
        &call,
        Turn::Answered(Voicemail::PressKey),
        None,
    )
    .await;
    tokio::time::sleep(Duration::from_mins(3)).await;
    let told = ask(
        &bench,
        &worker,
        attempt,
        &call,
        Turn::Key {
            reading: 1,
            wrong: 0,
        },
        Some("1"),
    )
    .await;
    assert!(matches!(told, Told::HangUp));
    assert_eq!(
        bench.ended("a").await.last().unwrap().status.as_str(),
        "expired"
    );

    let bench = self::bench(Voicemail::PressKey);
    let _answered = answered(&bench).await;
    let told = bench.ended("a").await;
    let last = told.last().unwrap();
    assert_eq!(
        (last.status.as_str(), last.reason.as_ref().unwrap().code),
        ("failed", ReasonCode::RequestRefused)
    );
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_needs_twilio_to_ask_is_refused_where_it_cannot() {
    let bench = Bench::new();
    let mut draft = draft(1, 1.0);
    draft.voicemail = Voicemail::PressKey;
    bench.directory.save("acme", &draft);
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended("a").await;
    let last = told.last().unwrap();
    assert_eq!(
        (last.status.as_str(), last.reason.as_ref().unwrap().code),
        ("rejected", ReasonCode::VoiceNotConfigured)
    );
    assert!(bench.caller.posts().is_empty());
}
