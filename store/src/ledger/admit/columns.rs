//! The parameters of the statement `admit`: the order of the fields is that of its parameters from
//! $6 on, which `sql/statements/admit.sql` lists.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;
use voice_otp::admission::{Admission, Plan, PlannedCall, SettingsBasis};
use voice_otp::event::Event;
use voice_otp::ports::{LedgerError, WorkerEpoch};
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{Context, DeliveryKey, Timestamp};

use super::super::{PgLedger, cancel, row, start};
use crate::keys::Keyring;

const ADMIT: &str = include_str!("../../../sql/statements/admit.sql");

/// A batch as the arrays that the statement takes, one element per request.
#[derive(Default)]
pub(super) struct Columns<'a> {
    tenant: Vec<&'a str>,
    delivery: Vec<&'a str>,
    /// The id of the key of `identity_mac`.
    identity_key: Vec<String>,
    /// The hash that duplicates are compared by.
    identity_mac: Vec<Vec<u8>>,
    /// The user's hash; `None`: the request names no user, or is finished at once.
    user_mac: Vec<Option<Vec<u8>>>,
    requested_at: Vec<Option<Timestamp>>,
    expires_at: Vec<Timestamp>,
    to_masked: Vec<Option<&'a str>>,
    context: Vec<serde_json::Value>,
    traceparent: Vec<Option<&'a str>>,
    tracestate: Vec<Option<&'a str>>,
    /// The id of the key of `sealed`.
    sealed_key: Vec<Option<String>>,
    /// Number, code and extension, sealed; `None`, as all fields down to `line`: the request is
    /// finished at once.
    sealed: Vec<Option<Vec<u8>>>,
    locale: Vec<Option<&'a str>>,
    account: Vec<Option<&'a str>>,
    pace_key: Vec<Option<&'a str>>,
    /// Whether the tenant or account is paused.
    paused: Vec<bool>,
    /// The version of the settings that the plan was made from; `None`: there were none; -1: the
    /// plan doesn't depend on them.
    version: Vec<Option<i64>>,
    place_by: Vec<Option<Timestamp>>,
    heard_after_ms: Vec<Option<i32>>,
    /// The id of the attempt that may start with the admission.
    attempt: Vec<Option<Uuid>>,
    line: Vec<Option<Vec<u8>>>,
    /// `accepted`; or the first status of a request that is finished at once.
    first: Events<'a>,
    /// `deferred` of a paused one, else `expired` for want of a slot; or the second status of a
    /// request that is finished at once.
    second: Events<'a>,
}

/// One status event per request; `None`: there is none.
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
    pub(super) fn of(group: &[&'a Admission], keys: &Keyring) -> Self {
        let mut columns = Self::default();
        for admission in group {
            columns.push(admission, keys);
        }
        columns
    }

    fn push(&mut self, admission: &'a Admission, keys: &Keyring) {
        let key = &admission.key;
        let (identity_key, identity_mac) = keys.hash("identity", admission.identity.expose());
        // Only a request that may be placed supersedes the user's older ones.
        let places = matches!(admission.plan, Plan::Call(_));
        let user_mac = admission.user_ref.as_ref().filter(|_| places).map(|user| {
            keys.hash("user", &cancel::hashed_text(&key.tenant_id, user))
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
        self.context.push(json(&admission.context));
        self.traceparent
            .push(admission.trace.traceparent.as_deref());
        self.tracestate.push(admission.trace.tracestate.as_deref());
        self.version.push(match admission.basis {
            SettingsBasis::NotNeeded => Some(-1),
            SettingsBasis::Missing => None,
            SettingsBasis::Version(version) => Some(version),
        });
        match &admission.plan {
            Plan::Call(call) => self.push_call(key, call, keys),
            Plan::Finish(events) => {
                self.push_no_call();
                self.first.push(events.first());
                self.second.push(events.get(1));
            }
        }
    }

    fn push_call(&mut self, key: &DeliveryKey, call: &'a PlannedCall, keys: &Keyring) {
        let sealed = row::seal(key, &call.secrets, keys);
        self.sealed_key.push(Some(sealed.key_id));
        self.sealed.push(Some(sealed.sealed));
        self.locale
            .push(call.locale.as_ref().map(voice_otp_schemas::Locale::as_str));
        self.account.push(Some(call.account_sid.as_str()));
        self.pace_key.push(Some(&call.pace_key));
        self.paused.push(call.deferred.is_some());
        self.place_by.push(Some(call.place_by));
        // Longer than any call.
        let heard_after_ms = i32::try_from(call.heard_after.as_millis()).unwrap_or(i32::MAX);
        self.heard_after_ms.push(Some(heard_after_ms));
        self.attempt.push(call.attempt_id.map(|attempt| attempt.0));
        self.line.push(Some(start::line(
            keys,
            call.account_sid.as_str(),
            &call.from,
            &call.secrets.to,
        )));
        self.first.push(Some(&call.accepted));
        self.second
            .push(Some(call.deferred.as_ref().unwrap_or(&call.expired)));
    }

    fn push_no_call(&mut self) {
        self.sealed_key.push(None);
        self.sealed.push(None);
        self.locale.push(None);
        self.account.push(None);
        self.pace_key.push(None);
        self.paused.push(false);
        self.place_by.push(None);
        self.heard_after_ms.push(None);
        self.attempt.push(None);
        self.line.push(None);
    }

    /// Whether any attempt may start with its admission.
    pub(super) fn starts_attempts(&self) -> bool {
        self.attempt.iter().any(Option::is_some)
    }

    /// Keeps all attempts from starting with their admissions.
    pub(super) fn start_no_attempts(&mut self) {
        self.attempt.fill(None);
    }

    pub(super) async fn ask(
        &self,
        ledger: &PgLedger,
        worker: WorkerEpoch,
        skip: bool,
    ) -> Result<Vec<Row>, LedgerError> {
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
            &self.paused,
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
        ledger.query(ADMIT, &params).await
    }
}

#[expect(
    clippy::expect_used,
    reason = "a map of strings always has a JSON form"
)]
fn json(context: &Context) -> serde_json::Value {
    serde_json::to_value(context).expect("a context has a JSON form")
}
