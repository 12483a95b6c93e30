//! Saving changes.

use tokio_postgres::types::ToSql;
use uuid::Uuid;
use voice_otp::account::CallSid;
use voice_otp::delivery::{Change, Delivery, Said, WorkerEpoch};
use voice_otp::ports::{LedgerError, Lower, Saved};
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::status::Status;

use super::{PgLedger, row};

/// One statement: the rows, locked in key order as every statement does, whose revision still holds, their events, and what
/// attempts are over. The secret part goes with the final status, the line with the end of the placement. What is locked carries
/// the input along and is found again by its place: joined by keys, each would be compared with each, which for four hundred took
/// four fifths of the time. `ended is null` is `state <> 'final'` without the index of what is due, which the planner would read whole.
const SAVE: &str = "with input as (select * from unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[], \
    $7::timestamptz[], $8::bigint[], $9::timestamptz[], $10::int[], $11::uuid[], $12::timestamptz[], $13::timestamptz[], \
    $14::text[], $15::int[], $16::timestamptz[], $17::timestamptz[], $18::timestamptz[], $19::text[], $20::int[], $21::int[], \
    $22::text[], $23::uuid[], $24::int[], $32::text[], $33::text[], $34::text[], $35::int[], $36::text[], $37::text[]) with ordinality as i(tenant_id, delivery_id, revision, state, wake_at, slot_at, \
    slot_epoch, announced_at, attempt, attempt_id, intent_at, settle_after, call_sid, heard_after_ms, placed_at, ringing_at, \
    answered_at, withdrawn, tries, sequence, ended, retired, events, \
    voicemail, said, answered_by, redials, retired_call, unpriced, ord) cross join as_many()), \
  locked as (select i.*, d.at from (select * from input order by tenant_id, delivery_id) i cross join lateral \
      (select d.ctid as at from deliveries d where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id \
         and d.revision = i.revision for update skip locked) d), \
  saved as (update deliveries d set revision = d.revision + 1, owner = $1, state = i.state, wake_at = i.wake_at, \
      slot_at = i.slot_at, slot_epoch = i.slot_epoch, announced_at = i.announced_at, attempt = i.attempt, \
      attempt_id = i.attempt_id, intent_at = i.intent_at, settle_after = i.settle_after, call_sid = i.call_sid, \
      heard_after_ms = i.heard_after_ms, placed_at = i.placed_at, ringing_at = i.ringing_at, answered_at = i.answered_at, \
      withdrawn = i.withdrawn, tries = i.tries, sequence = i.sequence, ended = i.ended, \
      voicemail = i.voicemail, said = i.said, answered_by = i.answered_by, redials = i.redials, \
      ended_at = case when i.ended is not null then clock_timestamp() end, \
      line = case when i.state in ('placing', 'unsettled') then d.line end, \
      user_line = case when i.state in ('placing', 'unsettled', 'calling') then d.user_line end, \
      untold = false, counted = case when i.state in ('placing', 'unsettled', 'calling') then d.counted end, \
      sealed = case when i.state <> 'final' then d.sealed end, \
      sealed_key = case when i.state <> 'final' then d.sealed_key end \
    from locked i where d.ctid = i.at and d.ended is null returning i.ord, d.to_masked, d.context), \
  told as (insert into outbox (tenant_id, delivery_id, sequence, owner, status, routing_key, body, traceparent, tracestate) \
    select i.tenant_id, i.delivery_id, e.sequence, $1, e.status, e.route, e.body, e.traceparent, e.tracestate \
      from unnest($25::bigint[], $26::int[], $27::text[], $28::text[], $29::text[], $30::text[], $31::text[]) \
        as e(ord, sequence, status, route, body, traceparent, tracestate) \
      join saved s on s.ord = e.ord join input i on i.ord = e.ord), \
  past as (insert into past_attempts (attempt_id, tenant_id, delivery_id, call_sid) \
      select i.retired, i.tenant_id, i.delivery_id, i.retired_call \
      from input i join saved s on s.ord = i.ord where i.retired is not null on conflict do nothing), \
  owed as (insert into unpriced_calls (call_sid, tenant_id, delivery_id, attempt, to_masked, context) \
      select i.unpriced, i.tenant_id, i.delivery_id, i.attempt, s.to_masked, s.context \
      from input i join saved s on s.ord = i.ord where i.unpriced is not null on conflict do nothing) \
  select s.ord is not null, case when i.events > 0 then (select o.owner from outbox o where o.tenant_id = i.tenant_id \
      and o.delivery_id = i.delivery_id and o.sequence <= i.sequence - i.events order by o.sequence limit 1) end, \
    s.ord is null and exists (select 1 from deliveries d where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id \
      and d.revision = i.revision and d.ended is null) \
    from input i left join saved s on s.ord = i.ord order by i.ord";

