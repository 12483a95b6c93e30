-- admit(worker, limits, one array per column of the batch)
--
-- Admits a batch of requests: decides for each whether it is new, reserves slots, inserts
-- deliveries, starts attempts that can be sent now, and writes the statuses. Returns one row per
-- input, with its ordinal from 1, in order.
--
-- Inputs
--   in_worker        epoch of the worker that asks; it owns what is due soon, and the events
--   in_skip          what to do about pacing rows that another transaction has locked; see
--                    lock_pacing()
--   in_begin_ahead   an attempt starts with its admission if its slot is no further ahead than this
--   in_rescue        when an attempt that was started needs attention, if nothing happens to it
--   in_hold_ahead    a delivery due later than this gets no owner
--   the arrays       run in parallel, with one element per request, and no delivery twice:
--     in_paused        planned for a paused tenant or account
--     in_version       of the settings that the plan was made from; null: there were none; -1: the
--                      plan doesn't depend on them
--     in_pace_key      null: the request is to be finished at once, with the given statuses
--     in_attempt       the attempt's id; null: it must not start with the admission
--     in_status1 ...   to be placed: the status `accepted`
--     in_status2 ...   to be placed: `expired`, for want of a slot; paused: `deferred`
--                      to be finished: the two statuses, the second may be null
--
-- Locks, in order: the pacing rows of the batch, by key (lock_pacing); the inserted deliveries, by
-- key; the shares of tenants (tenant_slots), which are only written with the pacing row locked. Two
-- batches can't deadlock. A pacing row whose backlog is longer than the life of every code in the
-- batch is not locked: a flood of refusals locks nothing.
--
-- Verdicts
--   admitted               new, to be placed: slot_at is reserved. begun: the attempt is started,
--                          state placing. held: the worker owns it. has_older_requests: the user
--                          has open deliveries that this one supersedes. Also the request's own
--                          row, if an earlier answer was lost; identity_key is set then.
--                          While the account has a queue, the request has no slot and no owner:
--                          it joins the queue, slot_at is the estimate of its slot, and it is due
--                          at its deadline. While the circuit is open, one that is late only for
--                          the circuit joins too; slot_at is its deadline then.
--   admitted_without_slot  new, paused: due at its deadline
--   finished               new, and final: the given statuses are written
--   account_backlog        new, and final: no slot before the deadline, or the tenant's share of
--                          the slots is used up. slot_at and wait_ms say when it would have been
--                          due
--   duplicate              the delivery id is known; identity_key and identity_mac are returned,
--                          for comparing the content
--   stale_settings         the tenant's settings have another version: nothing was done
--   cancelled              cancelled before it arrived (a tombstone, or a cancellation of its user
--                          that is not older): nothing was done; the caller plans it again
--   superseded             a newer request of the user is known: nothing was done; the caller plans
--                          it again as finished
--   row_locked             the pacing row is locked, and in_skip: nothing was done
--   race                   another transaction inserted it at this moment: ask again
--
-- Must never move a rate limit for a request that isn't new, start two attempts on one line or for
-- one user, or place a call for a tombstone.
--
-- Performance: its cost must not depend on how much waits or is archived. It is planned once per
-- connection, whatever the tables then hold. Keys are looked up in laterals with a limit, and rows
-- found again by ctid, so that only an index will do.
create or replace function admit(
    in_worker bigint, in_skip boolean, in_begin_ahead interval, in_rescue interval,
    in_hold_ahead interval,
    in_tenant text[], in_delivery text[], in_identity_key text[], in_identity_mac bytea[],
    in_user_mac bytea[], in_requested_at timestamptz[], in_expires_at timestamptz[],
    in_to_masked text[], in_context jsonb[], in_traceparent text[], in_tracestate text[],
    in_sealed_key text[], in_sealed bytea[], in_locale text[], in_account text[],
    in_pace_key text[], in_paused boolean[], in_version bigint[], in_place_by timestamptz[],
    in_heard_after_ms integer[], in_attempt uuid[], in_line bytea[],
    in_status1 text[], in_route1 text[], in_body1 text[],
    in_status2 text[], in_route2 text[], in_body2 text[]
) returns table (
    ord bigint, verdict text, slot_at timestamptz, slot_epoch bigint, begun boolean,
    admitted_at timestamptz, wake_at timestamptz, wait_ms bigint, identity_key text,
    identity_mac bytea, has_older_requests boolean, held boolean
) language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    t timestamptz;
    to_lock text[];
    locked text[];
    known_keys text[];
    known_macs bytea[];
    -- A slot closer to the deadline couldn't be used in time.
    margin constant interval := '5 milliseconds';
