//! The outside, as the core sees it. `store`, `twilio` and `worker` implement these for real; the tests do in memory,
//! and one suite per port runs on both.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::{Context, PhoneNumber, TenantId, Timestamp, UserRef};

use crate::account::{AccountSid, CallSid};
use crate::delivery::{AttemptId, Change, Delivery, Key, Price, Slot, WorkerEpoch};
use crate::event::Event;
use crate::failure::CallFailure;
use crate::plan::Admission;
use crate::policy::Voicemail;
use crate::progress::Call;
use crate::settings::VoiceSettings;
use crate::speech::Script;

/// The set of ports that an engine runs on.
pub trait Ports: Send + Sync + 'static {
    /// Where deliveries live.
    type Ledger: Ledger;
    /// Where settings live.
    type Directory: Directory;
    /// Who places calls.
    type Caller: Caller;
    /// Where statuses go.
    type Sink: StatusSink;
}

/// Why the ledger didn't do a thing.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It can't be reached, or is busy: the same again later. Whether the thing was done is not known.
    #[error("the ledger can't be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It refuses a row of the group; nothing of the group was done.
    #[error("the ledger refuses a row")]
    Data(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its answer makes no sense.
    #[error("the ledger's answer makes no sense: {0}")]
    Nonsense(&'static str),
}

/// What a renewal of a worker's life says.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    /// The ledger's time.
    pub now: Timestamp,
    /// Whether the worker is still held to be alive. If not, its deliveries may be others' already.
    pub alive: bool,
}

/// The ledger's answer to one admission.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// New, and to be placed.
    Placing(Box<Admitted>),
    /// New, and over at once: what was planned to be said has been.
    Ended(Vec<Event>),
    /// New; its tenant or account is paused, so it waits: what was planned to be said has been.
    Parked(Vec<Event>),
    /// Known, with the same content.
    Repeat,
    /// Known, with other content.
    Conflict,
    /// The tenant's settings are newer than the plan's.
    StaleSettings,
    /// Its account's pace is locked by somebody. Nothing was done: the same again in a moment.
    Busy,
    /// It is new and must not be placed: it was taken back before it came, or a newer request of its user is known. Nothing
    /// was done; it is to be ended with this reason.
    Unwanted(ReasonCode),
}

/// A delivery just admitted.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The slot in the account's pace.
    pub slot: Slot,
    /// When it became durable.
    pub admitted_at: Timestamp,
    /// Whether the intent to place it is saved already: state placing, attempt 1.
    pub begun: bool,
    /// Whether this worker holds it. What is due later than in a while is nobody's until shortly before.
    pub held: bool,
    /// When something is to be done about it.
    pub wake_at: Timestamp,
    /// What was said. None where it was said before: the answer to this very admission had been lost.
    pub event: Option<Event>,
    /// Whether older requests of the same user are not over yet.
    pub has_rivals: bool,
}

/// A delivery whose placement is due.
#[derive(Debug, Clone)]
pub struct Begin {
    /// Which, as last known.
    pub delivery: Arc<Delivery>,
    /// The attempt to come.
    pub attempt_id: AttemptId,
    /// The Twilio account, by the settings of now.
    pub account_sid: AccountSid,
    /// The calling number, by the settings of now.
    pub from: PhoneNumber,
    /// Whose pace counts, by the settings of now.
    pub pace_key: String,
}

/// The ledger's answer to a placement that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// The intent is saved; the slot is now or in a moment.
    Go {
        /// The slot.
        slot: Slot,
        /// The delivery's new revision.
        revision: i64,
    },
    /// Its slot was void; this is the new one. One of epoch 0 is not reserved: it only says how long there will be none.
    Wait {
        /// The slot.
        slot: Slot,
        /// The delivery's new revision.
        revision: i64,
    },
    /// Another call from the same number to the same number is just being placed.
    LineBusy,
    /// A call to the same user is being placed or goes on.
    UserBusy,
    /// A newer request of the same user is known.
    Superseded,
    /// The account has as many calls in progress as it may.
    Full,
    /// The delivery, or its account's pace, is locked by somebody. Nothing was done: the same again in a moment.
    Busy,
    /// Somebody changed it.
    Conflict,
}

/// The ledger's answer to a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// It is saved, and its events are in the outbox.
    Saved {
        /// Where the delivery's earlier events are.
        lower: Lower,
    },
    /// Somebody changed the delivery first: nothing was done.
    Conflict,
    /// The delivery is locked by somebody. Nothing was done: the same again in a moment.
    Busy,
}

/// Where a delivery's earlier events are when new ones are saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lower {
    /// Published, or there are none.
    Published,
    /// The first one not known to be published is this worker's.
    Mine,
    /// The first one not known to be published is another worker's: it, or a sweeper, publishes the new ones as well.
    Others,
}

/// A placement, looked up.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The delivery that it is, or was, of.
    pub delivery: Delivery,
    /// Whether it had a call, and that is over: nothing of it is news any more.
    pub over: bool,
}

