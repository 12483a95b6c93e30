//! A ledger and what stands around it, and short words for what every check does with it.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use voice_otp::Tuning;
use voice_otp::account::{AccountSid, CallSid};
use voice_otp::delivery::{AttemptId, Change, Delivery, Key, WorkerEpoch};
use voice_otp::event::Event;
use voice_otp::plan::{Admission, Plan};
use voice_otp::policy::Policy;
use voice_otp::ports::{Admitted, Begin, Begun, Ledger, Saved, Verdict};
use voice_otp::progress::{Call, CallStatus, Progress, progress};
use voice_otp::settings::{Draft, VoiceSettings};
use voice_otp_schemas::{TenantId, Timestamp};
use voice_otp_store::{Keyring, PgLedger, accounts, settings};

use crate::database::{Database, keys};
use crate::memory::clock::HandClock;
use crate::memory::sample::{Ask, draft, limits};
use crate::memory::{MemoryDirectory, MemoryLedger};

/// A ledger under test. Its time stands still between the steps.
pub(crate) trait Stage {
    type Ledger: Ledger;

    fn ledger(&self) -> &Self::Ledger;

    /// The same ledger, over connections of its own.
    fn second(&self) -> &Self::Ledger;

    /// The ledger's time.
    fn now(&self) -> Timestamp;

    /// Lets time pass.
    async fn advance(&self, by: Duration);

    /// Saves a tenant's settings and reads them back.
    async fn save_tenant(&self, tenant: &str, draft: &Draft) -> VoiceSettings;

    async fn settings(&self, tenant: &TenantId) -> Option<VoiceSettings>;

    /// Notes that Twilio took a tenant's credentials.
    async fn prove(&self, settings: &VoiceSettings);

    /// Pauses a tenant or resumes it.
    async fn pause(&self, tenant: &TenantId, paused: bool);

    /// Pauses an account or resumes it.
    async fn pause_account(&self, account: &AccountSid, paused: bool);

    /// Limits an account's calls in progress, and what share of the slots one tenant may hold.
    async fn limit(&self, account: &AccountSid, max_calls: Option<i32>, tenant_share: f64);
}

/// The ledger in memory.
pub(crate) struct MemoryStage {
    clock: HandClock,
    ledger: MemoryLedger,
    second: MemoryLedger,
    directory: MemoryDirectory,
}

impl MemoryStage {
    pub(crate) fn new() -> Self {
        let clock = HandClock::new();
        let ledger = MemoryLedger::new(clock.reader(), limits());
        Self {
            clock,
            second: ledger.clone(),
            directory: ledger.directory(),
            ledger,
        }
    }
}

impl Stage for MemoryStage {
    type Ledger = MemoryLedger;

    fn ledger(&self) -> &MemoryLedger {
        &self.ledger
    }

    fn second(&self) -> &MemoryLedger {
        &self.second
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn save_tenant(&self, tenant: &str, draft: &Draft) -> VoiceSettings {
        self.directory.save(tenant, draft)
    }

    async fn settings(&self, tenant: &TenantId) -> Option<VoiceSettings> {
        self.directory.present(tenant)
    }

    async fn prove(&self, settings: &VoiceSettings) {
        self.directory.prove(settings);
    }

    async fn pause(&self, tenant: &TenantId, paused: bool) {
        self.directory.pause(tenant, paused);
    }

    async fn pause_account(&self, account: &AccountSid, paused: bool) {
        self.directory.pause_account(account, paused);
    }

    async fn limit(&self, account: &AccountSid, max_calls: Option<i32>, tenant_share: f64) {
        self.directory.limit(account, max_calls, tenant_share);
    }
}

/// The ledger on Postgres, in a schema with a clock of its own.
pub(crate) struct PgStage {
    clock: HandClock,
    database: Database,
    keys: Keyring,
    ledger: PgLedger,
    second: PgLedger,
}

impl PgStage {
    pub(crate) async fn new() -> Self {
        let (clock, keys) = (HandClock::new(), keys());
        let database = Database::with_clock(clock.now()).await;
        let ledger = PgLedger::new(database.pool.clone(), keys.clone(), limits());
        let second = PgLedger::new(database.another_pool(), keys.clone(), limits());
        Self {
            clock,
            database,
            keys,
            ledger,
            second,
        }
    }

    /// Runs a statement of a test's own.
    pub(crate) async fn execute(&self, sql: &str) {
        self.database
            .pool
            .get()
            .await
            .expect("Postgres answers")
            .batch_execute(sql)
            .await
            .expect("it is right");
    }

    /// Changes the text of a function, which must be there.
    pub(crate) async fn change_function(&self, function: &str, from: &str, to: &str) {
        let client = self.database.pool.get().await.expect("Postgres answers");
        let text = client
            .query_one("select pg_get_functiondef($1::text::regproc)", &[&function])
            .await
            .expect("it is there");
        let text: String = text.get(0);
        assert!(text.contains(from), "{function} has no: {from}");
        drop(client);
        self.execute(&text.replace(from, to)).await;
    }

    pub(crate) async fn close(self) {
        self.database.drop_schema().await;
    }
}

impl Stage for PgStage {
    type Ledger = PgLedger;

    fn ledger(&self) -> &PgLedger {
        &self.ledger
    }

    fn second(&self) -> &PgLedger {
        &self.second
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.database.set_time(self.clock.now()).await;
    }

    async fn save_tenant(&self, tenant: &str, draft: &Draft) -> VoiceSettings {
        self.database.save_tenant(&self.keys, tenant, draft).await
    }

    async fn settings(&self, tenant: &TenantId) -> Option<VoiceSettings> {
        settings::load_one(&self.database.pool, &self.keys, tenant)
            .await
            .expect("the settings can be read")
    }

