//! One of the two ledgers, and the operations on it. Every answer is returned as text, for
//! comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use voice_otp::Tuning;
use voice_otp::account::CallSid;
use voice_otp::admission::{Admission, Plan, SettingsBasis};
use voice_otp::call::CallStatus;
use voice_otp::delivery::{AttemptId, CancelCause, Change, Delivery};
use voice_otp::event::Event;
use voice_otp::ports::WorkerEpoch;
use voice_otp::ports::{
    AttemptStart, Ledger, LedgerError, Saved, UnpricedCall, UserCancellation, Verdict,
};
use voice_otp::price::Price;
use voice_otp::settings::Draft;
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::{TenantId, UserRef};

use super::changes::change;
use super::operation::{IDS, Operation, Pick, Submission, TENANTS};
use super::settings;
use crate::ledger_contract::stage::{Stage, call, register};
use crate::memory::sample::{account, draft, key};

/// A ledger with two workers on it.
pub(super) struct Side<'a, S: Stage> {
    stage: &'a S,
    workers: [WorkerEpoch; 2],
    /// Events that were written and not published.
    unpublished: Vec<(DeliveryKey, u32)>,
    /// Every attempt so far.
    attempts: Vec<AttemptId>,
    /// The batch that was admitted last.
    last: Vec<Admission>,
}

