//! A ledger with its clock and settings, and short helpers for the steps of the checks.

mod ledgers;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use voice_otp::Tuning;
use voice_otp::account::{AccountSid, CallSid};
use voice_otp::admission::{Admission, Admitted, Plan};
use voice_otp::call::Call;
use voice_otp::call::CallStatus;
use voice_otp::call::progress::{Progress, progress};
use voice_otp::delivery::{AttemptId, Change, Delivery};
use voice_otp::event::Event;
use voice_otp::ports::WorkerEpoch;
use voice_otp::ports::{AttemptStart, Ledger, LedgerError, Saved, StartOutcome, Verdict};
use voice_otp::settings::policy::Policy;
use voice_otp::settings::{Draft, VoiceSettings};
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::{TenantId, Timestamp};

use crate::memory::sample::{Request, draft};

pub(crate) use ledgers::{MemoryStage, PgStage};

/// A ledger under test. Its time only advances by [`advance`](Stage::advance).
pub(crate) trait Stage {
    type Ledger: Ledger;

    fn ledger(&self) -> &Self::Ledger;

    /// The same ledger, over other connections.
    fn second(&self) -> &Self::Ledger;

    /// The ledger's time.
    fn now(&self) -> Timestamp;

    /// Advances the time.
    async fn advance(&self, by: Duration);

    /// Saves a tenant's settings and reads them back.
    async fn save_tenant(&self, tenant: &str, draft: &Draft) -> VoiceSettings;

    async fn settings(&self, tenant: &TenantId) -> Option<VoiceSettings>;

    /// Records that Twilio accepted a tenant's credentials.
    async fn verify_credentials(&self, settings: &VoiceSettings);

    /// Pauses a tenant or resumes it.
    async fn pause(&self, tenant: &TenantId, paused: bool);

    /// Pauses an account or resumes it.
    async fn pause_account(&self, account: &AccountSid, paused: bool);

    /// Limits an account's calls in progress, and the share of the slots that one tenant may hold.
    async fn limit(&self, account: &AccountSid, max_calls: Option<i32>, tenant_share: f64);

    /// Deletes a tenant's settings, if there are any.
    async fn delete(&self, tenant: &TenantId);

    /// Records that Twilio rejected a tenant's credentials; false if that was known.
    async fn reject_credentials(&self, settings: &VoiceSettings) -> bool;

    /// Claims the tenants whose rejected credentials are to be probed.
    async fn claim_rejected(&self) -> Vec<TenantId>;

    /// Records that Twilio accepts a tenant's credentials again.
    async fn accept_credentials(&self, settings: &VoiceSettings);

    /// What calls cost, one line for each tenant, hour and currency.
    async fn spend(&self) -> Vec<String>;
}

/// More than there ever are.
const ALL: usize = 1_000;

/// A tenant of an account with this rate, in calls per second.
pub(crate) async fn tenant<S: Stage>(
    stage: &S,
    name: &str,
    account: u32,
    calls_per_second: f64,
) -> VoiceSettings {
    stage
        .save_tenant(name, &draft(account, calls_per_second))
        .await
}

pub(crate) async fn register<S: Stage>(stage: &S) -> WorkerEpoch {
    stage
        .ledger()
        .register_worker("a worker")
        .await
        .expect("a worker can register")
        .0
}

/// Plans a request by the tenant's present settings; its attempt may start with the admission.
pub(crate) async fn plan<S: Stage>(stage: &S, ask: &Request) -> Admission {
    let (now, settings) = (stage.now(), stage.settings(&ask.key().tenant_id).await);
    let planned = voice_otp::admission::plan(
        &ask.incoming(now),
        settings.as_ref(),
        true,
        &Tuning::default(),
        now,
    );
    let mut admission = planned.expect("it is a request");
    if let Plan::Call(planned_call) = &mut admission.plan {
        planned_call.attempt_id = Some(AttemptId(Uuid::new_v4()));
    }
    admission
}

/// Plans a request whose attempt must not start with the admission.
pub(crate) async fn plan_to_wait<S: Stage>(stage: &S, ask: &Request) -> Admission {
    let mut admission = plan(stage, ask).await;
    if let Plan::Call(planned_call) = &mut admission.plan {
        planned_call.attempt_id = None;
    }
    admission
}

pub(crate) async fn admit_group<S: Stage>(
    stage: &S,
    worker: WorkerEpoch,
    group: &[Admission],
) -> Vec<Verdict> {
    stage
        .ledger()
        .admit(worker, group)
        .await
        .expect("the batch is admitted")
}

pub(crate) async fn admit<S: Stage>(stage: &S, worker: WorkerEpoch, ask: &Request) -> Verdict {
    let admission = plan(stage, ask).await;
    let mut verdicts = admit_group(stage, worker, &[admission]).await;
    assert_eq!(verdicts.len(), 1, "one verdict per admission");
    verdicts.remove(0)
}

