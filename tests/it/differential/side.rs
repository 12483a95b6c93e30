//! One of the two ledgers, and what happens on it. Every answer is told as text, to be compared with the other's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use voice_otp::Tuning;
use voice_otp::account::CallSid;
use voice_otp::delivery::{AttemptId, Change, Delivery, Key, State, WorkerEpoch};
use voice_otp::event::Event;
use voice_otp::plan::{Admission, Basis, Plan};
use voice_otp::policy::Policy;
use voice_otp::ports::{Begin, Ledger, LedgerError, Saved, Verdict};
use voice_otp::progress::{CallStatus, Progress, progress};
use voice_otp::settings::Draft;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{TenantId, Timestamp, UserRef};

use super::operation::{IDS, Operation, Pick, TENANTS, Wish};
use crate::ledger_contract::stage::{Stage, call, enlist};
use crate::memory::sample::{account, draft, key};

/// A ledger with two workers on it.
pub(super) struct Side<'a, S: Stage> {
    stage: &'a S,
    workers: [WorkerEpoch; 2],
    /// Events that were told and not published.
    told: Vec<(Key, u32)>,
    /// Every attempt there was.
    attempts: Vec<AttemptId>,
    /// The group that was admitted last.
    last: Vec<Admission>,
}

/// More than there ever is.
const ALL: usize = 1_000;

impl<'a, S: Stage> Side<'a, S> {
    pub(super) async fn new(stage: &'a S) -> Self {
        for (tenant, account) in [("alpha", 1), ("beta", 1), ("gamma", 2)] {
            stage.save_tenant(tenant, &draft(account, 0.5)).await;
        }
        stage
            .save_tenant(
                "testy",
                &Draft {
                    test_mode: true,
                    ..draft(3, 1.0)
                },
            )
            .await;
        Self {
            stage,
            workers: [enlist(stage).await, enlist(stage).await],
            told: Vec::new(),
            attempts: Vec::new(),
            last: Vec::new(),
        }
    }

