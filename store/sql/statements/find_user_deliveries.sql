-- The open deliveries that cancellations by user cancel, each with the number of the cancellation:
-- those whose request is not newer. By time, if both events have one; else the request is older,
-- since it is stored.
-- $1 users' hashes, by every key; $2 the cancellations' times; $3 their numbers, in parallel
select u.number, d.tenant_id, d.delivery_id, d.revision, d.state, d.wake_at, d.sealed_key,
       d.sealed, d.to_masked, d.locale, d.context, d.traceparent, d.tracestate, d.account_sid,
       d.pace_key, d.requested_at, d.admitted_at, d.expires_at, d.place_by, d.slot_at,
       d.slot_epoch, d.announced_at, d.attempt, d.attempt_id, d.intent_at, d.line, d.settle_after,
       d.call_sid, d.heard_after_ms, d.placed_at, d.ringing_at, d.answered_at, d.cancel_reason,
       d.voicemail, d.played, d.answered_by, d.redials, d.verified_at, d.tries, d.sequence,
       d.final_status
  from unnest($1::bytea[], $2::timestamptz[], $3::bigint[]) as u(user_mac, time, number)
 cross join batch_size_hint()
 cross join lateral (
    select o.tenant_id, o.delivery_id, o.revision, o.state, o.wake_at, o.sealed_key, o.sealed,
           o.to_masked, o.locale, o.context, o.traceparent, o.tracestate, o.account_sid,
           o.pace_key, o.requested_at, o.admitted_at, o.expires_at, o.place_by, o.slot_at,
           o.slot_epoch, o.announced_at, o.attempt, o.attempt_id, o.intent_at, o.line,
           o.settle_after, o.call_sid, o.heard_after_ms, o.placed_at, o.ringing_at, o.answered_at,
           o.cancel_reason, o.voicemail, o.played, o.answered_by, o.redials, o.verified_at,
           o.tries, o.sequence, o.final_status
      from deliveries o
     where o.user_mac = u.user_mac and o.final_status is null
       and (u.time is null or o.requested_at is null or o.requested_at <= u.time) offset 0) d
