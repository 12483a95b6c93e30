-- The worker's own deliveries that it should have attended to some time ago.
-- $1 epoch; $2 how long ago, in seconds; $3 limit
select d.tenant_id, d.delivery_id, d.revision, d.state, d.wake_at, d.sealed_key, d.sealed,
       d.to_masked, d.locale, d.context, d.traceparent, d.tracestate, d.account_sid, d.pace_key,
       d.requested_at, d.admitted_at, d.expires_at, d.place_by, d.slot_at, d.slot_epoch,
       d.announced_at, d.attempt, d.attempt_id, d.intent_at, d.line, d.settle_after, d.call_sid,
       d.heard_after_ms, d.placed_at, d.ringing_at, d.answered_at, d.cancel_reason, d.voicemail,
       d.played, d.answered_by, d.redials, d.verified_at, d.tries, d.sequence, d.final_status
  from (select clock_timestamp() - $2::double precision * interval '1 second' as t offset 0) clock
 cross join lateral (
    select o.tenant_id, o.delivery_id, o.revision, o.state, o.wake_at, o.sealed_key, o.sealed,
           o.to_masked, o.locale, o.context, o.traceparent, o.tracestate, o.account_sid, o.pace_key,
           o.requested_at, o.admitted_at, o.expires_at, o.place_by, o.slot_at, o.slot_epoch,
           o.announced_at, o.attempt, o.attempt_id, o.intent_at, o.line, o.settle_after, o.call_sid,
           o.heard_after_ms, o.placed_at, o.ringing_at, o.answered_at, o.cancel_reason, o.voicemail,
           o.played, o.answered_by, o.redials, o.verified_at, o.tries, o.sequence, o.final_status
      from deliveries o
     where o.owner = $1 and o.state <> 'final' and o.wake_at < t
     order by o.wake_at limit $3) d
