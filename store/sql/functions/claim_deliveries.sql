-- claim_deliveries(worker, keys, limit, ahead, forgotten)
--
-- What a worker does a few times a second: gives slots to the deliveries that wait in queues, and
-- claims what is due. Returns the claimed deliveries, each with its slot.
--
-- Inputs
--   in_worker     epoch of the worker, which owns what it claims
--   in_keys       the keys that the worker has. A delivery sealed with another key is left to
--                 another worker until its code has expired; then any worker may end it
--   in_limit      how many deliveries each step takes
--   in_ahead      how long before its time a waiting delivery is claimed
--   in_forgotten  how overdue a delivery of the worker's own must be to be listed too; null: lists
--                 none
--
-- Steps
--   1. Counts one queue that was not counted for five seconds, and corrects the estimate of its
--      end.
--   2. Of each queue whose next slot is due within in_ahead: gives the slots that lie within it, in
--      the order of admission, deliveries without an attempt first. One that can't be in time,
--      whose tenant is paused, or that waits for a retry, is passed over. A queue in which nothing
--      is left is ended, unless the circuit is open.
--   3. Claims deliveries that are due, or wait and will be within in_ahead, and that no living
--      worker owns, or whose owner is a minute late with them. One that waits with a void slot
--      while there is a queue is parked instead: it loses the slot and the owner, and is due at its
--      deadline. It is returned with is_parked, since a step full of those is repeated at once.
--   4. Lists the worker's own overdue deliveries.
--
-- Locks, in order: pacing rows, then deliveries. It never waits for a lock: locked rows are left to
-- the next call.
--
-- Must never give a slot before the end of a hold, two deliveries the same slot, nor lock a pacing
-- row while it counts.
--
-- Performance: as of admit(). The time is a variable: a volatile function in a condition keeps an
-- index from being used.
create or replace function claim_deliveries(
    in_worker bigint, in_keys text[], in_limit bigint, in_ahead interval, in_forgotten interval
) returns table (
    tenant_id text, delivery_id text, revision bigint, state text, wake_at timestamptz, sealed_key
    text, sealed bytea, to_masked text, locale text, context jsonb, traceparent text, tracestate
    text, account_sid text, pace_key text, requested_at timestamptz, admitted_at timestamptz,
    expires_at timestamptz, place_by timestamptz, slot_at timestamptz, slot_epoch bigint,
    announced_at timestamptz, attempt integer, attempt_id uuid, intent_at timestamptz, line bytea,
    settle_after timestamptz, call_sid text, heard_after_ms integer, placed_at timestamptz,
    ringing_at timestamptz, answered_at timestamptz, cancel_reason text, voicemail text, played
    text, answered_by text, redials integer, verified_at timestamptz, tries integer, sequence
    integer, final_status text, is_parked boolean
) language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    t timestamptz := clock_timestamp();
    -- A slot that is given now can't be used at once: the answer is on its way.
    lead_time constant interval := '100 milliseconds';
    -- A slot closer to the deadline couldn't be used in time.
    margin constant interval := '5 milliseconds';
    alive bigint[];
    pace record;
    wanted bigint;
    waiting bigint;