pub(super) async fn save(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    group: &[Change],
) -> Result<Vec<Saved>, LedgerError> {
    let all = |column: fn(&Delivery) -> Option<Timestamp>| -> Vec<Option<Timestamp>> {
        group
            .iter()
            .map(|change| column(&change.delivery))
            .collect()
    };
    let numbers = |column: fn(&Change) -> u32| -> Vec<i32> {
        group
            .iter()
            .map(|change| column(change).cast_signed())
            .collect()
    };
    let deliveries = || group.iter().map(|change| &change.delivery);

    let tenants: Vec<&str> = deliveries()
        .map(|delivery| delivery.key.tenant_id.as_str())
        .collect();
    let ids: Vec<&str> = deliveries()
        .map(|delivery| delivery.key.delivery_id.as_str())
        .collect();
    let revisions: Vec<i64> = deliveries().map(|delivery| delivery.revision).collect();
    let states: Vec<&str> = deliveries()
        .map(|delivery| delivery.state.as_str())
        .collect();
    let wake: Vec<Timestamp> = deliveries().map(|delivery| delivery.wake_at).collect();
    let slots = all(|delivery| delivery.slot.map(|slot| slot.at));
    let slot_epochs: Vec<Option<i64>> = deliveries()
        .map(|delivery| delivery.slot.map(|slot| slot.epoch))
        .collect();
    let announced = all(|delivery| delivery.announced_at);
    let attempts = numbers(|change| change.delivery.attempt);
    let attempt_ids: Vec<Option<Uuid>> = deliveries()
        .map(|delivery| delivery.attempt_id.map(|id| id.0))
        .collect();
    let intents = all(|delivery| delivery.intent_at);
    let settle = all(|delivery| delivery.settle_after);
    let sids: Vec<Option<&str>> = deliveries()
        .map(|delivery| delivery.call_sid.as_ref().map(CallSid::as_str))
        .collect();
    let heard = numbers(|change| {
        u32::try_from(change.delivery.heard_after.as_millis()).unwrap_or(u32::MAX >> 1)
    });
    let (placed, ringing, answered) = (
        all(|delivery| delivery.placed_at),
        all(|delivery| delivery.ringing_at),
        all(|delivery| delivery.answered_at),
    );
    let withdrawn: Vec<Option<String>> = deliveries()
        .map(|delivery| delivery.withdrawn.and_then(row::reason_word))
        .collect();
    let tries = numbers(|change| change.delivery.tries);
    let sequences = numbers(|change| change.delivery.sequence);
    let ended: Vec<Option<&str>> = deliveries()
        .map(|delivery| delivery.ended.map(Status::as_str))
        .collect();
    let retired: Vec<Option<Uuid>> = group
        .iter()
        .map(|change| change.retired.as_ref().map(|retired| retired.attempt.0))
        .collect();
    let retired_calls: Vec<Option<&str>> = group
        .iter()
        .map(|change| change.retired.as_ref()?.call.as_ref().map(CallSid::as_str))
        .collect();
    let unpriced: Vec<Option<&str>> = group
        .iter()
        .map(|change| change.unpriced.as_ref().map(CallSid::as_str))
        .collect();
    let voicemail: Vec<&str> = deliveries()
        .map(|delivery| delivery.voicemail.as_str())
        .collect();
    let said: Vec<Option<&str>> = deliveries()
        .map(|delivery| delivery.said.map(Said::as_str))
        .collect();
    let answered_by: Vec<Option<&str>> = deliveries()
        .map(|delivery| delivery.answered_by.as_deref())
        .collect();
    let redials = numbers(|change| change.delivery.redials);
    let event_counts = numbers(|change| u32::try_from(change.events.len()).unwrap_or(0));

    let events: Vec<(i64, &voice_otp::event::Event)> = (1..)
        .zip(group)
        .flat_map(|(ord, change)| change.events.iter().map(move |event| (ord, event)))
        .collect();
    let event_ords: Vec<i64> = events.iter().map(|(ord, _)| *ord).collect();
    let event_sequences: Vec<i32> = events
        .iter()
        .map(|(_, event)| event.sequence.cast_signed())
        .collect();
    let event_statuses: Vec<&str> = events
        .iter()
        .map(|(_, event)| event.status.map_or("", Status::as_str))
        .collect();
    let routes: Vec<&str> = events
        .iter()
        .map(|(_, event)| event.routing_key.as_str())
        .collect();
    let bodies: Vec<&str> = events
        .iter()
        .map(|(_, event)| event.body.as_str())
        .collect();
    let parents: Vec<Option<&str>> = events
        .iter()
        .map(|(_, event)| event.trace.traceparent.as_deref())
        .collect();
    let trace_states: Vec<Option<&str>> = events
        .iter()
        .map(|(_, event)| event.trace.tracestate.as_deref())
        .collect();

    let params: [&(dyn ToSql + Sync); 37] = [
        &worker.0,
        &tenants,
        &ids,
        &revisions,
        &states,
        &wake,
        &slots,
        &slot_epochs,
        &announced,
        &attempts,
        &attempt_ids,
        &intents,
        &settle,
        &sids,
        &heard,
        &placed,
        &ringing,
        &answered,
        &withdrawn,
        &tries,
        &sequences,
        &ended,
        &retired,
        &event_counts,
        &event_ords,
        &event_sequences,
        &event_statuses,
        &routes,
        &bodies,
        &parents,
        &trace_states,
        &voicemail,
        &said,
        &answered_by,
        &redials,
        &retired_calls,
        &unpriced,
    ];
    let rows = ledger.query(SAVE, &params).await?;
    if rows.len() != group.len() {
        return Err(LedgerError::Nonsense("a save has no answer"));
    }
    Ok(rows.iter().map(|row| answer(worker, row)).collect())
}

fn answer(worker: WorkerEpoch, row: &tokio_postgres::Row) -> Saved {
    if !row.get::<_, bool>(0) {
        return if row.get(2) {
            Saved::Busy
        } else {
            Saved::Conflict
        };
    }
    Saved::Saved {
        lower: match row.get::<_, Option<i64>>(1) {
            None => Lower::Published,
            Some(owner) if owner == worker.0 => Lower::Mine,
            Some(_) => Lower::Others,
        },
    }
}