/// A delivery whose attempt starts with its admission.
pub(crate) async fn begun<S: Stage>(stage: &S, worker: WorkerEpoch, ask: &Request) -> Delivery {
    let verdict = admit(stage, worker, ask).await;
    assert!(
        placing(&verdict).begun,
        "its attempt starts with the admission"
    );
    find(stage, &ask.key()).await
}

/// A delivery that is admitted and waits.
pub(crate) async fn waiting<S: Stage>(stage: &S, worker: WorkerEpoch, ask: &Request) -> Delivery {
    let admission = plan_to_wait(stage, ask).await;
    let verdicts = admit_group(stage, worker, &[admission]).await;
    assert!(
        !placing(&verdicts[0]).begun,
        "no attempt starts without an id"
    );
    find(stage, &ask.key()).await
}

/// The admission that a verdict reports.
pub(crate) fn placing(verdict: &Verdict) -> &Admitted {
    match verdict {
        Verdict::Admitted(admitted) => admitted,
        other => panic!("not new and to be placed: {other:?}"),
    }
}

/// The `accepted` event of a verdict.
pub(crate) fn accepted_event(verdict: &Verdict) -> Event {
    placing(verdict)
        .event
        .clone()
        .expect("the event was written just now")
}

/// The events of a request that was finished at once.
pub(crate) fn finished(verdict: &Verdict) -> &[Event] {
    match verdict {
        Verdict::Finished(events) => events,
        other => panic!("not finished at once: {other:?}"),
    }
}

pub(crate) async fn find<S: Stage>(stage: &S, key: &DeliveryKey) -> Delivery {
    stage
        .ledger()
        .find(key)
        .await
        .expect("the query succeeds")
        .expect("it is there")
}

/// Records the cancellation of one delivery that has not arrived.
pub(crate) async fn insert_tombstone<L: Ledger>(
    ledger: &L,
    key: &DeliveryKey,
) -> Result<bool, LedgerError> {
    let inserted = ledger.insert_tombstones(std::slice::from_ref(key)).await?;
    assert_eq!(inserted.len(), 1, "one answer per delivery");
    Ok(inserted[0])
}

/// The start that a worker asks for when a delivery is due, by the tenant's present settings.
pub(crate) async fn due<S: Stage>(stage: &S, delivery: &Delivery) -> AttemptStart {
    let settings = stage
        .settings(&delivery.key.tenant_id)
        .await
        .expect("the tenant is there");
    AttemptStart {
        delivery: Arc::new(delivery.clone()),
        attempt_id: AttemptId(Uuid::new_v4()),
        account_sid: settings.account_sid,
        from: settings.from,
        pace_key: settings.pace_key,
    }
}

pub(crate) async fn begin<S: Stage>(
    stage: &S,
    worker: WorkerEpoch,
    delivery: &Delivery,
) -> StartOutcome {
    let asked = due(stage, delivery).await;
    let answers = stage
        .ledger()
        .start_attempts(worker, &[asked])
        .await
        .expect("it is answered");
    assert_eq!(answers.len(), 1, "one answer per attempt");
    answers[0]
}

/// How far ahead the first slot is that is given to a delivery of a queue.
pub(crate) const LEAD_TIME: Duration = Duration::from_millis(100);

/// Claims what is due, and returns the ids and slots of the deliveries that have a valid slot, in
/// the order of their slots.
pub(crate) async fn give_slots<S: Stage>(
    stage: &S,
    worker: WorkerEpoch,
) -> Vec<(String, Timestamp)> {
    // What a worker owns whose lease has expired is listed again.
    let heartbeat = stage.ledger().heartbeat(worker).await;
    assert!(heartbeat.is_ok(), "it is answered");
    let claimed = stage.ledger().claim_due(worker, 200).await;
    let mut given: Vec<(String, Timestamp)> = claimed
        .expect("it is answered")
        .into_iter()
        .filter_map(|row| {
            let slot = row.slot.filter(|slot| slot.at > stage.now())?;
            Some((row.key.delivery_id.to_string(), slot.at))
        })
        .collect();
    given.sort_by_key(|(_, at)| *at);
    given.dedup();
    given
}

pub(crate) async fn save<S: Stage>(stage: &S, worker: WorkerEpoch, change: &Change) -> Saved {
    let answers = stage
        .ledger()
        .save(worker, std::slice::from_ref(change))
        .await
        .expect("it is answered");
    assert_eq!(answers.len(), 1, "one answer per change");
    answers[0]
}

/// A call that Twilio has just accepted.
pub(crate) fn call(n: u32, status: CallStatus) -> Call {
    Call {
        sid: CallSid::parse(&format!("CA{n:032x}")).unwrap(),
        status,
        answered_by: None,
        duration_s: None,
        sip_code: None,
        created_at: None,
        outbound_api: true,
        queue_time: None,
        price: None,
        error: None,
    }
}

/// The change that an update of a call causes.
pub(crate) fn update(delivery: &Delivery, call: &Call, now: Timestamp) -> Change {
    match progress(
        delivery,
        call,
        &Policy::default(),
        &Tuning::default(),
        false,
        now,
    ) {
        Progress::Change(change) => *change,
        other => panic!("no change: {other:?}"),
    }
}