begin
    select coalesce(array_agg(w.epoch), '{}') into alive from workers w where w.lease_until > t;
    select p.pace_key, p.epoch, p.account_sid,
           greatest(p.interval_us, coalesce(p.probe_interval_us, 0)) as step_us
      into pace
      from pacing p
     where p.queue_until is not null and p.queue_counted_at < t - interval '5 seconds'
       and not exists (select 1 from accounts a where a.account_sid = p.account_sid and a.paused)
     order by p.queue_counted_at, p.pace_key limit 1;
    if found then
        select count(*) into waiting
          from deliveries d
         where d.pace_key = pace.pace_key and d.state = 'waiting'
           and d.slot_epoch is distinct from pace.epoch
           and (d.slot_at is not null or d.wake_at >= d.place_by)
           and d.tenant_id <> all (array(
               select s.tenant_id from voice_settings s
                where s.account_sid = pace.account_sid and s.paused));
        update pacing p set
               queue_until = greatest(p.tat, p.hold_until, t)
                   + waiting * pace.step_us * interval '1 microsecond',
               queue_counted_at = t
          from (select q.ctid as at from pacing q
                 where q.pace_key = pace.pace_key and q.epoch = pace.epoch
                   and q.queue_until is not null for update skip locked) q
         where p.ctid = q.at;
        -- Counting took a while.
        t := clock_timestamp();
    end if;
    for pace in
        select p.ctid as at, p.pace_key, p.epoch,
               greatest(p.tat, t + lead_time, p.hold_until) as base,
               greatest(p.interval_us, coalesce(p.probe_interval_us, 0)) as step_us
          from pacing p
         where p.queue_until is not null and p.tat <= t + in_ahead and p.hold_until <= t + in_ahead
           and not exists (
               select 1 from accounts a where a.account_sid = p.account_sid and a.paused)
         order by p.queue_counted_at, p.pace_key limit 50
           for update of p skip locked
    loop
        wanted := least(in_limit, 1 +
            (extract(epoch from t + in_ahead - pace.base) * 1000000)::bigint / pace.step_us);
        return query
        with recursive tenants as (
            -- The tenants of the queue, one step of the index each.
            (select d.tenant_id from deliveries d
              where d.pace_key = pace.pace_key and d.state = 'waiting'
              order by d.tenant_id limit 1)
            union all
            select (select d.tenant_id from deliveries d
                     where d.pace_key = pace.pace_key and d.state = 'waiting'
                       and d.tenant_id > x.tenant_id
                     order by d.tenant_id limit 1)
              from tenants x where x.tenant_id is not null
        ), queued as materialized (
            select d.at, d.place_by, d.owner,
                   row_number() over (
                       order by d.is_retry, d.admitted_at, x.tenant_id, d.delivery_id) as nth
              from tenants x
              left join voice_settings s on s.tenant_id = x.tenant_id
             cross join lateral (
                select d.ctid as at, d.place_by, d.owner, d.attempt > 0 as is_retry,
                       d.admitted_at, d.delivery_id
                  from deliveries d
                 where d.pace_key = pace.pace_key and d.tenant_id = x.tenant_id
                   and d.state = 'waiting' and d.slot_epoch is distinct from pace.epoch
                   and (d.slot_at is not null or d.wake_at >= d.place_by)
                   and d.place_by >= pace.base + margin
                   and (d.sealed_key is null or d.sealed_key = any (in_keys))
                 order by (d.attempt > 0), d.admitted_at, d.delivery_id limit wanted) d
             where x.tenant_id is not null and not coalesce(s.paused, false)
        ), taken as materialized (
            select q.at, q.place_by, q.nth
              from queued q join deliveries d on d.ctid = q.at
             where q.nth <= wanted
               and (q.owner is null or q.owner = in_worker or q.owner <> all (alive))
               for update of d skip locked
        ), foreign_keys as materialized (
            -- What waits for a worker with another key, looked at only where nothing else is left.
            select 1 as one
              from tenants x
              left join voice_settings s on s.tenant_id = x.tenant_id
             cross join lateral (
                select 1 from deliveries d
                 where d.pace_key = pace.pace_key and d.tenant_id = x.tenant_id
                   and d.state = 'waiting' and d.slot_epoch is distinct from pace.epoch
                   and (d.slot_at is not null or d.wake_at >= d.place_by)
                   and d.sealed_key <> all (in_keys) limit 1) d
             where x.tenant_id is not null and not coalesce(s.paused, false)
               and (select count(*) from queued q) < wanted
             limit 1
        ), slots_if_all as (
            -- As if every delivery got a slot. One that would be too late gets none, and the others
            -- move up.
            select k.at, k.nth, k.place_by,
                   pace.base + (row_number() over (order by k.nth) - 1)
                       * pace.step_us * interval '1 microsecond' <= k.place_by - margin as in_time
              from taken k
        ), slotted as materialized (
            select s.at,
                   pace.base + (row_number() over (order by s.nth) - 1)
                       * pace.step_us * interval '1 microsecond' as slot_at
              from slots_if_all s where s.in_time
        ), claimed as (
            update deliveries d set
                   owner = in_worker, revision = d.revision + 1, slot_at = s.slot_at,
                   slot_epoch = pace.epoch, wake_at = s.slot_at, unannounced = false
              from slotted s where d.ctid = s.at
            returning d.tenant_id, d.delivery_id, d.revision, d.state, d.wake_at, d.sealed_key,
                      d.sealed, d.to_masked, d.locale, d.context, d.traceparent, d.tracestate,
                      d.account_sid, d.pace_key, d.requested_at, d.admitted_at, d.expires_at,
                      d.place_by, d.slot_at, d.slot_epoch, d.announced_at, d.attempt, d.attempt_id,
                      d.intent_at, d.line, d.settle_after, d.call_sid, d.heard_after_ms,
                      d.placed_at, d.ringing_at, d.answered_at, d.cancel_reason, d.voicemail,
                      d.played, d.answered_by, d.redials, d.verified_at, d.tries, d.sequence,
                      d.final_status
        ), pacing_moved as (
            update pacing p set
                   tat = coalesce((select max(s.slot_at) from slotted s)
                                  + pace.step_us * interval '1 microsecond', p.tat),
                   queue_until = case when p.probe_interval_us is not null
                                        or (select count(*) from queued q) >= wanted
                                        or exists (select 1 from foreign_keys f)
                                      then p.queue_until end
             where p.ctid = pace.at
               and ((select count(*) from slotted s) > 0
                    or p.probe_interval_us is null
                       and (select count(*) from queued q) < wanted
                       and not exists (select 1 from foreign_keys f))
        )
        select c.tenant_id, c.delivery_id, c.revision, c.state, c.wake_at, c.sealed_key, c.sealed,
               c.to_masked, c.locale, c.context, c.traceparent, c.tracestate, c.account_sid,
               c.pace_key, c.requested_at, c.admitted_at, c.expires_at, c.place_by, c.slot_at,
               c.slot_epoch, c.announced_at, c.attempt, c.attempt_id, c.intent_at, c.line,
               c.settle_after, c.call_sid, c.heard_after_ms, c.placed_at, c.ringing_at,
               c.answered_at, c.cancel_reason, c.voicemail, c.played, c.answered_by, c.redials,
               c.verified_at, c.tries, c.sequence, c.final_status, false
          from claimed c;
    end loop;
    return query
    with due as materialized (
        select d.ctid as at,
               d.state || '' = 'waiting' and d.slot_at is not null
                   and d.place_by > t + in_ahead and p.pace_key is not null as is_parked
          from deliveries d
          left join pacing p
            on p.pace_key = d.pace_key and p.queue_until is not null
           and p.epoch is distinct from d.slot_epoch
         where d.state <> 'final' and d.wake_at <= t + in_ahead
           and (d.state = 'waiting' or d.wake_at <= t)
           and (d.sealed_key is null or d.sealed_key = any (in_keys) or d.expires_at < t)
           and (d.owner is null or d.owner <> all (alive)
                or (d.owner <> in_worker and d.wake_at < t - interval '1 minute'
                    -- It waits for its turn to be looked up at Twilio.
                    and (d.state <> 'unsettled' or d.expires_at < t - interval '1 minute')))
         order by d.wake_at limit in_limit for update of d skip locked
    )
    update deliveries d set
           revision = d.revision + 1, unannounced = false,
           owner = case when not c.is_parked then in_worker end,
           slot_at = case when not c.is_parked then d.slot_at end,
           slot_epoch = case when not c.is_parked then d.slot_epoch end,
           wake_at = case when c.is_parked then d.place_by else d.wake_at end
      from due c where d.ctid = c.at
    returning d.tenant_id, d.delivery_id, d.revision, d.state, d.wake_at, d.sealed_key, d.sealed,
              d.to_masked, d.locale, d.context, d.traceparent, d.tracestate, d.account_sid,
              d.pace_key, d.requested_at, d.admitted_at, d.expires_at, d.place_by, d.slot_at,
              d.slot_epoch, d.announced_at, d.attempt, d.attempt_id, d.intent_at, d.line,
              d.settle_after, d.call_sid, d.heard_after_ms, d.placed_at, d.ringing_at,
              d.answered_at, d.cancel_reason, d.voicemail, d.played, d.answered_by, d.redials,
              d.verified_at, d.tries, d.sequence, d.final_status, c.is_parked;
    if in_forgotten is not null then
        return query
        select d.tenant_id, d.delivery_id, d.revision, d.state, d.wake_at, d.sealed_key, d.sealed,
               d.to_masked, d.locale, d.context, d.traceparent, d.tracestate, d.account_sid,
               d.pace_key, d.requested_at, d.admitted_at, d.expires_at, d.place_by, d.slot_at,
               d.slot_epoch, d.announced_at, d.attempt, d.attempt_id, d.intent_at, d.line,
               d.settle_after, d.call_sid, d.heard_after_ms, d.placed_at, d.ringing_at,
               d.answered_at, d.cancel_reason, d.voicemail, d.played, d.answered_by, d.redials,
               d.verified_at, d.tries, d.sequence, d.final_status, false
          from deliveries d
         where d.owner = in_worker and d.state <> 'final' and d.wake_at < t - in_forgotten
         order by d.wake_at limit in_limit;
    end if;
end $$;
