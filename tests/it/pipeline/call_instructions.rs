//! Calls that request their instructions: the code is read only where the tenant's policy allows
//! it.

mod confirmation_key;
mod machine_detection;

use std::time::Duration;

use voice_otp::call::answer::{CallInstructions, CallStep, InstructionRequest};
use voice_otp::call::{Call, CallStatus};
use voice_otp::delivery::AttemptId;
use voice_otp::ports::Ledger as _;
use voice_otp::settings::policy::Voicemail;

use super::test_bench::{TestBench, Worker};
use crate::memory::sample::{Request, draft};

fn bench_with(policy: Voicemail) -> TestBench {
    let bench = TestBench::new();
    bench.telephony.set_callbacks();
    let mut draft = draft(1, 1.0);
    draft.voicemail = policy;
    let settings = bench.directory.save("acme", &draft);
    bench.directory.verify_credentials(&settings);
    bench
}

/// A worker, and an answered call.
async fn answered(bench: &TestBench) -> (Worker, AttemptId, Call) {
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    bench.until_status("a", "placed").await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let (attempt, call) = bench.telephony.calls_of_attempts().remove(0);
    assert_eq!(call.status, CallStatus::InProgress);
    (worker, attempt, call)
}

async fn request(
    bench: &TestBench,
    worker: &Worker,
    attempt: AttemptId,
    call: &Call,
    step: CallStep,
    digits: Option<&str>,
) -> CallInstructions {
    let found = bench.ledger.find_attempt(attempt).await.unwrap().unwrap();
    let request = InstructionRequest {
        step,
        digits: digits.map(str::to_owned),
        listened: None,
    };
    worker
        .engine
        .answer(found, attempt, call, &request)
        .await
        .expect("the worker isn't stopping")
}

fn by(call: &Call, answered_by: &str) -> Call {
    Call {
        answered_by: Some(answered_by.to_owned()),
        ..call.clone()
    }
}

/// The whole text that is played.
fn text(statuses: &CallInstructions) -> String {
    match statuses {
        CallInstructions::Say(script) => script.text(),
        CallInstructions::Gather { prompts, last, .. } => prompts
            .iter()
            .chain([last])
            .map(|script| script.text() + "\n")
            .collect(),
        CallInstructions::HangUp => String::new(),
    }
}

const CODE: &str = "four nine three zero two seven";
