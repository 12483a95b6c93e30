-- The open deliveries of the same user that are older than this one.
-- $1 tenant id; $2 delivery id
select r.tenant_id, r.delivery_id, r.revision, r.state, r.wake_at, r.sealed_key, r.sealed,
       r.to_masked, r.locale, r.context, r.traceparent, r.tracestate, r.account_sid, r.pace_key,
       r.requested_at, r.admitted_at, r.expires_at, r.place_by, r.slot_at, r.slot_epoch,
       r.announced_at, r.attempt, r.attempt_id, r.intent_at, r.line, r.settle_after, r.call_sid,
       r.heard_after_ms, r.placed_at, r.ringing_at, r.answered_at, r.cancel_reason, r.voicemail,
       r.played, r.answered_by, r.redials, r.verified_at, r.tries, r.sequence, r.final_status
  from deliveries d join deliveries r on r.user_mac = d.user_mac
 where d.tenant_id = $1 and d.delivery_id = $2 and r.final_status is null
   and (r.user_time, r.delivery_id) < (d.user_time, d.delivery_id)
