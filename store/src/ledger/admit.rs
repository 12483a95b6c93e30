//! Admission of a group.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;
use voice_otp::delivery::{Key, Slot, WorkerEpoch};
use voice_otp::event::Event;
use voice_otp::plan::{Admission, Basis, Placement, Plan};
use voice_otp::ports::{Admitted, LedgerError, Verdict};
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::status::Status;

use super::{PgLedger, failed, is_line_conflict, is_locked, row};
use crate::keys::Keyring;

/// A group's answers, until every one is known.
type Answers = Vec<Option<Verdict>>;

/// Somebody may insert the same delivery at the same moment: then the question is asked again.
const RACES: usize = 5;

pub(super) async fn admit(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    group: &[Admission],
) -> Result<Vec<Verdict>, LedgerError> {
    let mut answers: Answers = vec![None; group.len()];
    let twins = twins(group);
    let mut open: Vec<usize> = (0..group.len())
        .filter(|place| !twins.contains_key(place))
        .collect();
    let mut held_back: Vec<usize> = twins.keys().copied().collect();
    for _ in 0..RACES {
        let asked: Vec<&Admission> = open.iter().filter_map(|place| group.get(*place)).collect();
        if asked.is_empty() {
            break;
        }
        let rows = ask(ledger, worker, &asked).await?;
        if rows.len() != asked.len() {
            return Err(LedgerError::Nonsense("an admission has no verdict"));
        }
        for ((place, admission), row) in open.iter().zip(asked).zip(&rows) {
            if let Some(answer) = answers.get_mut(*place) {
                *answer = verdict(admission, row, &ledger.keys)?;
            }
        }
        open.retain(|place| matches!(answers.get(*place), Some(None)));
        if open.is_empty() {
            // Now that their firsts are known, twins are compared with what stands in the row, like any repeat.
            for place in std::mem::take(&mut held_back) {
                let first = twins.get(&place).and_then(|first| answers.get(*first));
                if let Some(Some(
                    wait @ (Verdict::StaleSettings | Verdict::Unwanted(_) | Verdict::Busy),
                )) = first
                {
                    // A twin of what wasn't admitted for now waits with it.
                    let wait = wait.clone();
                    answers
                        .get_mut(place)
                        .map(|answer| *answer = Some(wait))
                        .unwrap_or_default();
                } else {
                    open.push(place);
                }
            }
        }
    }
    let complete: Option<Vec<Verdict>> = answers.into_iter().collect();
    complete.ok_or_else(|| {
        LedgerError::Unavailable("an admission was overtaken again and again".into())
    })
}

/// The same delivery twice in one group: where each other one stands, and where the first.
fn twins(group: &[Admission]) -> BTreeMap<usize, usize> {
    let mut firsts: HashMap<&Key, usize> = HashMap::with_capacity(group.len());
    let mut twins = BTreeMap::new();
    for (place, admission) in group.iter().enumerate() {
        let first = *firsts.entry(&admission.key).or_insert(place);
        if first != place {
            twins.insert(place, first);
        }
    }
    twins
}

async fn ask(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    group: &[&Admission],
) -> Result<Vec<Row>, LedgerError> {
    let mut columns = Columns::of(group, &ledger.keys);
    let client = ledger.client().await?;
    let mut skip = ledger.is_impatient();
    loop {
        match columns.ask(&client, ledger, worker, skip).await {
            // Another worker began a placement on one of the lines at this moment: these wait for their turn.
            Err(error)
                if is_line_conflict(&error) && columns.attempt.iter().any(Option::is_some) =>
            {
                columns.attempt.fill(None)
            }
            // Somebody holds an account's pace: whom that concerns is left out.
            Err(error) if is_locked(&error) && !skip => {
                ledger.lose_patience();
                skip = true;
            }
            rows => return rows,
        }
    }
}

