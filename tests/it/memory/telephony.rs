//! Twilio in memory. Tests set the answer to each POST by called number; calls progress with the
//! clock.

mod placed_call;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use voice_otp::account::{AccountSid, CallSid};
use voice_otp::call::Call;
use voice_otp::call::CallStatus;
use voice_otp::call::failure::{CallFailure, Class, Fault};
use voice_otp::delivery::AttemptId;
use voice_otp::ports::{CallRequest, Instructions, Telephony};
use voice_otp::settings::VoiceSettings;
use voice_otp::settings::policy::Voicemail;
use voice_otp::speech::Script;
use voice_otp_schemas::{PhoneNumber, Timestamp};

use self::placed_call::PlacedCall;
use super::clock::Now;

/// How a POST is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// A call is placed.
    Accepts(CallTimeline),
    /// The POST fails at once, and no call is placed.
    Fails(Class),
    /// A call is placed, and the answer is lost.
    AcceptsSilently(CallTimeline),
    /// A call is placed this long after the POST, and the answer is lost.
    AcceptsLate(CallTimeline, Duration),
    /// No call is placed, and the answer is lost.
    DropsSilently,
}

/// How a call progresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallTimeline {
    /// How long the call stays in Twilio's queue.
    pub(crate) queued: Duration,
    /// How long it rings.
    pub(crate) ringing: Duration,
    /// What follows the ringing.
    pub(crate) end: CallEnd,
}

/// How a call ends after it has rung.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CallEnd {
    /// The callee answers and listens for this long.
    Answered(Duration),
    /// The call ends unanswered, with this status.
    Unanswered(CallStatus),
}

impl Default for CallTimeline {
    /// Rings after 1 s, is answered after 6 s, and ends 30 s later.
    fn default() -> Self {
        Self {
            queued: Duration::from_secs(1),
            ringing: Duration::from_secs(5),
            end: CallEnd::Answered(Duration::from_secs(30)),
        }
    }
}

/// A received POST.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) at: Timestamp,
    pub(crate) account: AccountSid,
    pub(crate) from: PhoneNumber,
    pub(crate) to: PhoneNumber,
    pub(crate) attempt_id: AttemptId,
    /// The script that the call plays; `None` if it requests instructions.
    pub(crate) script: Option<Script>,
    /// The policy under which the call requests instructions, if it does.
    pub(crate) policy: Option<Voicemail>,
}

/// Twilio in memory. Clones share the same calls.
#[derive(Clone)]
pub(crate) struct MemoryTelephony {
    now: Now,
    board: Arc<Mutex<Switchboard>>,
}

struct Switchboard {
    posts: Vec<Post>,
    calls: Vec<PlacedCall>,
    /// The answers to the next POSTs, by called number.
    next: HashMap<String, VecDeque<Answer>>,
    /// The answer to all other POSTs, by called number.
    always: HashMap<String, Answer>,
    /// How long an answer takes.
    latency: Duration,
    /// How long the caller waits for an answer that is lost.
    silence: Duration,
    /// How long an answer to a query of the call list takes.
    list_latency: Duration,
    /// How long it takes until a new call is listed.
    list_lag: Duration,
    /// Whether the workers count as reachable.
    callbacks: bool,
    /// How many queries were made for one call, and for several at once.
    queries: (usize, usize),
    /// How many calls of one account are made in a second, if that is limited.
    capacity: Option<f64>,
    /// When the last POST of each account is carried out.
    busy_until: HashMap<AccountSid, Timestamp>,
}

impl MemoryTelephony {
    pub(crate) fn new(now: Now) -> Self {
        let board = Switchboard {
            posts: Vec::new(),
            calls: Vec::new(),
            next: HashMap::new(),
            always: HashMap::new(),
            latency: Duration::from_millis(20),
            silence: Duration::from_secs(2),
            list_latency: Duration::ZERO,
            list_lag: Duration::from_secs(3),
            callbacks: false,
            queries: (0, 0),
            capacity: None,
            busy_until: HashMap::new(),
        };
        Self {
            now,
            board: Arc::new(Mutex::new(board)),
        }
    }

    /// Sets the answers to the next POSTs to a number.
    pub(crate) fn answers(&self, number: &str, answers: &[Answer]) {
        self.lock()
            .next
            .entry(number.to_owned())
            .or_default()
            .extend(answers);
    }