begin
    if exists (select 1 from unnest(in_pace_key) as x(k) left join pacing p on p.pace_key = x.k
                where x.k is not null and p.pace_key is null) then
        perform ensure_pacing(in_pace_key, in_account);
    end if;
    select array_agg(w.pace_key) into to_lock
      from (select x.pace_key, max(x.place_by) filter (where not x.paused) as place_by,
                   bool_or(x.paused) as paused
              from unnest(in_pace_key, in_place_by, in_paused) as x(pace_key, place_by, paused)
             where x.pace_key is not null group by x.pace_key) w
      join pacing p on p.pace_key = w.pace_key
     -- A paused request waits for a resumption under way: it would not see the new row.
     where w.paused
        or greatest(case when p.probe_interval_us is null then coalesce(p.queue_until, p.tat) end,
                    clock_timestamp(), p.hold_until) <= w.place_by - margin;
    -- Repeats, before the locks. One that is archived in between is known from here.
    select array_agg(coalesce(d.identity_key, f.identity_key) order by i.ord),
           array_agg(coalesce(d.identity_mac, f.identity_mac) order by i.ord)
      into known_keys, known_macs
      from unnest(in_tenant, in_delivery) with ordinality as i(tenant_id, delivery_id, ord)
     cross join batch_size_hint()
      left join lateral (
        select d.identity_key, d.identity_mac from deliveries d
         where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id limit 1) d on true
      left join lateral (
        select f.identity_key, f.identity_mac from finished_keys f
         where d.identity_key is null and f.tenant_id = i.tenant_id
           and f.delivery_id = i.delivery_id limit 1) f on true;
    locked := lock_pacing(to_lock, in_skip);
    -- After the locks: what is read from here on is current, and this is the time of the
    -- reservations.
    t := clock_timestamp();
    return query
    -- Each step adds its columns to those of the step before it.
    with looked_up as (
        select coalesce(d.identity_key, i.known_key, '') <> '' as known,
               coalesce(d.identity_key, i.known_key) as known_key,
               coalesce(d.identity_mac, i.known_mac) as known_mac,
               -- Started by this very attempt: the request's own row, whose answer was lost.
               coalesce(d.attempt_id = i.attempt_id and d.state = 'placing' and d.revision = 1,
                        false) as own_row,
               d.slot_at as known_slot_at, d.slot_epoch as known_epoch,
               d.admitted_at as known_at, d.wake_at as known_wake_at,
               i.version is distinct from -1 and s.version is distinct from i.version as stale,
               i.pace_key is not null
                   and (coalesce(d.identity_key = '', false) or c.one is not null) as cancelled,
               h.k is not null and l.k is null as row_locked, l.k is not null as locked,
               -- A publisher's clock that is ahead must not make later requests look older.
               case when i.user_mac is not null then least(coalesce(i.requested_at, t), t) end
                   as user_time,
               p.at, p.epoch, p.base, p.step_us, p.own_us, p.probes_from, p.has_queue, p.limited,
               p.tenant_share, p.shared, i.tenant_id, i.delivery_id, i.identity_key, i.identity_mac,
               i.user_mac, i.requested_at, i.expires_at, i.to_masked, i.context, i.traceparent,
               i.tracestate, i.sealed_key, i.sealed, i.locale, i.account_sid, i.pace_key, i.paused,
               i.place_by, i.heard_after_ms, i.attempt_id, i.line, i.status1, i.route1, i.body1,
               i.status2, i.route2, i.body2, i.ord
          from unnest(
            in_tenant, in_delivery, in_identity_key, in_identity_mac, in_user_mac,
            in_requested_at, in_expires_at, in_to_masked, in_context, in_traceparent,
            in_tracestate, in_sealed_key, in_sealed, in_locale, in_account, in_pace_key,
            in_paused, in_version, in_place_by, in_heard_after_ms, in_attempt, in_line,
            in_status1, in_route1, in_body1, in_status2, in_route2, in_body2, known_keys,
            known_macs) with ordinality as i(
            tenant_id, delivery_id, identity_key, identity_mac, user_mac, requested_at, expires_at,
            to_masked, context, traceparent, tracestate, sealed_key, sealed, locale, account_sid,
            pace_key, paused, version, place_by, heard_after_ms, attempt_id, line, status1, route1,
            body1, status2, route2, body2, known_key, known_mac, ord)
         cross join batch_size_hint()
          left join lateral (
            select d.delivery_id, d.identity_key, d.identity_mac, d.attempt_id, d.state,
                   d.revision, d.slot_at, d.slot_epoch, d.admitted_at, d.wake_at
              from deliveries d
             where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id limit 1) d on true
          left join lateral (
            select s.version from voice_settings s where s.tenant_id = i.tenant_id limit 1) s
            on true
          left join lateral (
            select p.ctid as at, p.epoch,
                   greatest(p.tat, p.queue_until, t, p.hold_until) as base,
                   p.queue_until is not null as has_queue,
                   greatest(p.interval_us, coalesce(p.probe_interval_us, 0)) as step_us,
                   p.interval_us as own_us,
                   case when p.probe_interval_us is not null then greatest(t, p.hold_until) end
                       as probes_from,
                   a.max_calls is not null as limited,
                   coalesce(a.tenant_share, 1) as tenant_share,
                   -- A tenant whose credentials are not verified has a rate limit of its own.
                   p.pace_key = p.account_sid and (select count(*) from (
                       select 1 from voice_settings s
                        where s.account_sid = p.account_sid and s.credentials_verified
                          and s.enabled and not s.test_mode limit 2) s) > 1 as shared
              from pacing p left join accounts a on a.account_sid = p.account_sid
             where p.pace_key = i.pace_key limit 1) p on true
          left join lateral (
            -- By the events' times. A clock that is far ahead must not cancel what comes later.
            select 1 as one from cancelled_users c
             where c.user_mac = i.user_mac and i.requested_at <= c.cancelled_at
               and least(i.requested_at, t) <= c.recorded_at + interval '30s' limit 1) c on true
          left join unnest(locked) as l(k) on l.k = i.pace_key
          left join unnest(to_lock) as h(k) on h.k = i.pace_key
    ), candidates as (
        select not (l.known or l.stale or l.cancelled or l.row_locked) as candidate,
               l.known, l.known_key, l.known_mac, l.own_row, l.known_slot_at, l.known_epoch,
               l.known_at, l.known_wake_at, l.stale, l.cancelled, l.row_locked, l.locked,
               l.user_time, l.at, l.epoch, l.base, l.step_us, l.own_us, l.probes_from, l.has_queue,
               l.limited, l.tenant_share, l.shared, l.tenant_id, l.delivery_id, l.identity_key,
               l.identity_mac, l.user_mac, l.requested_at, l.expires_at, l.to_masked, l.context,
               l.traceparent, l.tracestate, l.sealed_key, l.sealed, l.locale, l.account_sid,
               l.pace_key, l.paused, l.place_by, l.heard_after_ms, l.attempt_id, l.line, l.status1,
               l.route1, l.body1, l.status2, l.route2, l.body2, l.ord
          from looked_up l
    ), by_user as (
        -- Superseded by another request of this batch: one that is a candidate too.
        select c.candidate and c.user_mac is not null
                   and c.delivery_id <> first_value(c.delivery_id) over (
                       partition by c.tenant_id, c.user_mac, c.candidate
                       order by c.user_time desc, c.delivery_id desc) as superseded_in_batch,
               c.candidate, c.known, c.known_key, c.known_mac, c.own_row, c.known_slot_at,
               c.known_epoch, c.known_at, c.known_wake_at, c.stale, c.cancelled, c.row_locked,
               c.locked, c.user_time, c.at, c.epoch, c.base, c.step_us, c.own_us, c.probes_from,
               c.has_queue,
               c.limited, c.tenant_share, c.shared, c.tenant_id, c.delivery_id, c.identity_key,
               c.identity_mac, c.user_mac, c.requested_at, c.expires_at, c.to_masked, c.context,
               c.traceparent, c.tracestate, c.sealed_key, c.sealed, c.locale, c.account_sid,
               c.pace_key, c.paused, c.place_by, c.heard_after_ms, c.attempt_id, c.line, c.status1,
               c.route1, c.body1, c.status2, c.route2, c.body2, c.ord
          from candidates c
    ), fresh as (
        select u.candidate and (u.superseded_in_batch or coalesce(n.newer, false))
                   as superseded,
               u.candidate, u.known, u.known_key, u.known_mac, u.own_row, u.known_slot_at,
               u.known_epoch, u.known_at, u.known_wake_at, u.stale, u.cancelled, u.row_locked,
               u.locked, u.user_time, u.at, u.epoch, u.base, u.step_us, u.own_us, u.probes_from,
               u.has_queue,
               u.limited, u.tenant_share, u.shared, u.tenant_id, u.delivery_id, u.identity_key,
               u.identity_mac, u.user_mac, u.requested_at, u.expires_at, u.to_masked, u.context,
               u.traceparent, u.tracestate, u.sealed_key, u.sealed, u.locale, u.account_sid,
               u.pace_key, u.paused, u.place_by, u.heard_after_ms, u.attempt_id, u.line, u.status1,
               u.route1, u.body1, u.status2, u.route2, u.body2, u.ord
          from by_user u
          left join lateral (
            select true as newer from deliveries n
             where u.candidate and u.user_mac is not null and n.user_mac = u.user_mac
               and (n.user_time, n.delivery_id) > (u.user_time, u.delivery_id) limit 1) n on true
    ), asking as (
        select f.candidate and not f.superseded as admitted,
               f.candidate and not f.superseded and f.pace_key is not null and not f.paused
                   as asks,
               f.superseded, f.known, f.known_key, f.known_mac, f.own_row, f.known_slot_at,
               f.known_epoch, f.known_at, f.known_wake_at, f.stale, f.cancelled, f.row_locked,
               f.locked, f.user_time, f.at, f.epoch, f.base, f.step_us, f.own_us, f.probes_from,
               f.has_queue,
               f.limited, f.tenant_share, f.shared, f.tenant_id, f.delivery_id, f.identity_key,
               f.identity_mac, f.user_mac, f.requested_at, f.expires_at, f.to_masked, f.context,
               f.traceparent, f.tracestate, f.sealed_key, f.sealed, f.locale, f.account_sid,
               f.pace_key, f.paused, f.place_by, f.heard_after_ms, f.attempt_id, f.line, f.status1,
               f.route1, f.body1, f.status2, f.route2, f.body2, f.ord
          from fresh f
    ), ranked as materialized (
        select row_number() over (partition by a.pace_key, a.asks order by a.ord) - 1 as nth,
               row_number() over (partition by a.pace_key, a.tenant_id, a.asks order by a.ord)
                   as nth_of_tenant,
               a.admitted, a.asks, a.superseded, a.known, a.known_key, a.known_mac, a.own_row,
               a.known_slot_at, a.known_epoch, a.known_at, a.known_wake_at, a.stale, a.cancelled,
               a.row_locked, a.locked, a.user_time, a.at, a.epoch, a.base, a.step_us, a.own_us,
               a.probes_from, a.has_queue, a.limited, a.tenant_share, a.shared, a.tenant_id,
               a.delivery_id, a.identity_key, a.identity_mac, a.user_mac, a.requested_at,
               a.expires_at, a.to_masked, a.context, a.traceparent, a.tracestate, a.sealed_key,
               a.sealed, a.locale, a.account_sid, a.pace_key, a.paused, a.place_by,
               a.heard_after_ms, a.attempt_id, a.line, a.status1, a.route1, a.body1, a.status2,
               a.route2, a.body2, a.ord
          from asking a
    ), ahead as materialized (
        -- The slots that a tenant was given pass evenly until the last of them.
        select x.pace_key, x.tenant_id, coalesce(y.held_until, t) as held_until,
               coalesce(case when y.held_until > greatest(t, y.counted_at) then least(y.held,
                   (y.held * (extract(epoch from y.held_until - t) * 1000000)::bigint
                       + (extract(epoch from y.held_until - y.counted_at) * 1000000)::bigint - 1)
                   / (extract(epoch from y.held_until - y.counted_at) * 1000000)::bigint)
                   end, 0) as waiting
          from (select distinct r.pace_key, r.tenant_id from ranked r where r.asks and r.shared) x
          left join lateral (
            select y.held, y.counted_at, y.held_until from tenant_slots y
             where y.pace_key = x.pace_key and y.tenant_id = x.tenant_id limit 1) y on true
    ), shares as (
        -- Of the slots before its deadline a tenant may hold its share, and one in any case.
        select r.asks and not coalesce(
                   r.nth_of_tenant + h.waiting > 1
                   and (r.nth_of_tenant + h.waiting) * r.own_us > trunc(
                       r.tenant_share * (extract(epoch from r.place_by - t) * 1000000)::bigint),
                   false) as wanted,
               r.nth, r.admitted, r.asks, r.superseded, r.known, r.known_key, r.known_mac,
               r.own_row, r.known_slot_at, r.known_epoch, r.known_at, r.known_wake_at, r.stale,
               r.cancelled, r.row_locked, r.locked, r.user_time, r.at, r.epoch, r.base, r.step_us,
               r.probes_from, r.has_queue, r.limited, r.tenant_id, r.delivery_id, r.identity_key,
               r.identity_mac, r.user_mac, r.requested_at, r.expires_at, r.to_masked, r.context,
               r.traceparent, r.tracestate, r.sealed_key, r.sealed, r.locale, r.account_sid,
               r.pace_key, r.paused, r.place_by, r.heard_after_ms, r.attempt_id, r.line, r.status1,
               r.route1, r.body1, r.status2, r.route2, r.body2, r.ord
          from ranked r left join ahead h on h.pace_key = r.pace_key and h.tenant_id = r.tenant_id
    ), slots_if_all as (
        -- As if every request got a slot. One that is too late even so, or because of those
        -- before it, is refused.
        select s.base
                   + (row_number() over (partition by s.pace_key, s.wanted order by s.ord) - 1)
                   * s.step_us * interval '1 microsecond' as slot_if_all,
               s.wanted, s.nth, s.admitted, s.asks, s.superseded, s.known, s.known_key, s.known_mac,
               s.own_row, s.known_slot_at, s.known_epoch, s.known_at, s.known_wake_at, s.stale,
               s.cancelled, s.row_locked, s.locked, s.user_time, s.at, s.epoch, s.base, s.step_us,
               s.probes_from, s.has_queue, s.limited, s.tenant_id, s.delivery_id, s.identity_key,
               s.identity_mac, s.user_mac, s.requested_at, s.expires_at, s.to_masked, s.context,
               s.traceparent, s.tracestate, s.sealed_key, s.sealed, s.locale, s.account_sid,
               s.pace_key, s.paused, s.place_by, s.heard_after_ms, s.attempt_id, s.line, s.status1,
               s.route1, s.body1, s.status2, s.route2, s.body2, s.ord
          from shares s
    ), timed as (
        select w.wanted and w.locked and not w.has_queue
                   and w.slot_if_all <= w.place_by - margin as in_time,
               coalesce(w.wanted and w.locked and w.has_queue
                            and (w.slot_if_all <= w.place_by - margin
                                 or w.probes_from <= w.place_by - margin),
                        false) as joins_queue,
               w.slot_if_all, w.wanted, w.nth, w.admitted, w.asks, w.superseded, w.known,
               w.known_key, w.known_mac, w.own_row, w.known_slot_at, w.known_epoch, w.known_at,
               w.known_wake_at, w.stale, w.cancelled, w.row_locked, w.user_time, w.at, w.epoch,
               w.base, w.step_us, w.limited, w.tenant_id, w.delivery_id, w.identity_key,
               w.identity_mac, w.user_mac, w.requested_at, w.expires_at, w.to_masked, w.context,
               w.traceparent, w.tracestate, w.sealed_key, w.sealed, w.locale, w.account_sid,
               w.pace_key, w.paused, w.place_by, w.heard_after_ms, w.attempt_id, w.line, w.status1,
               w.route1, w.body1, w.status2, w.route2, w.body2, w.ord
          from slots_if_all w
    ), slotted as (
        select case when w.in_time then w.base
                        + (row_number() over (partition by w.pace_key, w.in_time order by w.ord)
                           - 1) * w.step_us * interval '1 microsecond'
                    when w.joins_queue then least(w.slot_if_all, w.place_by)
                    when w.wanted then w.slot_if_all
                    when w.asks then w.base + w.nth * w.step_us * interval '1 microsecond' end
                   as slot_at,
               w.in_time, w.joins_queue, w.admitted, w.superseded, w.known, w.known_key,
               w.known_mac, w.own_row, w.known_slot_at, w.known_epoch, w.known_at, w.known_wake_at,
               w.stale, w.cancelled, w.row_locked, w.user_time, w.at, w.epoch, w.step_us, w.limited,
               w.tenant_id, w.delivery_id, w.identity_key, w.identity_mac, w.user_mac,
               w.requested_at, w.expires_at, w.to_masked, w.context, w.traceparent, w.tracestate,
               w.sealed_key, w.sealed, w.locale, w.account_sid, w.pace_key, w.paused, w.place_by,
               w.heard_after_ms, w.attempt_id, w.line, w.status1, w.route1, w.body1, w.status2,
               w.route2, w.body2, w.ord
          from timed w
    ), ready as (
        select s.in_time and s.slot_at <= t + in_begin_ahead and s.attempt_id is not null
                   and not s.limited and o.one is null and u.one is null as ready,
               s.slot_at, s.in_time, s.joins_queue, s.admitted, s.superseded, s.known,
               s.known_key, s.known_mac, s.own_row, s.known_slot_at, s.known_epoch, s.known_at,
               s.known_wake_at, s.stale, s.cancelled, s.row_locked, s.user_time, s.at, s.epoch,
               s.step_us, s.tenant_id, s.delivery_id, s.identity_key, s.identity_mac, s.user_mac,
               s.requested_at, s.expires_at, s.to_masked, s.context, s.traceparent, s.tracestate,
               s.sealed_key, s.sealed, s.locale, s.account_sid, s.pace_key, s.paused, s.place_by,
               s.heard_after_ms, s.attempt_id, s.line, s.status1, s.route1, s.body1, s.status2,
               s.route2, s.body2, s.ord
          from slotted s
          left join lateral (
            select 1 as one from deliveries d where s.in_time and d.line = s.line limit 1) o on true
          left join lateral (
            select 1 as one from deliveries d
             where s.in_time and d.user_line = s.user_mac limit 1) u on true
    ), planned as materialized (
        select r.ready and row_number() over (partition by r.line, r.ready order by r.ord) = 1
                   as begun,
               case when r.paused then 'admitted_without_slot'
                    when r.pace_key is null then 'finished'
                    when r.in_time or r.joins_queue then 'admitted'
                    else 'account_backlog' end as verdict,
               (extract(epoch from r.slot_at - t) * 1000)::bigint as wait_ms,
               r.slot_at, r.in_time, r.joins_queue, r.admitted, r.superseded, r.known,
               r.known_key, r.known_mac, r.own_row, r.known_slot_at, r.known_epoch, r.known_at,
               r.known_wake_at, r.stale, r.cancelled, r.row_locked, r.user_time, r.at, r.epoch,
               r.step_us, r.tenant_id, r.delivery_id, r.identity_key, r.identity_mac, r.user_mac,
               r.requested_at, r.expires_at, r.to_masked, r.context, r.traceparent, r.tracestate,
               r.sealed_key, r.sealed, r.locale, r.account_sid, r.pace_key, r.paused, r.place_by,
               r.heard_after_ms, r.attempt_id, r.line, r.status1, r.route1, r.body1, r.status2,
               r.route2, r.body2, r.ord
          from ready r
    ), inserted as (
        insert into deliveries as d (
            tenant_id, delivery_id, owner, state, wake_at, identity_key, identity_mac, user_mac,
            sealed_key, sealed, to_masked, locale, context, traceparent, tracestate, account_sid,
            pace_key, requested_at, admitted_at, expires_at, place_by, heard_after_ms, slot_at,
            slot_epoch, announced_at, attempt, attempt_id, intent_at, line, user_time, user_line,
            sequence, final_status, ended_at, forget_at)
        select p.tenant_id, p.delivery_id,
               case when p.begun or p.in_time and p.slot_at <= t + in_hold_ahead
                    then in_worker end,
               case when p.begun then 'placing'
                    when p.verdict in ('admitted', 'admitted_without_slot') then 'waiting'
                    else 'final' end,
               case when p.begun then t + in_rescue
                    when p.paused or p.joins_queue then p.place_by
                    when p.in_time then least(p.slot_at, p.place_by) else t end,
               p.identity_key, p.identity_mac, p.user_mac,
               case when p.verdict in ('admitted', 'admitted_without_slot') then p.sealed_key end,
               case when p.verdict in ('admitted', 'admitted_without_slot') then p.sealed end,
               p.to_masked, p.locale, p.context, p.traceparent, p.tracestate, p.account_sid,
               p.pace_key, p.requested_at, t, p.expires_at, coalesce(p.place_by, p.expires_at),
               coalesce(p.heard_after_ms, 0),
               case when p.in_time then p.slot_at end, case when p.in_time then p.epoch end,
               case when p.in_time or p.joins_queue then p.slot_at
                    when p.paused then p.place_by end,
               case when p.begun then 1 else 0 end, case when p.begun then p.attempt_id end,
               case when p.begun then t end, case when p.begun then p.line end,
               p.user_time, case when p.begun then p.user_mac end,
               case when p.verdict in ('finished', 'admitted_without_slot')
                         and p.status2 is not null then 2 else 1 end,
               case p.verdict when 'finished' then coalesce(p.status2, p.status1)
                              when 'account_backlog' then p.status2 end,
               case when p.verdict in ('finished', 'account_backlog') then t end,
               case when p.pace_key is null and s.one is null then t + interval '5 minutes' end
          from planned p
          left join lateral (
            select 1 as one from voice_settings s
             where p.pace_key is null and s.tenant_id = p.tenant_id limit 1) s on true
         where p.admitted
         order by p.tenant_id, p.delivery_id
        -- A delivery that is final at once may replace a tombstone; one to be placed never does.
        on conflict (tenant_id, delivery_id) do update set
            revision = d.revision + 1, owner = excluded.owner, wake_at = excluded.wake_at,
            identity_key = excluded.identity_key, identity_mac = excluded.identity_mac,
            to_masked = excluded.to_masked, context = excluded.context,
            traceparent = excluded.traceparent, tracestate = excluded.tracestate,
            requested_at = excluded.requested_at, admitted_at = excluded.admitted_at,
            expires_at = excluded.expires_at, place_by = excluded.place_by,
            sequence = excluded.sequence, final_status = excluded.final_status,
            ended_at = excluded.ended_at, forget_at = excluded.forget_at
            where d.identity_key = '' and excluded.state = 'final'
        returning d.tenant_id, d.delivery_id, d.owner, d.wake_at
    ), outcome as materialized (
        select n.delivery_id is not null as inserted, n.owner is not null as held, n.wake_at,
               p.begun, p.verdict, p.wait_ms, p.slot_at, p.in_time, p.joins_queue, p.superseded,
               p.known,
               p.known_key, p.known_mac, p.own_row, p.known_slot_at, p.known_epoch, p.known_at,
               p.known_wake_at, p.stale, p.cancelled, p.row_locked, p.user_time, p.at, p.epoch,
               p.step_us, p.pace_key, p.tenant_id, p.delivery_id, p.user_mac, p.traceparent,
               p.tracestate, p.status1, p.route1, p.body1, p.status2, p.route2, p.body2, p.ord
          from planned p
          left join inserted n
            on p.admitted and n.tenant_id = p.tenant_id and n.delivery_id = p.delivery_id
    ), events_written as (
        insert into outbox (
            tenant_id, delivery_id, sequence, owner, status, routing_key, body, traceparent,
            tracestate)
        select p.tenant_id, p.delivery_id, e.sequence, in_worker, e.status, e.route,
               -- Placeholders that only the slot can fill; see the core's module `event`.
               replace(
                   replace(e.body, '"\u0001due_at"', coalesce(
                       '"' || to_char(p.slot_at at time zone 'UTC',
                                      'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') || '"',
                       'null')),
                   '"estimated_wait_ms":-9223372036854775807',
                   '"estimated_wait_ms":' || coalesce(p.wait_ms, 0)::text),
               p.traceparent, p.tracestate
          from outcome p
         cross join lateral (
            select 1 as sequence, p.status1 as status, p.route1 as route, p.body1 as body
             where p.verdict <> 'account_backlog'
            union all
            select case p.verdict when 'account_backlog' then 1 else 2 end,
                   p.status2, p.route2, p.body2
             where p.verdict = 'account_backlog'
                or (p.verdict in ('finished', 'admitted_without_slot') and p.status2 is not null)
         ) e
         where p.inserted
    ), pacing_moved as (
        update pacing p set
               tat = coalesce(m.next, p.tat),
               queue_until = case when m.joined > 0
                                  then greatest(p.tat, p.queue_until, t, p.hold_until)
                                       + m.joined * m.step_us * interval '1 microsecond'
                                  else p.queue_until end
          from (select o.at, max(o.step_us) as step_us,
                       max(o.slot_at) filter (where o.in_time)
                           + max(o.step_us) * interval '1 microsecond' as next,
                       count(*) filter (where o.joins_queue) as joined
                  from outcome o
                 where (o.in_time or o.joins_queue) and o.inserted group by o.at) m
         where p.ctid = m.at
    ), share_moved as (
        insert into tenant_slots as y (pace_key, tenant_id, held, counted_at, held_until)
        select h.pace_key, h.tenant_id, h.waiting + m.slots, t, greatest(h.held_until, m.last)
          from ahead h
          join (select o.pace_key, o.tenant_id, count(*) as slots, max(o.slot_at) as last
                  from outcome o
                 where (o.in_time or o.joins_queue) and o.inserted and o.slot_at > t
                 group by o.pace_key, o.tenant_id) m
            on m.pace_key = h.pace_key and m.tenant_id = h.tenant_id
         order by h.pace_key, h.tenant_id
        on conflict (pace_key, tenant_id) do update set
            held = excluded.held, counted_at = excluded.counted_at, held_until = excluded.held_until
    )
    select o.ord,
           case when o.own_row then 'admitted' when o.known then 'duplicate'
                when o.stale then 'stale_settings' when o.cancelled then 'cancelled'
                when o.row_locked then 'row_locked' when o.superseded then 'superseded'
                when not o.inserted then 'race' else o.verdict end,
           case when o.inserted then o.slot_at else o.known_slot_at end,
           case when o.inserted then o.epoch else o.known_epoch end,
           case when o.inserted then o.begun else o.own_row end, coalesce(o.known_at, t),
           case when o.inserted then o.wake_at else o.known_wake_at end, o.wait_ms,
           case when o.known then o.known_key end, case when o.known then o.known_mac end,
           o.inserted and coalesce(r.one is not null, false),
           case when o.inserted then o.held else o.own_row end
      from outcome o
      left join lateral (
        select 1 as one from deliveries r
         where o.inserted and o.user_mac is not null and r.user_mac = o.user_mac
           and r.final_status is null
           and (r.user_time, r.delivery_id) < (o.user_time, o.delivery_id) limit 1) r on true
     order by o.ord;
end $$;