    async fn prove(&self, settings: &VoiceSettings) {
        settings::prove(&self.database.pool, settings)
            .await
            .expect("it can be noted");
    }

    async fn pause(&self, tenant: &TenantId, paused: bool) {
        assert!(
            settings::pause(&self.database.pool, tenant, paused)
                .await
                .expect("it can be changed")
        );
    }

    async fn pause_account(&self, account: &AccountSid, paused: bool) {
        assert!(
            accounts::pause(&self.database.pool, account, paused)
                .await
                .expect("it can be changed")
        );
    }

    async fn limit(&self, account: &AccountSid, max_calls: Option<i32>, tenant_share: f64) {
        let pool = &self.database.pool;
        assert!(
            accounts::set_max_calls(pool, account, max_calls)
                .await
                .expect("it can be changed")
        );
        assert!(
            accounts::set_tenant_share(pool, account, tenant_share)
                .await
                .expect("it can be changed")
        );
    }
}

/// A tenant that goes through an account at a pace in calls a second.
pub(crate) async fn tenant<S: Stage>(
    stage: &S,
    name: &str,
    account: u32,
    pace: f64,
) -> VoiceSettings {
    stage.save_tenant(name, &draft(account, pace)).await
}

pub(crate) async fn enlist<S: Stage>(stage: &S) -> WorkerEpoch {
    stage
        .ledger()
        .enlist("a worker")
        .await
        .expect("a worker can enlist")
        .0
}

/// Plans a request by the tenant's present settings; its placement may begin at once.
pub(crate) async fn plan<S: Stage>(stage: &S, ask: &Ask) -> Admission {
    let (now, settings) = (stage.now(), stage.settings(&ask.key().tenant_id).await);
    let planned = voice_otp::plan::plan(
        &ask.incoming(now),
        settings.as_ref(),
        true,
        &Tuning::default(),
        now,
    );
    let mut admission = planned.expect("it is a request");
    if let Plan::Place(placement) = &mut admission.plan {
        placement.attempt_id = Some(AttemptId(Uuid::new_v4()));
    }
    admission
}

/// Plans a request whose placement must not begin with its admission.
pub(crate) async fn plan_to_wait<S: Stage>(stage: &S, ask: &Ask) -> Admission {
    let mut admission = plan(stage, ask).await;
    if let Plan::Place(placement) = &mut admission.plan {
        placement.attempt_id = None;
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
        .expect("the group is admitted")
}

pub(crate) async fn admit<S: Stage>(stage: &S, worker: WorkerEpoch, ask: &Ask) -> Verdict {
    let admission = plan(stage, ask).await;
    let mut verdicts = admit_group(stage, worker, &[admission]).await;
    assert_eq!(verdicts.len(), 1, "one verdict per admission");
    verdicts.remove(0)
}

/// A delivery that is admitted and begun.
pub(crate) async fn begun<S: Stage>(stage: &S, worker: WorkerEpoch, ask: &Ask) -> Delivery {
    let verdict = admit(stage, worker, ask).await;
    assert!(placing(&verdict).begun, "its placement begins at once");
    find(stage, &ask.key()).await
}

/// A delivery that is admitted and waits.
pub(crate) async fn waiting<S: Stage>(stage: &S, worker: WorkerEpoch, ask: &Ask) -> Delivery {
    let admission = plan_to_wait(stage, ask).await;
    let verdicts = admit_group(stage, worker, &[admission]).await;
    assert!(
        !placing(&verdicts[0]).begun,
        "nothing can begin without an attempt"
    );
    find(stage, &ask.key()).await
}

/// What a verdict says of a delivery that is new and to be placed.
pub(crate) fn placing(verdict: &Verdict) -> &Admitted {
    match verdict {
        Verdict::Placing(admitted) => admitted,
        other => panic!("not new and to be placed: {other:?}"),
    }
}

/// What was said of a delivery that is new and to be placed.
pub(crate) fn said(verdict: &Verdict) -> Event {
    placing(verdict)
        .event
        .clone()
        .expect("it was said just now")
}

/// What a verdict says of a delivery that is new and over.
pub(crate) fn over(verdict: &Verdict) -> &[Event] {
    match verdict {
        Verdict::Ended(events) => events,
        other => panic!("not new and over: {other:?}"),
    }
}

pub(crate) async fn find<S: Stage>(stage: &S, key: &Key) -> Delivery {
    stage
        .ledger()
        .find(key)
        .await
        .expect("it can be looked for")
        .expect("it is there")
}

/// Makes what a worker asks for when a delivery is due, by the tenant's present settings.
pub(crate) async fn due<S: Stage>(stage: &S, delivery: &Delivery) -> Begin {
    let settings = stage
        .settings(&delivery.key.tenant_id)
        .await
        .expect("the tenant is there");
    Begin {
        delivery: Arc::new(delivery.clone()),
        attempt_id: AttemptId(Uuid::new_v4()),
        account_sid: settings.account_sid,
        from: settings.from,
        pace_key: settings.pace_key,
    }
}

pub(crate) async fn begin<S: Stage>(stage: &S, worker: WorkerEpoch, delivery: &Delivery) -> Begun {
    let asked = due(stage, delivery).await;
    let answers = stage
        .ledger()
        .begin(worker, &[asked])
        .await
        .expect("it is answered");
    assert_eq!(answers.len(), 1, "one answer per placement");
    answers[0]
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

/// A call that Twilio has just taken.
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
        trouble: None,
    }
}

/// The change that news of a call makes.
pub(crate) fn news(delivery: &Delivery, call: &Call, now: Timestamp) -> Change {
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
