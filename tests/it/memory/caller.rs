//! Twilio in memory: what it answers to each POST is set by number; calls live by the clock.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use voice_otp::account::{AccountSid, CallSid};
use voice_otp::delivery::AttemptId;
use voice_otp::delivery::Price;
use voice_otp::failure::{CallFailure, Class, Fault};
use voice_otp::policy::Voicemail;
use voice_otp::ports::{CallOrder, Caller, Speech};
use voice_otp::progress::{Call, CallStatus};
use voice_otp::settings::VoiceSettings;
use voice_otp::speech::Script;
use voice_otp_schemas::{PhoneNumber, Timestamp};

use super::clock::Now;

/// What becomes of a POST.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// It makes a call.
    Takes(Life),
    /// It fails at once, and makes none.
    Fails(Class),
    /// It makes a call, and the answer is lost.
    TakesUnheard(Life),
    /// It makes none, and the answer is lost.
    Loses,
}

/// A call's life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    /// How long Twilio holds it before it dials.
    pub(crate) queued: Duration,
    /// How long it rings.
    pub(crate) rings: Duration,
    /// What then.
    pub(crate) then: Then,
}

/// What becomes of a call that has rung.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    /// Somebody answers and listens for so long.
    Talks(Duration),
    /// It is over without an answer.
    Ends(CallStatus),
}

impl Default for Life {
    /// Rings after a second, is answered after six, and over after half a minute more.
    fn default() -> Self {
        Self {
            queued: Duration::from_secs(1),
            rings: Duration::from_secs(5),
            then: Then::Talks(Duration::from_secs(30)),
        }
    }
}

/// A POST that came.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) at: Timestamp,
    pub(crate) account: AccountSid,
    pub(crate) from: PhoneNumber,
    pub(crate) to: PhoneNumber,
    pub(crate) attempt_id: AttemptId,
    /// What it says; none where it asks.
    pub(crate) script: Option<Script>,
    /// The policy that it asks by, if it asks.
    pub(crate) policy: Option<Voicemail>,
}

/// Twilio in memory. Clones are the same one.
#[derive(Clone)]
pub(crate) struct MemoryCaller {
    now: Now,
    board: Arc<Mutex<Switchboard>>,
}

struct Switchboard {
    posts: Vec<Post>,
    calls: Vec<Made>,
    /// What comes next, by number called.
    next: HashMap<String, VecDeque<Answer>>,
    /// What comes when nothing else is set.
    always: HashMap<String, Answer>,
    /// How long an answer takes.
    latency: Duration,
    /// How long an answer is waited for that doesn't come.
    silence: Duration,
    /// How long it takes a call to be listed.
    list_lag: Duration,
    /// Whether it takes us for reachable.
    callbacks: bool,
    /// How often calls were looked up, one by one and together.
    looks: (usize, usize),
}

/// How long after its end the price of a call is known.
const BILLING: Duration = Duration::from_secs(20);

/// A call that was made.
struct Made {
    sid: CallSid,
    attempt_id: AttemptId,
    account: AccountSid,
    from: PhoneNumber,
    to: PhoneNumber,
    at: Timestamp,
    life: Life,
    /// When it was hung up by request, and what it ended as.
    cut: Option<(Timestamp, CallStatus)>,
}

impl MemoryCaller {
    pub(crate) fn new(now: Now) -> Self {
        let board = Switchboard {
            posts: Vec::new(),
            calls: Vec::new(),
            next: HashMap::new(),
            always: HashMap::new(),
            latency: Duration::from_millis(20),
            silence: Duration::from_secs(2),
            list_lag: Duration::from_secs(3),
            callbacks: false,
            looks: (0, 0),
        };
        Self {
            now,
            board: Arc::new(Mutex::new(board)),
        }
    }

    /// What the next POSTs for a number meet.
    pub(crate) fn answers(&self, number: &str, answers: &[Answer]) {
        self.lock()
            .next
            .entry(number.to_owned())
            .or_default()
            .extend(answers);
    }

