-- Calls claim_deliveries(); see functions/claim_deliveries.sql.
-- $1 epoch; $2 ids of the keys that the worker has; $3 limit; $4 how long before its time a waiting
-- delivery may be claimed, $5 how overdue an own delivery must be to be listed, in seconds, or null
select tenant_id, delivery_id, revision, state, wake_at, sealed_key, sealed,
       to_masked, locale, context, traceparent, tracestate, account_sid, pace_key,
       requested_at, admitted_at, expires_at, place_by, slot_at, slot_epoch,
       announced_at, attempt, attempt_id, intent_at, line, settle_after, call_sid,
       heard_after_ms, placed_at, ringing_at, answered_at, cancel_reason, voicemail,
       played, answered_by, redials, verified_at, tries, sequence, final_status, is_parked
  from claim_deliveries(
    $1, $2, $3, $4::double precision * interval '1 second',
    $5::double precision * interval '1 second') c
