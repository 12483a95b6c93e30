-- The delivery that an attempt belongs to, and whether the attempt had a call and has ended.
-- $1 attempt id
select d.tenant_id, d.delivery_id, d.revision, d.state, d.wake_at, d.sealed_key, d.sealed,
       d.to_masked, d.locale, d.context, d.traceparent, d.tracestate, d.account_sid, d.pace_key,
       d.requested_at, d.admitted_at, d.expires_at, d.place_by, d.slot_at, d.slot_epoch,
       d.announced_at, d.attempt, d.attempt_id, d.intent_at, d.line, d.settle_after, d.call_sid,
       d.heard_after_ms, d.placed_at, d.ringing_at, d.answered_at, d.cancel_reason, d.voicemail,
       d.played, d.answered_by, d.redials, d.verified_at, d.tries, d.sequence, d.final_status,
       false as attempt_ended
  from deliveries d where d.attempt_id = $1
union all
select d.tenant_id, d.delivery_id, d.revision, d.state, d.wake_at, d.sealed_key, d.sealed,
       d.to_masked, d.locale, d.context, d.traceparent, d.tracestate, d.account_sid, d.pace_key,
       d.requested_at, d.admitted_at, d.expires_at, d.place_by, d.slot_at, d.slot_epoch,
       d.announced_at, d.attempt, d.attempt_id, d.intent_at, d.line, d.settle_after, d.call_sid,
       d.heard_after_ms, d.placed_at, d.ringing_at, d.answered_at, d.cancel_reason, d.voicemail,
       d.played, d.answered_by, d.redials, d.verified_at, d.tries, d.sequence, d.final_status,
       p.call_sid is not null
  from past_attempts p join deliveries d using (tenant_id, delivery_id)
 where p.attempt_id = $1 limit 1