/// A call that Twilio hasn't told the price of.
#[derive(Debug, Clone)]
pub struct Unpriced {
    /// The call.
    pub call_sid: CallSid,
    /// The delivery.
    pub key: Key,
    /// Which placement of a call it was.
    pub attempt: u32,
    /// When it was over.
    pub ended_at: Timestamp,
    /// The number, masked.
    pub to_masked: Option<String>,
    /// Echoed in the event.
    pub context: Context,
}

/// The ledger: deliveries, pace, outbox and workers. Every method is one transaction; its time is the only time.
pub trait Ledger: Send + Sync + 'static {
    /// Enters a worker; `name` is for people.
    fn enlist(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<(WorkerEpoch, Timestamp), LedgerError>> + Send;

    /// Renews a worker's life for the lease.
    fn beat(&self, worker: WorkerEpoch) -> impl Future<Output = Result<Beat, LedgerError>> + Send;

    /// A worker goes: what it holds is anybody's at once.
    fn retire(&self, worker: WorkerEpoch) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Admits a group: a verdict per admission, in their order. Only what is new uses the account's pace.
    fn admit(
        &self,
        worker: WorkerEpoch,
        group: &[Admission],
    ) -> impl Future<Output = Result<Vec<Verdict>, LedgerError>> + Send;

    /// Begins placements that are due: an answer each, in their order.
    fn begin(
        &self,
        worker: WorkerEpoch,
        group: &[Begin],
    ) -> impl Future<Output = Result<Vec<Begun>, LedgerError>> + Send;

    /// Saves changes whose deliveries still have the revision they were computed from, with their events; the worker
    /// becomes their owner. No delivery may be in a group twice.
    fn save(
        &self,
        worker: WorkerEpoch,
        group: &[Change],
    ) -> impl Future<Output = Result<Vec<Saved>, LedgerError>> + Send;

    /// Takes over deliveries that are due, or wait and soon will be, and that no living worker holds, and lists the worker's own that are overdue.
    fn claim(
        &self,
        worker: WorkerEpoch,
        most: usize,
    ) -> impl Future<Output = Result<Vec<Delivery>, LedgerError>> + Send;

    /// Reads deliveries: those of the keys that are there, in any order.
    fn find_all(
        &self,
        keys: &[Key],
    ) -> impl Future<Output = Result<Vec<Delivery>, LedgerError>> + Send;

    /// Reads a delivery.
    fn find(
        &self,
        key: &Key,
    ) -> impl Future<Output = Result<Option<Delivery>, LedgerError>> + Send {
        async { Ok(self.find_all(std::slice::from_ref(key)).await?.pop()) }
    }

    /// Reads the delivery that an attempt is, or was, of.
    fn find_attempt(
        &self,
        attempt: AttemptId,
    ) -> impl Future<Output = Result<Option<Attempt>, LedgerError>> + Send;

    /// Reads a user's deliveries that are not over.
    fn find_user(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> impl Future<Output = Result<Vec<Delivery>, LedgerError>> + Send;

    /// Reads the deliveries of the same user that are older than this one and not over.
    fn rivals(&self, key: &Key) -> impl Future<Output = Result<Vec<Delivery>, LedgerError>> + Send;

    /// Takes a delivery back that isn't there yet: its request, should it come, is not followed. False if it is there.
    fn forbid(&self, key: &Key) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Puts away some of what has been over for long, and drops what need not be known any more. Gives how many deliveries it put
    /// away: if any, there may be more.
    fn tidy(&self) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// How many deliveries are not over although their calls have been given up long ago: must be 0.
    fn finals_missing(
        &self,
        overdue: Duration,
    ) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// Which of these calls are some delivery's already.
    fn known_calls(
        &self,
        sids: &[CallSid],
    ) -> impl Future<Output = Result<Vec<CallSid>, LedgerError>> + Send;

    /// Whether a placement under way went, or may have gone, from this account and number: calls listed for others say
    /// nothing about it.
    fn went_from(&self, delivery: &Delivery, account: &AccountSid, from: &PhoneNumber) -> bool;

    /// Calls whose price it is time to ask for, each given to one worker only, and later each time. What nobody has told the price
    /// of for a day is forgotten.
    fn unpriced(
        &self,
        most: usize,
    ) -> impl Future<Output = Result<Vec<Unpriced>, LedgerError>> + Send;

    /// Forgets calls whose price has been told.
    fn priced(
        &self,
        told: &[(CallSid, Price)],
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Notes that a code was entered. False if there is no such delivery.
    fn verified(&self, key: &Key) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Gives an account's slots only after `wait`: those reserved are void, and who waits has new ones, in the same order. A hold
    /// that ends before the present one, or hardly after it, does nothing.
    fn hold(
        &self,
        pace_key: &str,
        wait: Duration,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Opens an account's circuit: its slots come only after a while, longer each time in a row, and then one now and then. Gives
    /// that while; none if the circuit was open already.
    fn trip(
        &self,
        pace_key: &str,
    ) -> impl Future<Output = Result<Option<Duration>, LedgerError>> + Send;

    /// Closes an account's circuit: who waits has new slots, at its pace.
    fn mend(&self, pace_key: &str) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Forgets events that have been published.
    fn published(
        &self,
        events: &[(Key, u32)],
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Unpublished events of dead workers, and forgotten ones of this, in order per delivery.
    fn unpublished(
        &self,
        worker: WorkerEpoch,
        most: usize,
    ) -> impl Future<Output = Result<Vec<Event>, LedgerError>> + Send;
}

/// Settings could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The store can't be reached.
    #[error("voice settings can't be read")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// They are sealed with a key that this worker doesn't have.
    #[error("the tenant's secrets are sealed with key {0}, which VOICE_OTP_KEYS doesn't have here")]
    UnknownKey(String),
}

/// The tenants' voice settings.
pub trait Directory: Send + Sync + 'static {
    /// The settings of these tenants, from a cache where it is fresh; who has none is missing. A tenant whose secrets
    /// can't be opened here is an error of its own.
    fn settings(
        &self,
        tenants: &[TenantId],
    ) -> impl Future<
        Output = Result<
            HashMap<TenantId, Result<Arc<VoiceSettings>, DirectoryError>>,
            DirectoryError,
        >,
    > + Send;

    /// Forgets what is cached of a tenant.
    fn forget(&self, tenant: &TenantId);

    /// Notes that Twilio took a tenant's credentials: from now on it shares its account's pace.
    fn proven(
        &self,
        settings: &VoiceSettings,
    ) -> impl Future<Output = Result<(), DirectoryError>> + Send;

    /// Notes that Twilio refused these credentials: until it takes them, or they change, nothing is tried with them. False if that
    /// was known, or they have changed.
    fn refused(
        &self,
        settings: &VoiceSettings,
    ) -> impl Future<Output = Result<bool, DirectoryError>> + Send;

    /// Tenants whose refused credentials it is time to try again, each given to one worker only.
    fn suspects(
        &self,
        most: usize,
    ) -> impl Future<Output = Result<Vec<Arc<VoiceSettings>>, DirectoryError>> + Send;

    /// Notes that Twilio takes credentials again that it refused.
    fn taken(
        &self,
        settings: &VoiceSettings,
    ) -> impl Future<Output = Result<(), DirectoryError>> + Send;
}

/// What a call says when it is answered.
#[derive(Debug)]
pub enum Speech<'a> {
    /// This, to whatever answers.
    Inline(&'a Script),
    /// What we say when Twilio asks, by this policy: see [`crate::engine::Engine::answer`].
    Ask(Voicemail),
}

/// What to ask of Twilio.
#[derive(Debug)]
pub struct CallOrder<'a> {
    /// Whom to call.
    pub to: &'a PhoneNumber,
    /// What to say.
    pub speech: Speech<'a>,
    /// How long it may ring.
    pub ring_timeout: Duration,
    /// How long it may last.
    pub limit: Duration,
    /// What to dial after the answer.
    pub extension: Option<&'a str>,
    /// Which attempt it is, for its callbacks.
    pub attempt_id: AttemptId,
}

/// Who places calls.
pub trait Caller: Send + Sync + 'static {
    /// Whether calls report by themselves, so that polling can wait.
    fn has_callbacks(&self) -> bool;

    /// Places a call.
    fn place(
        &self,
        settings: &VoiceSettings,
        order: &CallOrder<'_>,
    ) -> impl Future<Output = Result<Call, CallFailure>> + Send;

    /// Looks a call up.
    fn fetch(
        &self,
        settings: &VoiceSettings,
        sid: &CallSid,
    ) -> impl Future<Output = Result<Call, CallFailure>> + Send;

    /// Looks calls up that were placed since a time, in as few requests as it takes. What isn't found is left out.
    fn fetch_all(
        &self,
        settings: &VoiceSettings,
        sids: &[CallSid],
        since: Timestamp,
    ) -> impl Future<Output = Result<Vec<Call>, CallFailure>> + Send;

    /// The latest calls from the tenant's number to a number.
    fn list(
        &self,
        settings: &VoiceSettings,
        to: &PhoneNumber,
    ) -> impl Future<Output = Result<Vec<Call>, CallFailure>> + Send;

    /// Ends a call: only before its answer, or whatever it does.
    fn hang_up(
        &self,
        settings: &VoiceSettings,
        sid: &CallSid,
        even_answered: bool,
    ) -> impl Future<Output = Result<Call, CallFailure>> + Send;
}

/// Why a status could not be published.
#[derive(Debug, thiserror::Error)]
#[error("publish a status")]
pub struct SinkError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Where statuses go.
pub trait StatusSink: Send + Sync + 'static {
    /// Publishes events, in order; each is answered for itself: done, or not known to be.
    fn publish(&self, events: &[Event]) -> impl Future<Output = Vec<Result<(), SinkError>>> + Send;
}