    /// Sets the answer to all other POSTs to a number.
    pub(crate) fn always(&self, number: &str, answer: Answer) {
        self.lock().always.insert(number.to_owned(), answer);
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    pub(crate) fn set_silence(&self, silence: Duration) {
        self.lock().silence = silence;
    }

    pub(crate) fn set_list_latency(&self, latency: Duration) {
        self.lock().list_latency = latency;
    }

    pub(crate) fn set_list_lag(&self, lag: Duration) {
        self.lock().list_lag = lag;
    }

    /// Limits how many calls of one account are made in a second. POSTs wait for their turn, and
    /// are carried out although their caller has given up.
    pub(crate) fn set_capacity(&self, calls_per_second: Option<f64>) {
        self.lock().capacity = calls_per_second;
    }

    /// Lets no POST of any account be carried out before this moment.
    pub(crate) fn stall_until(&self, accounts: &[AccountSid], until: Timestamp) {
        let mut board = self.lock();
        for account in accounts {
            board.busy_until.insert(account.clone(), until);
        }
    }

    /// Makes the workers count as reachable. The test itself sends the callbacks.
    pub(crate) fn set_callbacks(&self) {
        self.lock().callbacks = true;
    }

    /// How many queries were made for one call, and for several at once.
    pub(crate) fn queries(&self) -> (usize, usize) {
        self.lock().queries
    }

    /// The POSTs so far, in order.
    pub(crate) fn posts(&self) -> Vec<Post> {
        self.lock().posts.clone()
    }

    /// The calls placed so far, in their present status.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let now = (self.now)();
        self.lock()
            .calls
            .iter()
            .map(|placed| placed.snapshot(now))
            .collect()
    }

    /// The calls placed so far, in their present status, with their attempts.
    pub(crate) fn calls_of_attempts(&self) -> Vec<(AttemptId, Call)> {
        let now = (self.now)();
        self.lock()
            .calls
            .iter()
            .map(|placed| (placed.attempt_id, placed.snapshot(now)))
            .collect()
    }

    /// The called number, start and end of each call.
    pub(crate) fn intervals(&self) -> Vec<(String, Timestamp, Timestamp)> {
        self.lock()
            .calls
            .iter()
            .map(|placed| (placed.to.expose().to_owned(), placed.at, placed.ended_at()))
            .collect()
    }

    /// The policy under which the call of an attempt requests its instructions, if it does.
    pub(crate) fn policy_of(&self, attempt: AttemptId) -> Option<Voicemail> {
        let board = self.lock();
        let post = board.posts.iter().find(|post| post.attempt_id == attempt);
        post.and_then(|post| post.policy)
    }

    /// The present status of a call.
    pub(crate) fn status_of(&self, sid: &CallSid) -> Option<CallStatus> {
        let (now, board) = ((self.now)(), self.lock());
        let placed = board.calls.iter().find(|placed| placed.sid == *sid)?;
        Some(placed.status(now).0)
    }

    /// The number of calls to a number.
    pub(crate) fn calls_to(&self, number: &str) -> usize {
        self.lock()
            .calls
            .iter()
            .filter(|placed| placed.to.expose() == number)
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
            .unwrap_or(Answer::Accepts(CallTimeline::default()))
    }

    /// When a POST of an account is carried out that arrives at `at`.
    fn turn_of(&mut self, account: &AccountSid, at: Timestamp) -> Timestamp {
        let mut turn = self
            .busy_until
            .get(account)
            .map_or(at, |busy| at.max(*busy));
        if let Some(capacity) = self.capacity {
            turn += Duration::from_secs_f64(1.0 / capacity);
            self.busy_until.insert(account.clone(), turn);
        }
        turn
    }

    fn connect(
        &mut self,
        settings: &VoiceSettings,
        request: &CallRequest<'_>,
        timeline: CallTimeline,
        at: Timestamp,
    ) -> Call {
        let sid = CallSid::parse(&format!("CA{:032x}", self.calls.len() + 1)).unwrap();
        let (account, from) = (settings.account_sid.clone(), settings.from.clone());
        let placed = PlacedCall {
            sid,
            attempt_id: request.attempt_id,
            account,
            from,
            to: request.to.clone(),
            at,
            timeline,
            cut: None,
        };
        let call = placed.snapshot(at);
        self.calls.push(placed);
        call
    }

    fn find(
        &mut self,
        settings: &VoiceSettings,
        sid: &CallSid,
    ) -> Result<&mut PlacedCall, CallFailure> {
        let found = self
            .calls
            .iter_mut()
            .find(|placed| placed.sid == *sid && placed.account == settings.account_sid);
        found.ok_or_else(|| failure(Class::Permanent(Fault::Internal)))
    }
}