/// More than there ever are.
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
            workers: [register(stage).await, register(stage).await],
            unpublished: Vec::new(),
            attempts: Vec::new(),
            last: Vec::new(),
        }
    }

    /// Performs an operation and returns its answer as text.
    pub(super) async fn perform(&mut self, operation: &Operation) -> String {
        match operation {
            Operation::Admit { session, group } => self.admit(*session, group).await,
            Operation::AdmitAgain { session } => {
                let group = std::mem::take(&mut self.last);
                self.admit_group(*session, group).await
            }
            Operation::InsertTombstones { session, keys } => {
                words(self.ledger(*session).insert_tombstones(keys).await)
            }
            Operation::CancelUsers { session, users } => self.cancel_users(*session, users).await,
            Operation::MarkVerified { session, keys } => {
                words(self.ledger(*session).mark_verified(keys).await)
            }
            Operation::Price { session, every } => self.price(*session, *every).await,
            Operation::Credentials { .. }
            | Operation::ProbeCredentials
            | Operation::DeleteSettings { .. }
            | Operation::SaveSettings { .. } => settings::perform(self.stage, operation).await,
            Operation::Archive { session } => words(self.ledger(*session).archive_finished().await),
            Operation::AttemptStart { session, picks } => self.start(*session, picks).await,
            Operation::Save { session, picks } => self.save(*session, picks).await,
            Operation::Cancel { session, key } => self.cancel(*session, key).await,
            Operation::ClaimDue { session } => {
                let claimed = self
                    .ledger(*session)
                    .claim_due(self.workers[*session], ALL)
                    .await;
                // A delivery may be listed twice; it counts once.
                words(claimed.map(|rows| {
                    rows.into_iter()
                        .map(|row| (row.key.clone(), row))
                        .collect::<BTreeMap<_, _>>()
                }))
            }
            Operation::Release { session } => {
                let worker = self.workers[*session];
                let released = words(self.ledger(*session).release_worker(worker).await);
                // Epochs are random, and not compared.
                self.workers[*session] = register(self.stage).await;
                released
            }
            Operation::Publish {
                session,
                every,
                from,
            } => {
                let (done, kept): (Vec<_>, Vec<_>) = self
                    .unpublished
                    .drain(..)
                    .enumerate()
                    .partition(|(n, _)| n % every == from % every);
                let done: Vec<_> = done.into_iter().map(|(_, place)| place).collect();
                self.unpublished = kept.into_iter().map(|(_, place)| place).collect();
                words(self.ledger(*session).delete_published(&done).await)
            }
            Operation::ClaimUnpublished { session } => {
                let swept = self
                    .ledger(*session)
                    .claim_unpublished(self.workers[*session], ALL)
                    .await;
                words(swept.map(in_order))
            }
            Operation::Throttle { tenant, .. }
            | Operation::VerifyCredentials { tenant }
            | Operation::Pause { tenant, .. }
            | Operation::OpenCircuit { tenant }
            | Operation::CloseCircuit { tenant }
                if self.stage.settings(&id(tenant)).await.is_none() =>
            {
                "the settings are deleted".to_owned()
            }
            Operation::Throttle { tenant, wait } => words(
                self.ledger(0)
                    .throttle_account(&self.pace_key(tenant).await, *wait)
                    .await,
            ),
            Operation::VerifyCredentials { tenant } => {
                let settings = self
                    .stage
                    .settings(&id(tenant))
                    .await
                    .expect("the tenant has settings");
                self.stage.verify_credentials(&settings).await;
                self.stage
                    .settings(&id(tenant))
                    .await
                    .map(|settings| settings.pace_key)
                    .unwrap_or_default()
            }
            Operation::SetRate {
                tenant,
                calls_per_second,
            } => {
                let account = if *tenant == "gamma" { 2 } else { 1 };
                self.stage
                    .save_tenant(tenant, &draft(account, *calls_per_second))
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
            Operation::OpenCircuit { tenant } => words(
                self.ledger(0)
                    .open_circuit(&self.pace_key(tenant).await)
                    .await,
            ),
            Operation::CloseCircuit { tenant } => words(
                self.ledger(0)
                    .close_circuit(&self.pace_key(tenant).await)
                    .await,
            ),
            Operation::LookUp {
                nth_attempt,
                key,
                user,
            } => self.look_up(*nth_attempt, key, user).await,
            Operation::Wait { time, heartbeats } => self.wait(*time, *heartbeats).await,
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
    pub(super) async fn snapshot(&self) -> String {
        let mut snapshot = String::new();
        for tenant in TENANTS {
            for id in IDS {
                let row = self
                    .ledger(1)
                    .find(&key(tenant, id))
                    .await
                    .expect("the query succeeds");
                snapshot.push_str(&format!("{tenant}/{id}: {row:#?}\n"));
            }
        }
        snapshot
    }

    /// The events that another worker claims when both are released.
    pub(super) async fn leftovers(&mut self) -> String {
        for worker in self.workers {
            self.ledger(0)
                .release_worker(worker)
                .await
                .expect("a worker can be released");
        }
        let sweeper = register(self.stage).await;
        words(
            self.ledger(0)
                .claim_unpublished(sweeper, ALL)
                .await
                .map(in_order),
        )
    }

    fn ledger(&self, session: usize) -> &'a S::Ledger {
        if session == 0 {
            self.stage.ledger()
        } else {
            self.stage.second()
        }
    }

    async fn admit(&mut self, session: usize, group: &[Submission]) -> String {
        let mut admissions: Vec<Admission> = Vec::new();
        for submission in group {
            let (now, settings) = (
                self.stage.now(),
                self.stage
                    .settings(&submission.request.key().tenant_id)
                    .await,
            );
            let planned = voice_otp::admission::plan(
                &submission.request.incoming(now),
                settings.as_ref(),
                true,
                &Tuning::default(),
                now,
            );
            let mut admission = planned.expect("it is a request");
            if let (SettingsBasis::Version(version), true) =
                (&mut admission.basis, submission.stale)
            {
                *version -= 1;
            }
            if let Plan::Call(planned_call) = &mut admission.plan {
                planned_call.attempt_id = submission.attempt;
                self.attempts.extend(submission.attempt);
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
                Verdict::Admitted(admitted) => self.note(admitted.event.as_slice()),
                Verdict::Finished(events) | Verdict::AdmittedWithoutSlot(events) => {
                    self.note(events);
                }
                Verdict::Duplicate
                | Verdict::ConflictingDuplicate
                | Verdict::StaleSettings
                | Verdict::RowLocked
                | Verdict::Inadmissible(_) => {}
            }
        }
        words(verdicts)
    }

    async fn start(&mut self, session: usize, picks: &[Pick]) -> String {
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
            group.push(AttemptStart {
                delivery: Arc::new(delivery),
                attempt_id: pick.attempt,
                account_sid,
                from,
                pace_key,
            });
        }
        words(
            self.ledger(session)
                .start_attempts(self.workers[session], &group)
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

    async fn cancel(&mut self, session: usize, key: &DeliveryKey) -> String {
        let Some(delivery) = self.find(key).await else {
            return "nothing to take back".to_owned();
        };
        let change = delivery.cancel(CancelCause::Request, self.stage.now());
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

    async fn cancel_users(
        &self,
        session: usize,
        users: &[(&str, &str, Option<Duration>)],
    ) -> String {
        let cancellation =
            |(tenant, user, ago): &(&str, &str, Option<Duration>)| UserCancellation {
                tenant_id: id(tenant),
                user_ref: UserRef::parse(user).unwrap(),
                time: ago.map(|ago| self.stage.now() - ago),
            };
        let cancellations: Vec<UserCancellation> = users.iter().map(cancellation).collect();
        let ledger = self.ledger(session);
        let recorded = words(ledger.cancel_users(&cancellations).await);
        let found = ledger.find_users(&cancellations).await;
        let found = found.map(|found| found.into_iter().map(keys_of).collect::<Vec<_>>());
        recorded + &words(found)
    }

    async fn price(&self, session: usize, every: usize) -> String {
        let ledger = self.ledger(session);
        let mut claimed = ledger.claim_unpriced_calls(ALL).await;
        if let Ok(calls) = &mut claimed {
            calls.sort_by(|one, other| one.call_sid.cmp(&other.call_sid));
        }
        let price = |(n, call): (usize, &UnpricedCall)| {
            // Sums of these are exact.
            let amount = ["-0.5", "-0.25", "free"][n % 3].to_owned();
            let unit = ["USD", "EUR"][n % 2].to_owned();
            (call.call_sid.clone(), Price { amount, unit })
        };
        let calls = claimed.iter().flatten().enumerate();
        let priced: Vec<(CallSid, Price)> =
            calls.filter(|(n, _)| n % every == 0).map(price).collect();
        let cleared = words(ledger.clear_unpriced_calls(&priced).await);
        format!(
            "{}\n{cleared}\n{:#?}",
            words(claimed),
            self.stage.spend().await
        )
    }

    async fn look_up(&self, nth_attempt: usize, key: &DeliveryKey, user: &str) -> String {
        let ledger = self.ledger(0);
        let attempt = self.attempts.get(nth_attempt % self.attempts.len().max(1));
        let of_attempt = match attempt {
            Some(attempt) => words(ledger.find_attempt(*attempt).await),
            None => String::new(),
        };
        let jane = (key.clone(), UserRef::parse(user).unwrap());
        let of_user = words(ledger.find_cancelled(&[jane]).await.map(keys_of));
        let sids: Vec<CallSid> = (0..800).map(|n| call(n, CallStatus::Queued).sid).collect();
        let known = words(ledger.known_calls(&sids).await.map(BTreeSet::from_iter));
        let rivals = words(
            ledger
                .find_older_requests(key)
                .await
                .map(|rows| rows.into_iter().map(|row| row.key).collect::<BTreeSet<_>>()),
        );
        // One living worker counts, and which one differs.
        let count = |worker| ledger.count_overdue(worker, Duration::from_mins(1));
        let [one, two] = self.workers.map(count);
        let missing = format!("{}", one.await.unwrap() + two.await.unwrap());
        [of_attempt, of_user, known, rivals, missing].join("\n")
    }

    async fn wait(&mut self, time: Duration, heartbeats: [bool; 2]) -> String {
        self.stage.advance(time).await;
        let mut unpublished = String::new();
        for session in (0..2).filter(|session| heartbeats[*session]) {
            let heartbeat = self.ledger(session).heartbeat(self.workers[session]).await;
            if heartbeat.as_ref().is_ok_and(|heartbeat| !heartbeat.alive) {
                self.workers[session] = register(self.stage).await;
            }
            unpublished.push_str(&words(heartbeat));
        }
        unpublished
    }

    async fn find(&self, key: &DeliveryKey) -> Option<Delivery> {
        self.ledger(0).find(key).await.expect("the query succeeds")
    }

    fn note(&mut self, events: &[Event]) {
        self.unpublished.extend(
            events
                .iter()
                .map(|event| (event.key.clone(), event.sequence)),
        );
    }
}

fn keys_of(rows: Vec<Delivery>) -> BTreeSet<DeliveryKey> {
    rows.into_iter().map(|row| row.key).collect()
}

pub(super) fn id(tenant: &str) -> TenantId {
    TenantId::parse(tenant).unwrap()
}

/// An answer as text. The source of an error differs between the ledgers and is left out.
fn words<T: Debug>(answer: Result<T, LedgerError>) -> String {
    match answer {
        Ok(answer) => format!("{answer:#?}"),
        Err(LedgerError::Unavailable(error)) => format!("unavailable: {error}"),
        Err(LedgerError::GaveUp(error)) => format!("gave up: {error}"),
        Err(LedgerError::InvalidRow(_)) => "refused".to_owned(),
        Err(LedgerError::ProtocolViolation(what)) => format!("nonsense: {what}"),
    }
}

/// The two ledgers sort names differently.
fn in_order(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by_key(|event| (event.key.clone(), event.sequence));
    events
}
