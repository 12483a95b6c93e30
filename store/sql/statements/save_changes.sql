-- Saves changes whose revision still holds, with their events, the attempts that ended and the
-- calls whose price is not known. One row per change, in order: whether it is saved; the owner of
-- the delivery's earliest unpublished event before these; whether another transaction has locked
-- it.
--
-- The sealed part goes with the final status, the line with the end of the attempt. A locked row
-- carries its input along and is found again by its ctid: joined by key, each row would be compared
-- with each, which for 400 changes took four fifths of the time. `final_status is null` means
-- `state <> 'final'`, but keeps the planner from reading the index of due deliveries as a whole.
--
-- $1 the worker's epoch, the new owner
-- One element per change, in parallel:
--   $2 tenant ids; $3 delivery ids; $4 revisions that the changes were computed from; $5 states;
--   $6 wake_at; $7 slot_at; $8 slot_epoch; $9 announced_at; $10 attempt; $11 attempt_id;
--   $12 intent_at; $13 settle_after; $14 call_sid; $15 heard_after_ms; $16 placed_at;
--   $17 ringing_at; $18 answered_at; $19 cancel_reason; $20 tries; $21 sequence; $22 final_status;
--   $23 ids of attempts that ended; $24 number of events; $32 voicemail; $33 played;
--   $34 answered_by; $35 redials; $36 calls of the attempts that ended; $37 unpriced calls
-- One element per event, in parallel:
--   $25 ordinal of its change, from 1; $26 sequence; $27 status; $28 routing key; $29 body;
--   $30 traceparent; $31 tracestate
with input as (
    select i.tenant_id, i.delivery_id, i.revision, i.state, i.wake_at, i.slot_at, i.slot_epoch,
           i.announced_at, i.attempt, i.attempt_id, i.intent_at, i.settle_after, i.call_sid,
           i.heard_after_ms, i.placed_at, i.ringing_at, i.answered_at, i.cancel_reason, i.tries,
           i.sequence, i.final_status, i.ended_attempt, i.events, i.voicemail, i.played,
           i.answered_by, i.redials, i.ended_call, i.unpriced_call, i.ord
      from unnest(
        $2::text[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[], $7::timestamptz[],
        $8::bigint[], $9::timestamptz[], $10::int[], $11::uuid[], $12::timestamptz[],
        $13::timestamptz[], $14::text[], $15::int[], $16::timestamptz[], $17::timestamptz[],
        $18::timestamptz[], $19::text[], $20::int[], $21::int[], $22::text[], $23::uuid[],
        $24::int[], $32::text[], $33::text[], $34::text[], $35::int[], $36::text[], $37::text[]
    ) with ordinality as i(
        tenant_id, delivery_id, revision, state, wake_at, slot_at, slot_epoch, announced_at,
        attempt, attempt_id, intent_at, settle_after, call_sid, heard_after_ms, placed_at,
        ringing_at, answered_at, cancel_reason, tries, sequence, final_status, ended_attempt,
        events, voicemail, played, answered_by, redials, ended_call, unpriced_call, ord)
     cross join batch_size_hint()
), locked as (
    select i.tenant_id, i.delivery_id, i.revision, i.state, i.wake_at, i.slot_at, i.slot_epoch,
           i.announced_at, i.attempt, i.attempt_id, i.intent_at, i.settle_after, i.call_sid,
           i.heard_after_ms, i.placed_at, i.ringing_at, i.answered_at, i.cancel_reason, i.tries,
           i.sequence, i.final_status, i.ended_attempt, i.events, i.voicemail, i.played,
           i.answered_by, i.redials, i.ended_call, i.unpriced_call, i.ord, d.at
      from (select n.tenant_id, n.delivery_id, n.revision, n.state, n.wake_at, n.slot_at,
                   n.slot_epoch, n.announced_at, n.attempt, n.attempt_id, n.intent_at,
                   n.settle_after, n.call_sid, n.heard_after_ms, n.placed_at, n.ringing_at,
                   n.answered_at, n.cancel_reason, n.tries, n.sequence, n.final_status,
                   n.ended_attempt, n.events, n.voicemail, n.played, n.answered_by, n.redials,
                   n.ended_call, n.unpriced_call, n.ord
              from input n order by n.tenant_id, n.delivery_id) i
     cross join lateral (
        select d.ctid as at from deliveries d
         where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id
           and d.revision = i.revision for update skip locked) d
), saved as (
    update deliveries d set
           revision = d.revision + 1, owner = $1, state = i.state, wake_at = i.wake_at,
           slot_at = i.slot_at, slot_epoch = i.slot_epoch, announced_at = i.announced_at,
           attempt = i.attempt, attempt_id = i.attempt_id, intent_at = i.intent_at,
           settle_after = i.settle_after, call_sid = i.call_sid,
           heard_after_ms = i.heard_after_ms, placed_at = i.placed_at,
           ringing_at = i.ringing_at, answered_at = i.answered_at,
           cancel_reason = i.cancel_reason, tries = i.tries, sequence = i.sequence,
           final_status = i.final_status, voicemail = i.voicemail, played = i.played,
           answered_by = i.answered_by, redials = i.redials,
           ended_at = case when i.final_status is not null then clock_timestamp() end,
           line = case when i.state in ('placing', 'unsettled') then d.line end,
           user_line = case when i.state in ('placing', 'unsettled', 'calling')
                            then d.user_line end,
           unannounced = false,
           concurrency_key = case when i.state in ('placing', 'unsettled', 'calling')
                                  then d.concurrency_key end,
           sealed = case when i.state <> 'final' then d.sealed end,
           sealed_key = case when i.state <> 'final' then d.sealed_key end
      from locked i where d.ctid = i.at and d.final_status is null
    returning i.ord, d.to_masked, d.context
), events_written as (
    insert into outbox (
        tenant_id, delivery_id, sequence, owner, status, routing_key, body, traceparent, tracestate)
    select i.tenant_id, i.delivery_id, e.sequence, $1, e.status, e.route, e.body, e.traceparent,
           e.tracestate
      from unnest($25::bigint[], $26::int[], $27::text[], $28::text[], $29::text[], $30::text[],
                  $31::text[])
           as e(ord, sequence, status, route, body, traceparent, tracestate)
      join saved s on s.ord = e.ord join input i on i.ord = e.ord
), attempts_ended as (
    insert into past_attempts (attempt_id, tenant_id, delivery_id, call_sid)
    select i.ended_attempt, i.tenant_id, i.delivery_id, i.ended_call
      from input i join saved s on s.ord = i.ord
     where i.ended_attempt is not null
    on conflict do nothing
), calls_unpriced as (
    insert into unpriced_calls (call_sid, tenant_id, delivery_id, attempt, to_masked, context)
    select i.unpriced_call, i.tenant_id, i.delivery_id, i.attempt, s.to_masked, s.context
      from input i join saved s on s.ord = i.ord
     where i.unpriced_call is not null
    on conflict do nothing
)
select s.ord is not null as saved,
       case when i.events > 0 then (
           select o.owner from outbox o
            where o.tenant_id = i.tenant_id and o.delivery_id = i.delivery_id
              and o.sequence <= i.sequence - i.events
            order by o.sequence limit 1) end as earlier_events_owner,
       s.ord is null and exists (
           select 1 from deliveries d
            where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id
              and d.revision = i.revision and d.final_status is null) as row_locked
  from input i left join saved s on s.ord = i.ord
 order by i.ord
