//! Twilio, as workers see it: the client over HTTP to the simulator, and the telephony port in
//! memory.

mod stage;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use uuid::Uuid;
use voice_otp::account::CallSid;
use voice_otp::call::failure::{CallFailure, Class};
use voice_otp::call::{Call, CallStatus};
use voice_otp::delivery::AttemptId;
use voice_otp::ports::{CallRequest, Instructions, Telephony as _};
use voice_otp::settings::{Draft, VoiceSettings};
use voice_otp::speech::{Speaker, SpeechStyle};
use voice_otp_schemas::{OtpCode, PhoneNumber, TenantId};
use voice_otp_twilio::client::{self, Client};

use self::stage::{HttpStage, MemoryStage, NextCall, Stage};
use crate::memory::sample::{draft, number};

on_both!(super::MemoryStage, super::HttpStage:
    a_call_is_placed_and_followed_to_its_end,
    a_busy_line_and_an_unanswered_phone_are_distinguished,
    two_requests_place_two_calls,
    a_throttled_request_places_no_call_and_returns_the_wait,
    a_call_whose_answer_was_lost_is_listed_and_one_that_was_not_placed_is_not,
    calls_between_the_two_numbers_are_listed_and_no_others_the_newest_first,
    another_accounts_calls_are_invisible,
    an_unanswered_call_can_be_cancelled_and_an_answered_one_only_hung_up,
    a_completed_call_cannot_be_hung_up,
);

fn settings(draft: &Draft) -> VoiceSettings {
    draft
        .check(TenantId::parse("acme").unwrap())
        .expect("the draft is valid")
}

fn tenant() -> VoiceSettings {
    settings(&draft(1, 1.0))
}

fn to(n: u32) -> PhoneNumber {
    PhoneNumber::parse(&number(n)).unwrap()
}

async fn place<S: Stage>(
    stage: &S,
    tenant: &VoiceSettings,
    to: &PhoneNumber,
) -> Result<Call, CallFailure> {
    let style = SpeechStyle::default();
    let script = Speaker::new(None, None, to.country(), &style)
        .message(&OtpCode::parse("493027").unwrap(), Duration::ZERO);
    let request = CallRequest {
        to,
        instructions: Instructions::Inline(&script),
        ring_timeout: Duration::from_secs(30),
        limit: Duration::from_mins(3),
        extension: None,
        attempt_id: AttemptId(Uuid::new_v4()),
    };
    stage.telephony().place(tenant, &request).await
}

/// Waits until the call has this status, for up to two minutes of the call's time. Returns the
/// statuses seen on the way, too.
async fn until<S: Stage>(
    stage: &S,
    tenant: &VoiceSettings,
    sid: &CallSid,
    status: CallStatus,
) -> (Call, Vec<CallStatus>) {
    let mut seen = Vec::new();
    for _ in 0..120 {
        let call = stage
            .telephony()
            .fetch(tenant, sid)
            .await
            .expect("the call can be read");
        assert_eq!(&call.sid, sid);
        if seen.last() != Some(&call.status) {
            seen.push(call.status);
        }
        if call.status == status {
            return (call, seen);
        }
        stage.pass_a_second().await;
    }
    panic!("never {status:?}: {seen:?}");
}

/// The call list once it has this many calls, within half a minute of the calls' time.
async fn listed<S: Stage>(
    stage: &S,
    tenant: &VoiceSettings,
    to: &PhoneNumber,
    wanted: usize,
) -> Vec<Call> {
    for _ in 0..30 {
        let calls = stage
            .telephony()
            .list(tenant, to)
            .await
            .expect("calls can be listed");
        if calls.len() == wanted {
            return calls;
        }
        stage.pass_a_second().await;
    }
    panic!("the list never had {wanted} calls");
}

async fn a_call_is_placed_and_followed_to_its_end<S: Stage>(stage: &mut S) {
    stage.next(&number(1), NextCall::Answered);
    let requested_at = stage.now();
    let call = place(stage, &tenant(), &to(1))
        .await
        .expect("the call is accepted");
    assert_eq!(call.status, CallStatus::Queued);
    assert!(call.outbound_api);
    let created_at = call.created_at.expect("Twilio reports when");
    let skew = Duration::from_secs(2);
    assert!(
        created_at >= requested_at - skew && created_at <= stage.now() + skew,
        "{created_at} for {requested_at}"
    );
    let (ended, seen) = until(stage, &tenant(), &call.sid, CallStatus::Completed).await;
    assert!(seen.is_sorted(), "a status never goes back: {seen:?}");
    assert!(
        ended.duration_s.is_some_and(|seconds| seconds > 5),
        "{ended:?}"
    );
}