fn verdict(
    admission: &Admission,
    row: &Row,
    keys: &Keyring,
) -> Result<Option<Verdict>, LedgerError> {
    let slot = || match (row.get("slot_at"), row.get("slot_epoch")) {
        (Some(at), Some(epoch)) => Ok(Slot { at, epoch }),
        _ => Err(LedgerError::Nonsense("a slot is missing")),
    };
    // Its own row of a moment ago, whose answer was lost.
    let was_known = row.get::<_, Option<&str>>("identity_key").is_some();
    let wait_ms: i64 = row.get::<_, Option<i64>>("wait_ms").unwrap_or(0);
    Ok(Some(match (row.get("verdict"), &admission.plan) {
        ("place", Plan::Place(placement)) => {
            let slot = slot()?;
            Verdict::Placing(Box::new(Admitted {
                admitted_at: row.get("admitted_at"),
                begun: row.get("begun"),
                held: row.get("held"),
                wake_at: row.get("wake_at"),
                event: (!was_known).then(|| placement.accepted.clone().filled(slot.at, wait_ms)),
                has_rivals: row.get("rivals"),
                slot,
            }))
        }
        ("parked", Plan::Place(placement)) => Verdict::Parked(
            std::iter::once(placement.accepted.clone())
                .chain(placement.parked.clone())
                .collect(),
        ),
        ("busy", Plan::Place(_)) => Verdict::Busy,
        ("backlog", Plan::Place(placement)) => {
            Verdict::Ended(vec![placement.backlog.clone().filled(slot()?.at, wait_ms)])
        }
        ("end", Plan::End(events)) => Verdict::Ended(events.clone()),
        ("known", _) => {
            let (key_id, mac): (String, Vec<u8>) =
                (row.get("identity_key"), row.get("identity_mac"));
            match keys.hash_with(&key_id, "identity", admission.identity.expose()) {
                Some(ours) if ours != mac => Verdict::Conflict,
                // Without the key there is nothing to compare; a repeat is by far the likelier.
                Some(_) | None => Verdict::Repeat,
            }
        }
        ("stale", _) => Verdict::StaleSettings,
        ("withdrawn", Plan::Place(_)) => Verdict::Unwanted(ReasonCode::CancelledByRequest),
        ("superseded", Plan::Place(_)) => Verdict::Unwanted(ReasonCode::Superseded),
        ("raced", _) => return Ok(None),
        _ => return Err(LedgerError::Nonsense("a verdict is unknown")),
    }))
}

/// The group by columns, as the statement takes it.
#[derive(Default)]
struct Columns<'a> {
    tenant: Vec<&'a str>,
    delivery: Vec<&'a str>,
    identity_key: Vec<String>,
    identity_mac: Vec<Vec<u8>>,
    user_mac: Vec<Option<Vec<u8>>>,
    requested_at: Vec<Option<Timestamp>>,
    expires_at: Vec<Timestamp>,
    to_masked: Vec<Option<&'a str>>,
    context: Vec<serde_json::Value>,
    traceparent: Vec<Option<&'a str>>,
    tracestate: Vec<Option<&'a str>>,
    sealed_key: Vec<Option<String>>,
    sealed: Vec<Option<Vec<u8>>>,
    locale: Vec<Option<&'a str>>,
    account: Vec<Option<&'a str>>,
    pace_key: Vec<Option<&'a str>>,
    parked: Vec<bool>,
    version: Vec<Option<i64>>,
    place_by: Vec<Option<Timestamp>>,
    heard_after_ms: Vec<Option<i32>>,
    attempt: Vec<Option<Uuid>>,
    line: Vec<Option<Vec<u8>>>,
    first: Events<'a>,
    second: Events<'a>,
}

#[derive(Default)]
struct Events<'a> {
    status: Vec<Option<&'static str>>,
    route: Vec<Option<&'a str>>,
    body: Vec<Option<&'a str>>,
}

impl<'a> Events<'a> {
    fn push(&mut self, event: Option<&'a Event>) {
        self.status
            .push(event.map(|event| event.status.map_or("", Status::as_str)));
        self.route
            .push(event.map(|event| event.routing_key.as_str()));
        self.body.push(event.map(|event| event.body.as_str()));
    }
}