    /// Does it, and tells what came of it.
    pub(super) async fn perform(&mut self, operation: &Operation) -> String {
        match operation {
            Operation::Admit { session, group } => self.admit(*session, group).await,
            Operation::AdmitAgain { session } => {
                let group = std::mem::take(&mut self.last);
                self.admit_group(*session, group).await
            }
            Operation::Forbid { session, key } => words(self.ledger(*session).forbid(key).await),
            Operation::Tidy { session } => words(self.ledger(*session).tidy().await),
            Operation::Begin { session, picks } => self.begin(*session, picks).await,
            Operation::Save { session, picks } => self.save(*session, picks).await,
            Operation::Cancel { session, key } => self.cancel(*session, key).await,
            Operation::Claim { session } => {
                let claimed = self
                    .ledger(*session)
                    .claim(self.workers[*session], ALL)
                    .await;
                // Who is named twice is named once as well.
                words(claimed.map(|rows| {
                    rows.into_iter()
                        .map(|row| (row.key.clone(), row))
                        .collect::<BTreeMap<_, _>>()
                }))
            }
            Operation::Retire { session } => {
                let retired = words(self.ledger(*session).retire(self.workers[*session]).await);
                self.workers[*session] = enlist(self.stage).await;
                format!("{retired} {:?}", self.workers)
            }
            Operation::Publish {
                session,
                every,
                from,
            } => {
                let (done, kept): (Vec<_>, Vec<_>) = self
                    .told
                    .drain(..)
                    .enumerate()
                    .partition(|(n, _)| n % every == from % every);
                let done: Vec<_> = done.into_iter().map(|(_, place)| place).collect();
                self.told = kept.into_iter().map(|(_, place)| place).collect();
                words(self.ledger(*session).published(&done).await)
            }
            Operation::Sweep { session } => {
                let swept = self
                    .ledger(*session)
                    .unpublished(self.workers[*session], ALL)
                    .await;
                words(swept.map(in_order))
            }
            Operation::Hold { tenant, wait } => words(
                self.ledger(0)
                    .hold(&self.pace_key(tenant).await, *wait)
                    .await,
            ),
            Operation::Prove { tenant } => {
                let settings = self
                    .stage
                    .settings(&id(tenant))
                    .await
                    .expect("the tenant has settings");
                self.stage.prove(&settings).await;
                self.stage
                    .settings(&id(tenant))
                    .await
                    .map(|settings| settings.pace_key)
                    .unwrap_or_default()
            }
            Operation::Repace { tenant, pace } => {
                let account = if *tenant == "gamma" { 2 } else { 1 };
                self.stage
                    .save_tenant(tenant, &draft(account, *pace))
                    .await
                    .pace_key
            }
            Operation::Pause {
                tenant,
                whole_account,
                paused,
            } => {
                if *whole_account {
                    let account = account(if *tenant == "gamma" { 2 } else { 1 });
                    self.stage.pause_account(&account, *paused).await;
                } else {
                    self.stage.pause(&id(tenant), *paused).await;
                }
                format!(
                    "{:?}",
                    self.stage
                        .settings(&id(tenant))
                        .await
                        .map(|settings| settings.paused)
                )
            }
            Operation::Limit {
                account: n,
                max_calls,
                tenant_share,
            } => {
                self.stage
                    .limit(&account(*n), *max_calls, *tenant_share)
                    .await;
                String::new()
            }
            Operation::Trip { tenant } => {
                words(self.ledger(0).trip(&self.pace_key(tenant).await).await)
            }
            Operation::Mend { tenant } => {
                words(self.ledger(0).mend(&self.pace_key(tenant).await).await)
            }
            Operation::LookUp {
                nth_attempt,
                key,
                user,
            } => self.look_up(*nth_attempt, key, user).await,
            Operation::Wait { time, beats } => self.wait(*time, *beats).await,
        }
    }

    async fn pace_key(&self, tenant: &str) -> String {
        self.stage
            .settings(&id(tenant))
            .await
            .expect("the tenant has settings")
            .pace_key
    }

    /// Every row.
    pub(super) async fn picture(&self) -> String {
        let mut picture = String::new();
        for tenant in TENANTS {
            for id in IDS {
                let row = self
                    .ledger(1)
                    .find(&key(tenant, id))
                    .await
                    .expect("it can be looked for");
                picture.push_str(&format!("{tenant}/{id}: {row:#?}\n"));
            }
        }
        picture
    }

    /// What another worker finds unpublished when both have gone.
    pub(super) async fn leftovers(&mut self) -> String {
        for worker in self.workers {
            self.ledger(0)
                .retire(worker)
                .await
                .expect("a worker can go");
        }
        let sweeper = enlist(self.stage).await;
        words(self.ledger(0).unpublished(sweeper, ALL).await.map(in_order))
    }

