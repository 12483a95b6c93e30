//! Twilio, as workers see it: the client over HTTP to the simulator, and the caller in memory.

use std::collections::HashSet;
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use voice_otp::account::CallSid;
use voice_otp::delivery::AttemptId;
use voice_otp::failure::{CallFailure, Class};
use voice_otp::ports::{CallOrder, Caller, Speech};
use voice_otp::progress::{Call, CallStatus};
use voice_otp::settings::{Draft, VoiceSettings};
use voice_otp::speech::{Manner, Speaker};
use voice_otp_schemas::{OtpCode, PhoneNumber, TenantId, Timestamp};
use voice_otp_twilio::client::{self, Client};
use voice_otp_twilio::simulator::{self, Account, Fate, Simulator};

use crate::memory::clock::HandClock;
use crate::memory::sample::{account, draft, number};
use crate::memory::{Answer, Life, MemoryCaller, Then};

/// What becomes of the next request to call a number.
#[derive(Debug, Clone, Copy)]
enum What {
    /// A person answers and listens.
    Answered,
    Busy,
    /// It rings for half a minute and nobody comes.
    NoAnswer,
    /// 429, without a wait.
    Throttled,
    /// 429, with a wait of a second.
    ThrottledForASecond,
    /// The call is made, and the answer says so to nobody.
    MadeUnheard,
    /// No call is made, and the answer doesn't say so.
    NotMadeUnheard,
}

/// A caller under test, and the world behind it.
trait Stage {
    type Caller: Caller;

    fn caller(&self) -> &Self::Caller;

    /// Decides what becomes of the next request to call this number.
    fn next(&self, to: &str, what: What);

    /// Lets a second of a call's life pass.
    async fn a_second(&self);

    /// The time at Twilio.
    fn now(&self) -> Timestamp;
}

struct MemoryStage {
    caller: MemoryCaller,
    clock: HandClock,
}

impl MemoryStage {
    fn new() -> Self {
        let clock = HandClock::new();
        let caller = MemoryCaller::new(clock.reader());
        caller.set_silence(Duration::from_millis(20));
        Self { caller, clock }
    }
}

impl Stage for MemoryStage {
    type Caller = MemoryCaller;

    fn caller(&self) -> &MemoryCaller {
        &self.caller
    }

    fn next(&self, to: &str, what: What) {
        let ending = |status| Life {
            rings: Duration::from_secs(30),
            then: Then::Ends(status),
            ..Life::default()
        };
        let answer = match what {
            What::Answered => Answer::Takes(Life::default()),
            What::Busy => Answer::Takes(ending(CallStatus::Busy)),
            What::NoAnswer => Answer::Takes(ending(CallStatus::NoAnswer)),
            What::Throttled => Answer::Fails(Class::Throttled(None)),
            What::ThrottledForASecond => {
                Answer::Fails(Class::Throttled(Some(Duration::from_secs(1))))
            }
            What::MadeUnheard => Answer::TakesUnheard(Life::default()),
            What::NotMadeUnheard => Answer::Loses,
        };
        self.caller.answers(to, &[answer]);
    }