impl<'a> Columns<'a> {
    fn of(group: &[&'a Admission], keys: &Keyring) -> Self {
        let mut columns = Self::default();
        for admission in group {
            columns.push(admission, keys);
        }
        columns
    }

    fn push(&mut self, admission: &'a Admission, keys: &Keyring) {
        let key = &admission.key;
        let (identity_key, identity_mac) = keys.hash("identity", admission.identity.expose());
        // Only what may be called takes a user's older requests back.
        let places = matches!(admission.plan, Plan::Place(_));
        let user_mac = admission.user_ref.as_ref().filter(|_| places).map(|user| {
            keys.hash("user", &format!("{}\0{}", key.tenant_id, user.as_str()))
                .1
        });
        self.tenant.push(key.tenant_id.as_str());
        self.delivery.push(key.delivery_id.as_str());
        self.identity_key.push(identity_key);
        self.identity_mac.push(identity_mac);
        self.user_mac.push(user_mac);
        self.requested_at.push(admission.requested_at);
        self.expires_at.push(admission.expires_at);
        self.to_masked.push(admission.to_masked.as_deref());
        self.context
            .push(serde_json::to_value(&admission.context).unwrap_or_default());
        self.traceparent
            .push(admission.trace.traceparent.as_deref());
        self.tracestate.push(admission.trace.tracestate.as_deref());
        self.version.push(match admission.basis {
            Basis::Nothing => Some(-1),
            Basis::NoSettings => None,
            Basis::Version(version) => Some(version),
        });
        match &admission.plan {
            Plan::Place(placement) => self.push_placement(key, placement, keys),
            Plan::End(events) => {
                self.push_nothing();
                self.first.push(events.first());
                self.second.push(events.get(1));
            }
        }
    }

    fn push_placement(&mut self, key: &Key, placement: &'a Placement, keys: &Keyring) {
        let sealed = row::seal(key, &placement.order, keys);
        self.sealed_key.push(Some(sealed.key_id));
        self.sealed.push(Some(sealed.sealed));
        self.locale.push(
            placement
                .locale
                .as_ref()
                .map(voice_otp_schemas::Locale::as_str),
        );
        self.account.push(Some(placement.account_sid.as_str()));
        self.pace_key.push(Some(&placement.pace_key));
        self.parked.push(placement.parked.is_some());
        self.place_by.push(Some(placement.place_by));
        self.heard_after_ms
            .push(i32::try_from(placement.heard_after.as_millis()).ok());
        self.attempt
            .push(placement.attempt_id.map(|attempt| attempt.0));
        self.line.push(Some(super::begin::line(
            keys,
            placement.account_sid.as_str(),
            &placement.from,
            &placement.order.to,
        )));
        self.first.push(Some(&placement.accepted));
        self.second.push(Some(
            placement.parked.as_ref().unwrap_or(&placement.backlog),
        ));
    }

    fn push_nothing(&mut self) {
        self.sealed_key.push(None);
        self.sealed.push(None);
        self.locale.push(None);
        self.account.push(None);
        self.pace_key.push(None);
        self.parked.push(false);
        self.place_by.push(None);
        self.heard_after_ms.push(None);
        self.attempt.push(None);
        self.line.push(None);
    }

    async fn ask(
        &self,
        client: &Client,
        ledger: &PgLedger,
        worker: WorkerEpoch,
        skip: bool,
    ) -> Result<Vec<Row>, LedgerError> {
        let sql = "select * from admit($1, $2, $3::double precision * interval '1 second', $4::double precision * interval '1 second', \
                   $5::double precision * interval '1 second', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, \
                   $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)";
        let statement = client.prepare_cached(sql).await.map_err(failed)?;
        let ahead = ledger.limits.begin_ahead.as_secs_f64();
        let rescue = ledger.limits.rescue.as_secs_f64();
        let hold = ledger.limits.hold_ahead.as_secs_f64();
        let params: [&(dyn ToSql + Sync); 33] = [
            &worker.0,
            &skip,
            &ahead,
            &rescue,
            &hold,
            &self.tenant,
            &self.delivery,
            &self.identity_key,
            &self.identity_mac,
            &self.user_mac,
            &self.requested_at,
            &self.expires_at,
            &self.to_masked,
            &self.context,
            &self.traceparent,
            &self.tracestate,
            &self.sealed_key,
            &self.sealed,
            &self.locale,
            &self.account,
            &self.pace_key,
            &self.parked,
            &self.version,
            &self.place_by,
            &self.heard_after_ms,
            &self.attempt,
            &self.line,
            &self.first.status,
            &self.first.route,
            &self.first.body,
            &self.second.status,
            &self.second.route,
            &self.second.body,
        ];
        client.query(&statement, &params).await.map_err(failed)
    }
}