    fn ledger(&self, session: usize) -> &'a S::Ledger {
        if session == 0 {
            self.stage.ledger()
        } else {
            self.stage.second()
        }
    }

    async fn admit(&mut self, session: usize, group: &[Wish]) -> String {
        let mut admissions: Vec<Admission> = Vec::new();
        for wish in group {
            let (now, settings) = (
                self.stage.now(),
                self.stage.settings(&wish.ask.key().tenant_id).await,
            );
            let planned = voice_otp::plan::plan(
                &wish.ask.incoming(now),
                settings.as_ref(),
                true,
                &Tuning::default(),
                now,
            );
            let mut admission = planned.expect("it is a request");
            if let (Basis::Version(version), true) = (&mut admission.basis, wish.stale) {
                *version -= 1;
            }
            if let Plan::Place(placement) = &mut admission.plan {
                placement.attempt_id = wish.attempt;
                self.attempts.extend(wish.attempt);
            }
            admissions.push(admission);
        }
        self.admit_group(session, admissions).await
    }

    async fn admit_group(&mut self, session: usize, admissions: Vec<Admission>) -> String {
        let verdicts = self
            .ledger(session)
            .admit(self.workers[session], &admissions)
            .await;
        self.last = admissions;
        for verdict in verdicts.iter().flatten() {
            match verdict {
                Verdict::Placing(admitted) => self.note(admitted.event.as_slice()),
                Verdict::Ended(events) | Verdict::Parked(events) => self.note(events),
                Verdict::Repeat
                | Verdict::Conflict
                | Verdict::StaleSettings
                | Verdict::Busy
                | Verdict::Unwanted(_) => {}
            }
        }
        words(verdicts)
    }

    async fn begin(&mut self, session: usize, picks: &[Pick]) -> String {
        let mut group = Vec::new();
        for pick in picks {
            let (Some(mut delivery), Some(settings)) = (
                self.find(&pick.key).await,
                self.stage.settings(&pick.key.tenant_id).await,
            ) else {
                continue;
            };
            delivery.revision -= i64::from(pick.outdated);
            self.attempts.push(pick.attempt);
            let (account_sid, from, pace_key) =
                (settings.account_sid, settings.from, settings.pace_key);
            group.push(Begin {
                delivery: Arc::new(delivery),
                attempt_id: pick.attempt,
                account_sid,
                from,
                pace_key,
            });
        }
        words(
            self.ledger(session)
                .begin(self.workers[session], &group)
                .await,
        )
    }

    async fn save(&mut self, session: usize, picks: &[Pick]) -> String {
        let mut group = Vec::new();
        for pick in picks {
            let Some(mut delivery) = self.find(&pick.key).await else {
                continue;
            };
            delivery.revision -= i64::from(pick.outdated);
            group.extend(change(&delivery, pick, self.stage.now()));
        }
        self.save_group(session, &group).await
    }

    async fn cancel(&mut self, session: usize, key: &Key) -> String {
        let Some(delivery) = self.find(key).await else {
            return "nothing to take back".to_owned();
        };
        let change = delivery.withdraw(ReasonCode::CancelledByRequest, self.stage.now());
        self.save_group(session, change.as_slice()).await
    }

    async fn save_group(&mut self, session: usize, group: &[Change]) -> String {
        let answers = self
            .ledger(session)
            .save(self.workers[session], group)
            .await;
        for (change, answer) in group.iter().zip(answers.iter().flatten()) {
            if matches!(answer, Saved::Saved { .. }) {
                self.note(&change.events);
            }
        }
        words(answers)
    }

    async fn look_up(&self, nth_attempt: usize, key: &Key, user: &str) -> String {
        let ledger = self.ledger(0);
        let attempt = self.attempts.get(nth_attempt % self.attempts.len().max(1));
        let of_attempt = match attempt {
            Some(attempt) => words(ledger.find_attempt(*attempt).await),
            None => String::new(),
        };
        let of_user = ledger
            .find_user(&key.tenant_id, &UserRef::parse(user).unwrap())
            .await;
        let of_user =
            words(of_user.map(|rows| rows.into_iter().map(|row| row.key).collect::<BTreeSet<_>>()));
        let sids: Vec<CallSid> = (0..800).map(|n| call(n, CallStatus::Queued).sid).collect();
        let known = words(ledger.known_calls(&sids).await.map(BTreeSet::from_iter));
        let verified = words(ledger.verified(key).await);
        let rivals = words(
            ledger
                .rivals(key)
                .await
                .map(|rows| rows.into_iter().map(|row| row.key).collect::<BTreeSet<_>>()),
        );
        let missing = words(ledger.finals_missing(Duration::from_mins(1)).await);
        [of_attempt, of_user, known, verified, rivals, missing].join("\n")
    }

    async fn wait(&mut self, time: Duration, beats: [bool; 2]) -> String {
        self.stage.advance(time).await;
        let mut told = String::new();
        for session in (0..2).filter(|session| beats[*session]) {
            let beat = self.ledger(session).beat(self.workers[session]).await;
            if beat.as_ref().is_ok_and(|beat| !beat.alive) {
                self.workers[session] = enlist(self.stage).await;
            }
            told.push_str(&words(beat));
        }
        format!("{told} {:?}", self.workers)
    }

    async fn find(&self, key: &Key) -> Option<Delivery> {
        self.ledger(0)
            .find(key)
            .await
            .expect("it can be looked for")
    }

    fn note(&mut self, events: &[Event]) {
        self.told.extend(
            events
                .iter()
                .map(|event| (event.key.clone(), event.sequence)),
        );
    }
}