    async fn a_second(&self) {
        self.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The client, over HTTP, to the simulator.
struct HttpStage {
    client: Client,
    simulator: Simulator,
    curtain: CancellationToken,
}

/// How many times faster than life the simulated calls are.
const SPEED: u32 = 20;

impl HttpStage {
    async fn new() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let accounts = [1, 2].map(|n| Account {
            numbers: vec!["+12025550123".to_owned(), "+12025550124".to_owned()],
            calls_per_second: 1e6,
            ..Account::new(account(n).as_str(), "0123456789abcdef0123456789abcdef")
        });
        let settings = simulator::Settings {
            accounts: accounts.to_vec(),
            seed: 1,
            speed: f64::from(SPEED),
        };
        let (simulator, curtain) = (Simulator::new(settings), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        TaskTracker::new().spawn(simulator.clone().serve(listener, curtain.clone()));
        let settings = client::Settings {
            base_url: Some(base_url),
            public_url: None,
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        };
        Self {
            client: Client::new(settings).unwrap(),
            simulator,
            curtain,
        }
    }

    #[expect(clippy::unused_async, reason = "every real stage closes like this")]
    async fn close(self) {
        self.curtain.cancel();
    }
}

impl Stage for HttpStage {
    type Caller = Client;

    fn caller(&self) -> &Client {
        &self.client
    }

    fn next(&self, to: &str, what: What) {
        let fate = match what {
            What::Answered => Fate::Answers,
            What::Busy => Fate::Busy,
            What::NoAnswer => Fate::NoAnswer,
            What::Throttled => Fate::Throttled,
            What::ThrottledForASecond => Fate::ThrottledRetryAfter,
            What::MadeUnheard => Fate::Unanswered,
            What::NotMadeUnheard => Fate::ErrorNotAccepted,
        };
        self.simulator.set_fate(to, fate, Some(1));
    }

    async fn a_second(&self) {
        tokio::time::sleep(Duration::from_secs(1) / SPEED).await;
    }

    fn now(&self) -> Timestamp {
        std::time::SystemTime::now().into()
    }
}

on_both!(super::MemoryStage, super::HttpStage:
    a_call_is_placed_followed_and_over,
    a_busy_line_and_nobody_there_are_told_apart,
    two_orders_are_two_calls,
    a_slowed_down_request_makes_no_call_and_brings_the_wait,
    a_call_whose_answer_was_lost_is_listed_and_one_never_made_is_not,
    only_the_calls_from_the_tenants_number_to_that_number_are_listed_the_newest_first,
    another_accounts_calls_cannot_be_seen,
    before_the_answer_a_call_can_be_cancelled_and_after_it_only_hung_up,
    a_call_that_is_over_cannot_be_hung_up,
);

fn settings(draft: &Draft) -> VoiceSettings {
    draft
        .check(TenantId::parse("acme").unwrap())
        .expect("the draft is right")
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
    let manner = Manner::default();
    let script = Speaker::new(None, None, to.country(), &manner)
        .message(&OtpCode::parse("493027").unwrap(), Duration::ZERO);
    let order = CallOrder {
        to,
        speech: Speech::Inline(&script),
        ring_timeout: Duration::from_secs(30),
        limit: Duration::from_mins(3),
        extension: None,
        attempt_id: AttemptId(Uuid::new_v4()),
    };
    stage.caller().place(tenant, &order).await
}

/// Waits until the call has this status; two minutes of its life at most. Gives what was seen on the way, too.
async fn until<S: Stage>(
    stage: &S,
    tenant: &VoiceSettings,
    sid: &CallSid,
    status: CallStatus,
) -> (Call, Vec<CallStatus>) {
    let mut seen = Vec::new();
    for _ in 0..120 {
        let call = stage
            .caller()
            .fetch(tenant, sid)
            .await
            .expect("it can be read");
        assert_eq!(&call.sid, sid);
        if seen.last() != Some(&call.status) {
            seen.push(call.status);
        }
        if call.status == status {
            return (call, seen);
        }
        stage.a_second().await;
    }
    panic!("never {status:?}: {seen:?}");
}

/// The call list, once it has caught up: half a minute at most.
async fn listed<S: Stage>(
    stage: &S,
    tenant: &VoiceSettings,
    to: &PhoneNumber,
    wanted: usize,
) -> Vec<Call> {
    for _ in 0..30 {
        let calls = stage
            .caller()
            .list(tenant, to)
            .await
            .expect("they can be listed");
        if calls.len() == wanted {
            return calls;
        }
        stage.a_second().await;
    }
    panic!("there never were {wanted} calls in the list");
}

async fn a_call_is_placed_followed_and_over<S: Stage>(stage: &mut S) {
    stage.next(&number(1), What::Answered);
    let asked_at = stage.now();
    let call = place(stage, &tenant(), &to(1)).await.expect("it is taken");
    assert_eq!(call.status, CallStatus::Queued);
    assert!(call.outbound_api);
    let created_at = call.created_at.expect("Twilio says when");
    let skew = Duration::from_secs(2);
    assert!(
        created_at >= asked_at - skew && created_at <= stage.now() + skew,
        "{created_at} for {asked_at}"
    );
    let (over, seen) = until(stage, &tenant(), &call.sid, CallStatus::Completed).await;
    assert!(seen.is_sorted(), "a call only goes forward: {seen:?}");
    assert!(
        over.duration_s.is_some_and(|seconds| seconds > 5),
        "{over:?}"
    );
}

async fn a_busy_line_and_nobody_there_are_told_apart<S: Stage>(stage: &mut S) {
    for (n, what, status) in [
        (1, What::Busy, CallStatus::Busy),
        (2, What::NoAnswer, CallStatus::NoAnswer),
    ] {
        stage.next(&number(n), what);
        let call = place(stage, &tenant(), &to(n)).await.expect("it is taken");
        let (_, seen) = until(stage, &tenant(), &call.sid, status).await;
        assert!(
            !seen.contains(&CallStatus::InProgress),
            "nobody answered: {seen:?}"
        );
    }
}

async fn two_orders_are_two_calls<S: Stage>(stage: &mut S) {
    let mut sids = HashSet::new();
    for _ in 0..3 {
        sids.insert(
            place(stage, &tenant(), &to(1))
                .await
                .expect("it is taken")
                .sid,
        );
    }
    assert_eq!(sids.len(), 3, "Twilio drops no repeats");
    listed(stage, &tenant(), &to(1), 3).await;
}

async fn a_slowed_down_request_makes_no_call_and_brings_the_wait<S: Stage>(stage: &mut S) {
    stage.next(&number(1), What::Throttled);
    let failure = place(stage, &tenant(), &to(1))
        .await
        .expect_err("it is refused");
    assert_eq!(failure.class, Class::Throttled(None));
    stage.next(&number(1), What::ThrottledForASecond);
    let failure = place(stage, &tenant(), &to(1))
        .await
        .expect_err("it is refused");
    assert_eq!(
        failure.class,
        Class::Throttled(Some(Duration::from_secs(1)))
    );
    for _ in 0..10 {
        stage.a_second().await;
    }
    assert!(
        stage
            .caller()
            .list(&tenant(), &to(1))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn a_call_whose_answer_was_lost_is_listed_and_one_never_made_is_not<S: Stage>(stage: &mut S) {
    stage.next(&number(1), What::MadeUnheard);
    stage.next(&number(2), What::NotMadeUnheard);
    for n in [1, 2] {
        let failure = place(stage, &tenant(), &to(n))
            .await
            .expect_err("nobody hears an answer");
        assert_eq!(failure.class, Class::Ambiguous, "{n}: {failure:?}");
    }
    let found = listed(stage, &tenant(), &to(1), 1).await.remove(0);
    assert!(
        found.outbound_api && found.created_at.is_some(),
        "{found:?}"
    );
    assert_eq!(
        stage
            .caller()
            .fetch(&tenant(), &found.sid)
            .await
            .unwrap()
            .sid,
        found.sid
    );
    for _ in 0..10 {
        stage.a_second().await;
    }
    assert!(
        stage
            .caller()
            .list(&tenant(), &to(2))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn only_the_calls_from_the_tenants_number_to_that_number_are_listed_the_newest_first<
    S: Stage,
>(
    stage: &mut S,
) {
    let other_number = settings(&Draft {
        from: "+12025550124".to_owned(),
        ..draft(1, 1.0)
    });
    let first = place(stage, &tenant(), &to(1)).await.unwrap();
    place(stage, &tenant(), &to(2)).await.unwrap();
    place(stage, &other_number, &to(1)).await.unwrap();
    stage.a_second().await;
    let last = place(stage, &tenant(), &to(1)).await.unwrap();
    let sids: Vec<CallSid> = listed(stage, &tenant(), &to(1), 2)
        .await
        .into_iter()
        .map(|call| call.sid)
        .collect();
    assert_eq!(sids, [last.sid, first.sid]);
}

async fn another_accounts_calls_cannot_be_seen<S: Stage>(stage: &mut S) {
    let other_account = settings(&draft(2, 1.0));
    let call = place(stage, &tenant(), &to(1)).await.unwrap();
    listed(stage, &tenant(), &to(1), 1).await;
    assert!(
        stage
            .caller()
            .list(&other_account, &to(1))
            .await
            .unwrap()
            .is_empty()
    );
    for result in [
        stage.caller().fetch(&other_account, &call.sid).await,
        stage
            .caller()
            .hang_up(&other_account, &call.sid, true)
            .await,
    ] {
        assert!(matches!(
            result.expect_err("it is not that account's").class,
            Class::Permanent(_)
        ));
    }
    assert!(
        !stage
            .caller()
            .fetch(&tenant(), &call.sid)
            .await
            .unwrap()
            .status
            .is_over(),
        "it was left alone"
    );
}

async fn before_the_answer_a_call_can_be_cancelled_and_after_it_only_hung_up<S: Stage>(
    stage: &mut S,
) {
    stage.next(&number(1), What::NoAnswer);
    let call = place(stage, &tenant(), &to(1)).await.unwrap();
    let cut = stage
        .caller()
        .hang_up(&tenant(), &call.sid, false)
        .await
        .expect("nobody has answered");
    assert_eq!(cut.status, CallStatus::Canceled);
    assert_eq!(
        stage
            .caller()
            .fetch(&tenant(), &call.sid)
            .await
            .unwrap()
            .status,
        CallStatus::Canceled
    );

    let call = place(stage, &tenant(), &to(2)).await.unwrap();
    until(stage, &tenant(), &call.sid, CallStatus::InProgress).await;
    stage
        .caller()
        .hang_up(&tenant(), &call.sid, false)
        .await
        .expect_err("somebody has answered");
    let cut = stage
        .caller()
        .hang_up(&tenant(), &call.sid, true)
        .await
        .expect("it is still going on");
    assert_eq!(cut.status, CallStatus::Completed);
}

async fn a_call_that_is_over_cannot_be_hung_up<S: Stage>(stage: &mut S) {
    stage.next(&number(1), What::Busy);
    let call = place(stage, &tenant(), &to(1)).await.unwrap();
    until(stage, &tenant(), &call.sid, CallStatus::Busy).await;
    for even_answered in [false, true] {
        let failure = stage
            .caller()
            .hang_up(&tenant(), &call.sid, even_answered)
            .await
            .expect_err("it is over");
        assert!(matches!(failure.class, Class::Permanent(_)), "{failure:?}");
    }
    assert_eq!(
        stage
            .caller()
            .fetch(&tenant(), &call.sid)
            .await
            .unwrap()
            .status,
        CallStatus::Busy
    );
}

#[tokio::test]
async fn wrong_credentials_are_told_from_other_refusals() {
    let stage = HttpStage::new().await;
    let wrong = settings(&Draft {
        auth_token: SecretString::from("not-the-token-at-all"),
        ..draft(1, 1.0)
    });
    let failure = place(&stage, &wrong, &to(1))
        .await
        .expect_err("Twilio refuses it");
    assert_eq!(
        (failure.class.word(), failure.provider_code),
        ("credentials", Some(20003))
    );
    stage.close().await;
}

#[tokio::test]
async fn a_twilio_that_cannot_be_reached_certainly_made_no_call() {
    let stage = HttpStage::new().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = Some(
        format!("http://{}", nobody.local_addr().unwrap())
            .parse()
            .unwrap(),
    );
    drop(nobody);
    let timeout = Duration::from_secs(1);
    let client = Client::new(client::Settings {
        base_url,
        public_url: None,
        connect_timeout: timeout,
        timeout,
    })
    .unwrap();
    let away = HttpStage {
        client,
        simulator: stage.simulator.clone(),
        curtain: CancellationToken::new(),
    };
    assert_eq!(
        place(&away, &tenant(), &to(1))
            .await
            .expect_err("nobody is there")
            .class,
        Class::Transient
    );
    stage.close().await;
}
