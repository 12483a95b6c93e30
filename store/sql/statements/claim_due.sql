-- Claims deliveries that are due, or soon will be, and whose owner's lease has expired, or whose
-- owner is a minute late with them, or that have no owner; and those whose slot became later than
-- was announced. A delivery sealed with a key that this worker doesn't have is left to another.
-- The time is a row of its own: a volatile function in a condition keeps an index from being used.
-- $1 epoch; $2 ids of the keys that the worker has; $3 limit; $4 how long before its time a waiting
-- delivery may be claimed, in seconds
with clock as materialized (
    select clock_timestamp() as t
), alive as materialized (
    select epoch from workers, clock where lease_until > t
), due as (
    select d.at from clock cross join lateral (
        select d.ctid as at from deliveries d
         where d.state <> 'final' and d.wake_at <= t + $4::double precision * interval '1 second'
           and (d.state = 'waiting' or d.wake_at <= t)
           and (d.sealed_key is null or d.sealed_key = any ($2))
           and (d.owner is null or d.owner not in (select epoch from alive)
                or (d.owner <> $1 and d.wake_at < t - interval '1 minute'))
         order by d.wake_at limit $3 for update skip locked) d
), unannounced as (
    select d.ctid as at from deliveries d
     where d.unannounced and d.state <> 'final'
       and (d.sealed_key is null or d.sealed_key = any ($2))
     order by d.wake_at limit $3 for update skip locked
)
update deliveries d set owner = $1, revision = d.revision + 1, unannounced = false
  from (select at from due union select at from unannounced) claimed
 where d.ctid = claimed.at
returning d.tenant_id, d.delivery_id, d.revision, d.state, d.wake_at, d.sealed_key, d.sealed,
          d.to_masked, d.locale, d.context, d.traceparent, d.tracestate, d.account_sid, d.pace_key,
          d.requested_at, d.admitted_at, d.expires_at, d.place_by, d.slot_at, d.slot_epoch,
          d.announced_at, d.attempt, d.attempt_id, d.intent_at, d.line, d.settle_after, d.call_sid,
          d.heard_after_ms, d.placed_at, d.ringing_at, d.answered_at, d.cancel_reason, d.voicemail,
          d.played, d.answered_by, d.redials, d.verified_at, d.tries, d.sequence, d.final_status