impl Telephony for MemoryTelephony {
    fn has_callbacks(&self) -> bool {
        self.lock().callbacks
    }

    async fn place(
        &self,
        settings: &VoiceSettings,
        request: &CallRequest<'_>,
    ) -> Result<Call, CallFailure> {
        let (wait, result) = {
            let mut board = self.lock();
            let at = (self.now)();
            board.posts.push(Post {
                at,
                account: settings.account_sid.clone(),
                from: settings.from.clone(),
                to: request.to.clone(),
                attempt_id: request.attempt_id,
                script: match request.instructions {
                    Instructions::Inline(script) => Some(script.clone()),
                    Instructions::OnRequest(_) => None,
                },
                policy: match request.instructions {
                    Instructions::Inline(_) => None,
                    Instructions::OnRequest(policy) => Some(policy),
                },
            });
            match board.answer_to(request.to.expose()) {
                Answer::Accepts(timeline) => {
                    let turn = board.turn_of(&settings.account_sid, at);
                    let call = board.connect(settings, request, timeline, turn);
                    match (turn - at).to_std().unwrap_or_default() {
                        wait if wait > board.silence => {
                            (board.silence, Err(failure(Class::Ambiguous)))
                        }
                        wait => (wait + board.latency, Ok(call)),
                    }
                }
                Answer::Fails(class) => (board.latency, Err(failure(class))),
                Answer::AcceptsSilently(timeline) => {
                    board.connect(settings, request, timeline, at);
                    (board.silence, Err(failure(Class::Ambiguous)))
                }
                Answer::AcceptsLate(timeline, delay) => {
                    board.connect(settings, request, timeline, at + delay);
                    (board.silence, Err(failure(Class::Ambiguous)))
                }
                Answer::DropsSilently => (board.silence, Err(failure(Class::Ambiguous))),
            }
        };
        tokio::time::sleep(wait).await;
        result
    }

    async fn fetch(&self, settings: &VoiceSettings, sid: &CallSid) -> Result<Call, CallFailure> {
        let now = (self.now)();
        let mut board = self.lock();
        board.queries.0 += 1;
        board.find(settings, sid).map(|placed| placed.snapshot(now))
    }

    async fn fetch_all(
        &self,
        settings: &VoiceSettings,
        sids: &[CallSid],
        since: Timestamp,
    ) -> Result<Vec<Call>, CallFailure> {
        let now = (self.now)();
        let mut board = self.lock();
        board.queries.1 += 1;
        let fits = |placed: &&PlacedCall| {
            placed.account == settings.account_sid
                && placed.at >= since
                && sids.contains(&placed.sid)
        };
        let listed = board
            .calls
            .iter()
            .filter(fits)
            .filter(|placed| placed.at + board.list_lag <= now);
        Ok(listed.map(|placed| placed.snapshot(now)).collect())
    }

    async fn list(
        &self,
        settings: &VoiceSettings,
        to: &PhoneNumber,
    ) -> Result<Vec<Call>, CallFailure> {
        let latency = self.lock().list_latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let now = (self.now)();
        let board = self.lock();
        let fits = |placed: &&PlacedCall| {
            placed.account == settings.account_sid
                && placed.from == settings.from
                && placed.to == *to
        };
        let listed = board
            .calls
            .iter()
            .rev()
            .filter(fits)
            .filter(|placed| placed.at + board.list_lag <= now);
        Ok(listed.map(|placed| placed.snapshot(now)).collect())
    }

    async fn hang_up(
        &self,
        settings: &VoiceSettings,
        sid: &CallSid,
        even_answered: bool,
    ) -> Result<Call, CallFailure> {
        let now = (self.now)();
        let mut board = self.lock();
        let placed = board.find(settings, sid)?;
        let end = match (placed.status(now).0, even_answered) {
            (CallStatus::Queued | CallStatus::Initiated | CallStatus::Ringing, _) => {
                CallStatus::Canceled
            }
            (CallStatus::InProgress, true) => CallStatus::Completed,
            _ => return Err(failure(Class::Permanent(Fault::Internal))),
        };
        placed.cut = Some((now, end));
        Ok(placed.snapshot(now))
    }
}

fn failure(class: Class) -> CallFailure {
    CallFailure {
        class,
        provider_code: None,
        http_status: None,
        request_id: None,
        tenant_message: "failure planned by the test".to_owned(),
        operator_message: "failure planned by the test".to_owned(),
    }
}
