//! The telephony ports under test, and the Twilio behind each.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp::call::CallStatus;
use voice_otp::call::failure::Class;
use voice_otp::ports::Telephony;
use voice_otp_schemas::Timestamp;
use voice_otp_simulator::{self as simulator, Account, Fate, Simulator};
use voice_otp_twilio::client::{self, Client};

use crate::memory::clock::ManualClock;
use crate::memory::sample::account;
use crate::memory::{Answer, CallEnd, CallTimeline, MemoryTelephony};

/// What happens to the next request to call a number.
#[derive(Debug, Clone, Copy)]
pub(super) enum NextCall {
    /// A person answers and listens.
    Answered,
    Busy,
    /// The phone rings for half a minute and isn't answered.
    NoAnswer,
    /// Twilio answers 429 without `Retry-After`.
    Throttled,
    /// Twilio answers 429 with a `Retry-After` of one second.
    ThrottledForOneSecond,
    /// The call is placed, and the request gets no answer.
    PlacedWithoutAnswer,
    /// No call is placed, and the answer doesn't show it.
    NotPlacedWithoutAnswer,
}

/// A telephony port under test, and the Twilio behind it.
pub(super) trait Stage {
    type Telephony: Telephony;

    fn telephony(&self) -> &Self::Telephony;

    /// Sets what happens to the next request to call this number.
    fn next(&self, to: &str, what: NextCall);

    /// Lets one second pass for the calls.
    async fn pass_a_second(&self);

    /// The time at Twilio.
    fn now(&self) -> Timestamp;
}

pub(super) struct MemoryStage {
    telephony: MemoryTelephony,
    clock: ManualClock,
}

impl MemoryStage {
    pub(super) fn new() -> Self {
        let clock = ManualClock::new();
        let telephony = MemoryTelephony::new(clock.reader());
        telephony.set_silence(Duration::from_millis(20));
        Self { telephony, clock }
    }
}

impl Stage for MemoryStage {
    type Telephony = MemoryTelephony;

    fn telephony(&self) -> &MemoryTelephony {
        &self.telephony
    }

    fn next(&self, to: &str, what: NextCall) {
        let ending = |status| CallTimeline {
            ringing: Duration::from_secs(30),
            end: CallEnd::Unanswered(status),
            ..CallTimeline::default()
        };
        let answer = match what {
            NextCall::Answered => Answer::Accepts(CallTimeline::default()),
            NextCall::Busy => Answer::Accepts(ending(CallStatus::Busy)),
            NextCall::NoAnswer => Answer::Accepts(ending(CallStatus::NoAnswer)),
            NextCall::Throttled => Answer::Fails(Class::Throttled(None)),
            NextCall::ThrottledForOneSecond => {
                Answer::Fails(Class::Throttled(Some(Duration::from_secs(1))))
            }
            NextCall::PlacedWithoutAnswer => Answer::AcceptsSilently(CallTimeline::default()),
            NextCall::NotPlacedWithoutAnswer => Answer::DropsSilently,
        };
        self.telephony.answers(to, &[answer]);
    }

    async fn pass_a_second(&self) {
        self.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The client, over HTTP, to the simulator.
pub(super) struct HttpStage {
    client: Client,
    simulator: Simulator,
    shutdown: CancellationToken,
}

/// How many times faster than real time the simulated calls are.
const SPEED: u32 = 20;

impl HttpStage {
    pub(super) async fn new() -> Self {
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
        let (simulator, shutdown) = (Simulator::new(settings), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        TaskTracker::new().spawn(simulator.clone().serve(listener, shutdown.clone()));
        let settings = client::Settings {
            base_url: Some(base_url),
            public_url: None,
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        };
        Self {
            client: Client::new(settings).unwrap(),
            simulator,
            shutdown,
        }
    }

    /// A stage with this client and the same simulator.
    pub(super) fn with_client(&self, client: Client) -> Self {
        Self {
            client,
            simulator: self.simulator.clone(),
            shutdown: CancellationToken::new(),
        }
    }

    #[expect(clippy::unused_async, reason = "every real stage closes like this")]
    pub(super) async fn close(self) {
        self.shutdown.cancel();
    }
}

impl Stage for HttpStage {
    type Telephony = Client;

    fn telephony(&self) -> &Client {
        &self.client
    }

    fn next(&self, to: &str, what: NextCall) {
        let fate = match what {
            NextCall::Answered => Fate::Answers,
            NextCall::Busy => Fate::Busy,
            NextCall::NoAnswer => Fate::NoAnswer,
            NextCall::Throttled => Fate::Throttled,
            NextCall::ThrottledForOneSecond => Fate::ThrottledRetryAfter,
            NextCall::PlacedWithoutAnswer => Fate::Unanswered,
            NextCall::NotPlacedWithoutAnswer => Fate::ErrorNotAccepted,
        };
        self.simulator.set_fate(to, fate, Some(1));
    }

    async fn pass_a_second(&self) {
        tokio::time::sleep(Duration::from_secs(1) / SPEED).await;
    }

    fn now(&self) -> Timestamp {
        std::time::SystemTime::now().into()
    }
}