    /// What every other POST for a number meets.
    pub(crate) fn always(&self, number: &str, answer: Answer) {
        self.lock().always.insert(number.to_owned(), answer);
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    pub(crate) fn set_silence(&self, silence: Duration) {
        self.lock().silence = silence;
    }

    pub(crate) fn set_list_lag(&self, lag: Duration) {
        self.lock().list_lag = lag;
    }

    /// Takes us for reachable, though it never calls back: a test does.
    pub(crate) fn set_callbacks(&self) {
        self.lock().callbacks = true;
    }

    /// How often calls were looked up: one by one, and together.
    pub(crate) fn looks(&self) -> (usize, usize) {
        self.lock().looks
    }

    /// The POSTs so far, in order.
    pub(crate) fn posts(&self) -> Vec<Post> {
        self.lock().posts.clone()
    }

    /// The calls made so far, as they stand now.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let now = (self.now)();
        self.lock()
            .calls
            .iter()
            .map(|made| made.seen(now))
            .collect()
    }

    /// The calls made so far, as they stand now, and of which attempt each is.
    pub(crate) fn calls_of_attempts(&self) -> Vec<(AttemptId, Call)> {
        let now = (self.now)();
        self.lock()
            .calls
            .iter()
            .map(|made| (made.attempt_id, made.seen(now)))
            .collect()
    }

    /// From when to when each call was, and to which number.
    pub(crate) fn spans(&self) -> Vec<(String, Timestamp, Timestamp)> {
        self.lock()
            .calls
            .iter()
            .map(|made| (made.to.expose().to_owned(), made.at, made.over_at()))
            .collect()
    }

    /// How many calls were made to a number.
    pub(crate) fn calls_to(&self, number: &str) -> usize {
        self.lock()
            .calls
            .iter()
            .filter(|made| made.to.expose() == number)
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, Switchboard> {
        self.board.lock().unwrap()
    }
}

impl Switchboard {
    fn answer_to(&mut self, number: &str) -> Answer {
        let next = self.next.get_mut(number).and_then(VecDeque::pop_front);
        next.or_else(|| self.always.get(number).copied())
            .unwrap_or(Answer::Takes(Life::default()))
    }

    fn connect(
        &mut self,
        settings: &VoiceSettings,
        order: &CallOrder<'_>,
        life: Life,
        at: Timestamp,
    ) -> Call {
        let sid = CallSid::parse(&format!("CA{:032x}", self.calls.len() + 1)).unwrap();
        let (account, from) = (settings.account_sid.clone(), settings.from.clone());
        let made = Made {
            sid,
            attempt_id: order.attempt_id,
            account,
            from,
            to: order.to.clone(),
            at,
            life,
            cut: None,
        };
        let call = made.seen(at);
        self.calls.push(made);
        call
    }

    fn find(&mut self, settings: &VoiceSettings, sid: &CallSid) -> Result<&mut Made, CallFailure> {
        let found = self
            .calls
            .iter_mut()
            .find(|made| made.sid == *sid && made.account == settings.account_sid);
        found.ok_or_else(|| failure(Class::Permanent(Fault::Ours)))
    }
}

impl Made {
    fn seen(&self, now: Timestamp) -> Call {
        let (status, duration_s) = self.status(now);
        Call {
            sid: self.sid.clone(),
            status,
            answered_by: None,
            duration_s,
            sip_code: None,
            // Twilio tells the time to the second.
            created_at: chrono::DateTime::from_timestamp(self.at.timestamp(), 0),
            outbound_api: true,
            queue_time: Some(self.life.queued),
            price: self.price(now),
            trouble: None,
        }
    }

    /// Twilio knows what an answered call cost a while after its end.
    fn price(&self, now: Timestamp) -> Option<Price> {
        let answered = matches!(self.status(now).0, CallStatus::Completed);
        let price = || Price {
            amount: "-0.01400".to_owned(),
            unit: "USD".to_owned(),
        };
        (answered && now >= self.over_at() + BILLING).then(price)
    }

    fn over_at(&self) -> Timestamp {
        let talk = match self.life.then {
            Then::Talks(talk) => talk,
            Then::Ends(_) => Duration::ZERO,
        };
        let by_itself = self.at + self.life.queued + self.life.rings + talk;
        self.cut.map_or(by_itself, |(at, _)| at.min(by_itself))
    }