fn id(tenant: &str) -> TenantId {
    TenantId::parse(tenant).unwrap()
}

/// An answer as text. What exactly a ledger has against something is its own affair.
fn words<T: Debug>(answer: Result<T, LedgerError>) -> String {
    match answer {
        Ok(answer) => format!("{answer:#?}"),
        Err(LedgerError::Unavailable(error)) => format!("unavailable: {error}"),
        Err(LedgerError::Data(_)) => "refused".to_owned(),
        Err(LedgerError::Nonsense(what)) => format!("nonsense: {what}"),
    }
}

/// Stores sort names each in its own way.
fn in_order(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by_key(|event| (event.key.clone(), event.sequence));
    events
}

/// A change that may happen to a delivery as it stands; for one that is over, a change that must lose.
fn change(delivery: &Delivery, pick: &Pick, now: Timestamp) -> Option<Change> {
    let mut change = Change::of(delivery);
    match (delivery.state, pick.choice) {
        (State::Waiting, 0 | 1) => return Some(delivery.expire(now)),
        (State::Waiting, 2 | 3) => change.delivery.slot = None,
        (State::Waiting, _) => wait_for_retry(&mut change, now),
        (State::Placing, 0) => return Some(delivery.unbegin(now)),
        (State::Placing, 1 | 2) => {
            return Some(delivery.unsettle(
                now + Duration::from_secs(2),
                now + Duration::from_secs(10),
                now,
            ));
        }
        (State::Placing, 3) => {
            change.retire_attempt();
            change.end(
                now,
                Status::Failed,
                Reason::new(ReasonCode::TenantCredentials, "the credentials are wrong"),
            );
        }
        (State::Placing | State::Unsettled, 4) => {
            change.retire_attempt();
            change.delivery.state = State::Waiting;
            wait_for_retry(&mut change, now);
        }
        (State::Placing | State::Unsettled, _) => {
            return news(delivery, pick.sid, CallStatus::Queued, now);
        }
        (State::Calling, 0 | 1) => return news(delivery, pick.sid, CallStatus::Ringing, now),
        (State::Calling, 2 | 3) => return news(delivery, pick.sid, CallStatus::InProgress, now),
        (State::Calling, 4) => return news(delivery, pick.sid, CallStatus::Completed, now),
        (State::Calling, 5) => return news(delivery, pick.sid, CallStatus::Busy, now),
        (State::Calling | State::Final, _) => change.delivery.tries += 1,
    }
    Some(change)
}

fn wait_for_retry(change: &mut Change, now: Timestamp) {
    change.delivery.wake_at = now + Duration::from_secs(3);
    change.defer(now, Reason::new(ReasonCode::Retry, "it is tried again"));
}

fn news(delivery: &Delivery, sid: u32, status: CallStatus, now: Timestamp) -> Option<Change> {
    let mut call = call(sid, status);
    if let Some(own) = &delivery.call_sid {
        call.sid = own.clone();
    }
    match progress(
        delivery,
        &call,
        &Policy::default(),
        &Tuning::default(),
        false,
        now,
    ) {
        Progress::Change(change) => Some(*change),
        Progress::Known | Progress::Stray => None,
    }
}