async fn a_busy_line_and_an_unanswered_phone_are_distinguished<S: Stage>(stage: &mut S) {
    for (n, what, status) in [
        (1, NextCall::Busy, CallStatus::Busy),
        (2, NextCall::NoAnswer, CallStatus::NoAnswer),
    ] {
        stage.next(&number(n), what);
        let call = place(stage, &tenant(), &to(n))
            .await
            .expect("the call is accepted");
        let (_, seen) = until(stage, &tenant(), &call.sid, status).await;
        assert!(
            !seen.contains(&CallStatus::InProgress),
            "the call was not answered: {seen:?}"
        );
    }
}

async fn two_requests_place_two_calls<S: Stage>(stage: &mut S) {
    let mut sids = HashSet::new();
    for _ in 0..3 {
        sids.insert(
            place(stage, &tenant(), &to(1))
                .await
                .expect("the call is accepted")
                .sid,
        );
    }
    assert_eq!(sids.len(), 3, "Twilio does not deduplicate");
    listed(stage, &tenant(), &to(1), 3).await;
}

async fn a_throttled_request_places_no_call_and_returns_the_wait<S: Stage>(stage: &mut S) {
    stage.next(&number(1), NextCall::Throttled);
    let failure = place(stage, &tenant(), &to(1))
        .await
        .expect_err("the request is refused");
    assert_eq!(failure.class, Class::Throttled(None));
    stage.next(&number(1), NextCall::ThrottledForOneSecond);
    let failure = place(stage, &tenant(), &to(1))
        .await
        .expect_err("the request is refused");
    assert_eq!(
        failure.class,
        Class::Throttled(Some(Duration::from_secs(1)))
    );
    for _ in 0..10 {
        stage.pass_a_second().await;
    }
    assert!(
        stage
            .telephony()
            .list(&tenant(), &to(1))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn a_call_whose_answer_was_lost_is_listed_and_one_that_was_not_placed_is_not<S: Stage>(
    stage: &mut S,
) {
    stage.next(&number(1), NextCall::PlacedWithoutAnswer);
    stage.next(&number(2), NextCall::NotPlacedWithoutAnswer);
    for n in [1, 2] {
        let failure = place(stage, &tenant(), &to(n))
            .await
            .expect_err("the request gets no answer");
        assert_eq!(failure.class, Class::Ambiguous, "{n}: {failure:?}");
    }
    let found = listed(stage, &tenant(), &to(1), 1).await.remove(0);
    assert!(
        found.outbound_api && found.created_at.is_some(),
        "{found:?}"
    );
    assert_eq!(
        stage
            .telephony()
            .fetch(&tenant(), &found.sid)
            .await
            .unwrap()
            .sid,
        found.sid
    );
    for _ in 0..10 {
        stage.pass_a_second().await;
    }
    assert!(
        stage
            .telephony()
            .list(&tenant(), &to(2))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn calls_between_the_two_numbers_are_listed_and_no_others_the_newest_first<S: Stage>(
    stage: &mut S,
) {
    let other_number = settings(&Draft {
        from: "+12025550124".to_owned(),
        ..draft(1, 1.0)
    });
    let first = place(stage, &tenant(), &to(1)).await.unwrap();
    place(stage, &tenant(), &to(2)).await.unwrap();
    place(stage, &other_number, &to(1)).await.unwrap();
    stage.pass_a_second().await;
    let last = place(stage, &tenant(), &to(1)).await.unwrap();
    let sids: Vec<CallSid> = listed(stage, &tenant(), &to(1), 2)
        .await
        .into_iter()
        .map(|call| call.sid)
        .collect();
    assert_eq!(sids, [last.sid, first.sid]);
}

async fn another_accounts_calls_are_invisible<S: Stage>(stage: &mut S) {
    let other_account = settings(&draft(2, 1.0));
    let call = place(stage, &tenant(), &to(1)).await.unwrap();
    listed(stage, &tenant(), &to(1), 1).await;
    assert!(
        stage
            .telephony()
            .list(&other_account, &to(1))
            .await
            .unwrap()
            .is_empty()
    );
    for result in [
        stage.telephony().fetch(&other_account, &call.sid).await,
        stage
            .telephony()
            .hang_up(&other_account, &call.sid, true)
            .await,
    ] {
        assert!(matches!(
            result.expect_err("the call is another account's").class,
            Class::Permanent(_)
        ));
    }
    assert!(
        !stage
            .telephony()
            .fetch(&tenant(), &call.sid)
            .await
            .unwrap()
            .status
            .is_finished(),
        "the call goes on"
    );
}

async fn an_unanswered_call_can_be_cancelled_and_an_answered_one_only_hung_up<S: Stage>(
    stage: &mut S,
) {
    stage.next(&number(1), NextCall::NoAnswer);
    let call = place(stage, &tenant(), &to(1)).await.unwrap();
    let ended = stage
        .telephony()
        .hang_up(&tenant(), &call.sid, false)
        .await
        .expect("the call is not answered");
    assert_eq!(ended.status, CallStatus::Canceled);
    assert_eq!(
        stage
            .telephony()
            .fetch(&tenant(), &call.sid)
            .await
            .unwrap()
            .status,
        CallStatus::Canceled
    );

    let call = place(stage, &tenant(), &to(2)).await.unwrap();
    until(stage, &tenant(), &call.sid, CallStatus::InProgress).await;
    stage
        .telephony()
        .hang_up(&tenant(), &call.sid, false)
        .await
        .expect_err("the call is answered");
    let ended = stage
        .telephony()
        .hang_up(&tenant(), &call.sid, true)
        .await
        .expect("the call is in progress");
    assert_eq!(ended.status, CallStatus::Completed);
}

async fn a_completed_call_cannot_be_hung_up<S: Stage>(stage: &mut S) {
    stage.next(&number(1), NextCall::Busy);
    let call = place(stage, &tenant(), &to(1)).await.unwrap();
    until(stage, &tenant(), &call.sid, CallStatus::Busy).await;
    for even_answered in [false, true] {
        let failure = stage
            .telephony()
            .hang_up(&tenant(), &call.sid, even_answered)
            .await
            .expect_err("the call has ended");
        assert!(matches!(failure.class, Class::Permanent(_)), "{failure:?}");
    }
    assert_eq!(
        stage
            .telephony()
            .fetch(&tenant(), &call.sid)
            .await
            .unwrap()
            .status,
        CallStatus::Busy
    );
}

#[tokio::test]
async fn wrong_credentials_are_distinguished_from_other_refusals() {
    let stage = HttpStage::new().await;
    let wrong = settings(&Draft {
        auth_token: SecretString::from("not-the-token-at-all"),
        ..draft(1, 1.0)
    });
    let failure = place(&stage, &wrong, &to(1))
        .await
        .expect_err("Twilio rejects the credentials");
    assert_eq!(
        (failure.class.as_str(), failure.provider_code),
        ("credentials", Some(20003))
    );
    stage.close().await;
}

/// The class of a failed request to this address, whose connection may take as long as the request.
async fn class_of_failure(address: SocketAddr) -> Class {
    let stage = HttpStage::new().await;
    let timeout = Duration::from_secs(1);
    let client = Client::new(client::Settings {
        base_url: Some(format!("http://{address}").parse().unwrap()),
        public_url: None,
        connect_timeout: timeout,
        timeout,
    })
    .unwrap();
    let failed = place(&stage.with_client(client), &tenant(), &to(1)).await;
    stage.close().await;
    failed.expect_err("there is no Twilio").class
}

#[tokio::test]
async fn an_unreachable_twilio_has_placed_no_call_for_certain() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    assert_eq!(class_of_failure(address).await, Class::Transient);
}

#[tokio::test]
async fn a_twilio_that_completes_no_connection_has_placed_no_call_for_certain() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    loop {
        let connecting = TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_millis(200), connecting).await {
            Ok(connected) => waiting.push(connected.unwrap()),
            Err(_) => break,
        }
    }
    assert_eq!(class_of_failure(address).await, Class::Transient);
}