    fn status(&self, now: Timestamp) -> (CallStatus, Option<u32>) {
        let answered = self.life.queued + self.life.rings;
        let since = |time: Timestamp| (time - self.at).to_std().unwrap_or_default();
        let seconds = |talk: Duration| Some(u32::try_from(talk.as_secs()).unwrap());
        let age = since(now);
        match (self.cut, self.life.then) {
            (Some((at, status)), _) => (status, seconds(since(at).saturating_sub(answered))),
            _ if age < self.life.queued => (CallStatus::Queued, None),
            _ if age < answered => (CallStatus::Ringing, None),
            (None, Then::Ends(status)) => (status, Some(0)),
            (None, Then::Talks(talk)) if age < answered + talk => (CallStatus::InProgress, None),
            (None, Then::Talks(talk)) => (CallStatus::Completed, seconds(talk)),
        }
    }
}

impl Caller for MemoryCaller {
    fn has_callbacks(&self) -> bool {
        self.lock().callbacks
    }

    async fn place(
        &self,
        settings: &VoiceSettings,
        order: &CallOrder<'_>,
    ) -> Result<Call, CallFailure> {
        let (wait, result) = {
            let mut board = self.lock();
            let at = (self.now)();
            board.posts.push(Post {
                at,
                account: settings.account_sid.clone(),
                from: settings.from.clone(),
                to: order.to.clone(),
                attempt_id: order.attempt_id,
                script: match order.speech {
                    Speech::Inline(script) => Some(script.clone()),
                    Speech::Ask(_) => None,
                },
                policy: match order.speech {
                    Speech::Inline(_) => None,
                    Speech::Ask(policy) => Some(policy),
                },
            });
            match board.answer_to(order.to.expose()) {
                Answer::Takes(life) => {
                    (board.latency, Ok(board.connect(settings, order, life, at)))
                }
                Answer::Fails(class) => (board.latency, Err(failure(class))),
                Answer::TakesUnheard(life) => {
                    board.connect(settings, order, life, at);
                    (board.silence, Err(failure(Class::Ambiguous)))
                }
                Answer::Loses => (board.silence, Err(failure(Class::Ambiguous))),
            }
        };
        tokio::time::sleep(wait).await;
        result
    }

    async fn fetch(&self, settings: &VoiceSettings, sid: &CallSid) -> Result<Call, CallFailure> {
        let now = (self.now)();
        let mut board = self.lock();
        board.looks.0 += 1;
        board.find(settings, sid).map(|made| made.seen(now))
    }

    async fn fetch_all(
        &self,
        settings: &VoiceSettings,
        sids: &[CallSid],
        since: Timestamp,
    ) -> Result<Vec<Call>, CallFailure> {
        let now = (self.now)();
        let mut board = self.lock();
        board.looks.1 += 1;
        let fits = |made: &&Made| {
            made.account == settings.account_sid && made.at >= since && sids.contains(&made.sid)
        };
        let listed = board
            .calls
            .iter()
            .filter(fits)
            .filter(|made| made.at + board.list_lag <= now);
        Ok(listed.map(|made| made.seen(now)).collect())
    }

    async fn list(
        &self,
        settings: &VoiceSettings,
        to: &PhoneNumber,
    ) -> Result<Vec<Call>, CallFailure> {
        let now = (self.now)();
        let board = self.lock();
        let fits = |made: &&Made| {
            made.account == settings.account_sid && made.from == settings.from && made.to == *to
        };
        let listed = board
            .calls
            .iter()
            .rev()
            .filter(fits)
            .filter(|made| made.at + board.list_lag <= now);
        Ok(listed.map(|made| made.seen(now)).collect())
    }

    async fn hang_up(
        &self,
        settings: &VoiceSettings,
        sid: &CallSid,
        even_answered: bool,
    ) -> Result<Call, CallFailure> {
        let now = (self.now)();
        let mut board = self.lock();
        let made = board.find(settings, sid)?;
        let end = match (made.status(now).0, even_answered) {
            (CallStatus::Queued | CallStatus::Initiated | CallStatus::Ringing, _) => {
                CallStatus::Canceled
            }
            (CallStatus::InProgress, true) => CallStatus::Completed,
            _ => return Err(failure(Class::Permanent(Fault::Ours))),
        };
        made.cut = Some((now, end));
        Ok(made.seen(now))
    }
}

fn failure(class: Class) -> CallFailure {
    CallFailure {
        class,
        provider_code: None,
        http_status: None,
        request_id: None,
        tenant: "the test wants it so".to_owned(),
        operator: "the test wants it so".to_owned(),
    }
}
