-- start_attempts(worker, limits, one array per column of the batch)
--
-- Starts the attempts of deliveries that are due: stores the intent of each whose slot is still
-- valid, and reserves a new slot for each whose slot is void. A slot is void when its epoch isn't
-- that of the pacing row, when the delivery now belongs to another rate limit, or when it is used
-- later than in_slot_late. Returns one row per input, with its ordinal from 1, in order.
--
-- Inputs
--   in_worker        epoch of the worker that asks; it owns every delivery that is changed
--   in_skip          what to do about pacing rows that another transaction has locked; see
--                    lock_pacing()
--   in_begin_ahead   an attempt starts if its slot is no further ahead than this
--   in_slot_late     how late a slot may be used
--   in_rescue        when a started attempt needs attention, if nothing happens to it
--   the arrays       run in parallel, with one element per delivery, and no delivery twice. Account
--                    and pace key are those of the tenant's present settings.
--
-- Locks, in order: the pacing rows of deliveries that need a new slot or count against max_calls,
-- by key (lock_pacing); the deliveries, by key, leaving out those that another transaction has
-- locked. A valid slot needs no lock of its pacing row.
--
-- Verdicts
--   started               state placing, the intent is stored: send the POST at slot_at
--   rescheduled           slot_at is the new slot; slot_epoch 0: there is a queue, so the delivery
--                         is parked: it has no slot and no owner, and slot_at is an estimate
--   no_slot               the next slot, slot_at, is after the deadline; or the delivery is a
--                         retry, and a backlog goes first, until slot_at
--   line_busy             another attempt is being placed on the line (account, From and To), or an
--                         earlier one of this batch
--   user_busy             a call to the user is being placed or in progress
--   superseded            a newer request of the user is known
--   at_concurrency_limit  the account has max_calls calls in progress
--   row_locked            the delivery is locked; or its pacing row is, and in_skip
--   conflict              the delivery has another revision, or isn't waiting
-- Only `started` and `rescheduled` write anything.
--
-- Must never start two attempts on one line or for one user, exceed max_calls, or use a void slot.
--
-- Performance: it is planned once per connection, whatever the tables then hold. Keys are looked up
-- in laterals with a limit, and rows found again by ctid, so that only an index will do.
create or replace function start_attempts(
    in_worker bigint, in_skip boolean, in_begin_ahead interval, in_slot_late interval,
    in_rescue interval,
    in_tenant text[], in_delivery text[], in_revision bigint[], in_attempt uuid[],
    in_line bytea[], in_pace_key text[], in_account text[]
) returns table (
    ord bigint, verdict text, slot_at timestamptz, slot_epoch bigint, revision bigint
) language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    t timestamptz;
    locked text[];
    -- A slot closer to the deadline couldn't be used in time.
    margin constant interval := '5 milliseconds';
begin
    if exists (select 1 from unnest(in_pace_key) as x(k) left join pacing p on p.pace_key = x.k
                where p.pace_key is null) then
        perform ensure_pacing(in_pace_key, in_account);
    end if;
    select array_agg(distinct i.pace_key) into locked
      from unnest(in_tenant, in_delivery, in_pace_key) as i(tenant_id, delivery_id, pace_key)
     cross join lateral (
        select d.slot_at, d.slot_epoch, d.pace_key from deliveries d
         where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id limit 1) d
      join pacing p on p.pace_key = i.pace_key
      left join accounts a on a.account_sid = p.account_sid
     where a.max_calls is not null
        or not coalesce(d.slot_epoch = p.epoch and d.pace_key = i.pace_key
                        and d.slot_at >= clock_timestamp() - in_slot_late, false);
    locked := lock_pacing(locked, in_skip);
    t := clock_timestamp();
    return query
    -- Each step adds its columns to those of the step before it.
    with looked_up as (
        select i.ord, i.tenant_id, i.delivery_id, i.attempt_id, i.line, i.pace_key, i.account_sid,
               i.revision, d.delivery_id is not null as found,
               coalesce(x.one is not null, false) as is_locked,
               d.at, d.place_by, d.slot_at, d.user_mac, d.attempt > 0 as is_retry,
               n.one is not null as superseded, u.one is not null as user_busy,
               o.one is not null as line_busy,
               p.at as pace_at, p.epoch, p.base, p.step_us, p.queue_until, p.max_calls,
               l.k is not null as locked,
               coalesce(d.slot_epoch = p.epoch and d.pace_key = i.pace_key
                        and d.slot_at >= t - in_slot_late, false) as slot_valid
          from (select i.tenant_id, i.delivery_id, i.revision, i.attempt_id, i.line, i.pace_key,
                       i.account_sid, i.ord
                  from unnest(in_tenant, in_delivery, in_revision, in_attempt, in_line,
                              in_pace_key, in_account)
                       with ordinality as i(tenant_id, delivery_id, revision, attempt_id, line,
                                            pace_key, account_sid, ord)
                 cross join batch_size_hint()
                 order by i.tenant_id, i.delivery_id) i
          left join lateral (
            select d.ctid as at, d.delivery_id, d.place_by, d.slot_at, d.slot_epoch, d.pace_key,
                   d.user_mac, d.user_time, d.attempt
              from deliveries d
             where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id
               and d.revision = i.revision
               -- Not `d.state = 'waiting'`: the index of waiting deliveries may be nearly empty
               -- when the plan is made, and would then be read as a whole.
               and d.state || '' = 'waiting'
               for update skip locked) d on true
          left join lateral (
            -- It exists and was not found above: another transaction has locked it.
            select 1 as one from deliveries x
             where d.delivery_id is null and x.tenant_id = i.tenant_id
               and x.delivery_id = i.delivery_id and x.revision = i.revision
               and x.state || '' = 'waiting' limit 1) x on true
          left join lateral (
            select 1 as one from deliveries n
             where n.user_mac = d.user_mac
               and (n.user_time, n.delivery_id) > (d.user_time, d.delivery_id) limit 1) n on true
          left join lateral (
            select 1 as one from deliveries b where b.user_line = d.user_mac limit 1) u on true
          left join lateral (
            select 1 as one from deliveries b
             where d.delivery_id is not null and b.line = i.line limit 1) o on true
          left join lateral (
            select p.ctid as at, p.epoch, greatest(p.tat, t, p.hold_until) as base,
                   greatest(p.interval_us, coalesce(p.probe_interval_us, 0)) as step_us,
                   p.queue_until,
                   a.max_calls
              from pacing p left join accounts a on a.account_sid = p.account_sid
             where p.pace_key = i.pace_key limit 1) p on true
          left join unnest(locked) as l(k) on l.k = i.pace_key
    ), unobstructed as (
        select l.found, l.is_locked, l.at, l.place_by, l.slot_at, l.user_mac, l.is_retry,
               l.superseded, l.user_busy, l.pace_at, l.epoch, l.base, l.step_us, l.queue_until,
               l.max_calls, l.locked, l.slot_valid, l.ord, l.attempt_id, l.line, l.pace_key,
               l.account_sid, l.revision,
               l.found and not (l.superseded or l.user_busy or l.line_busy) as clear
          from looked_up l
    ), first_on_line as (
        -- Of several in this batch on one line, the first.
        select c.found, c.is_locked, c.at, c.place_by, c.slot_at, c.user_mac, c.is_retry,
               c.superseded, c.user_busy, c.pace_at, c.epoch, c.base, c.step_us, c.queue_until,
               c.max_calls, c.locked, c.slot_valid, c.ord, c.attempt_id, c.line, c.pace_key,
               c.account_sid, c.revision,
               c.clear and row_number() over (partition by c.line, c.clear order by c.ord) = 1
                   as free
          from unobstructed c
    ), in_progress as materialized (
        select x.pace_key, (
                   select count(*) from deliveries d where d.concurrency_key = x.pace_key) as calls
          from (select distinct f.pace_key from first_on_line f
                 where f.free and f.max_calls is not null) x
    ), counted as (
        -- Under a limit of calls in progress the earlier slot goes first.
        select f.free, f.found, f.is_locked, f.at, f.place_by, f.slot_at, f.user_mac, f.is_retry,
               f.superseded, f.user_busy, f.pace_at, f.epoch, f.base, f.step_us, f.queue_until,
               f.max_calls, f.locked, f.slot_valid, f.ord, f.attempt_id, f.line, f.pace_key,
               f.account_sid, f.revision,
               f.free and coalesce(
                   g.calls + row_number() over (
                       partition by f.pace_key, f.free order by f.slot_at nulls last, f.ord)
                       > f.max_calls,
                   false) as at_limit
          from first_on_line f left join in_progress g on g.pace_key = f.pace_key
    ), judged as (
        select c.at_limit, c.free, c.found, c.is_locked, c.at, c.place_by, c.slot_at, c.user_mac,
               c.superseded, c.user_busy, c.pace_at, c.epoch, c.base, c.step_us, c.queue_until,
               c.max_calls, c.slot_valid, c.ord, c.attempt_id, c.line, c.pace_key, c.account_sid,
               c.revision,
               c.free and not c.locked and (not c.slot_valid or c.max_calls is not null)
                   as row_locked,
               -- In a queue the order of admission decides, not who asks first.
               c.free and not c.slot_valid and c.queue_until is not null and c.place_by > t
                   as queues,
               -- A retry takes no slot ahead of deliveries without an attempt.
               c.free and not c.slot_valid and c.is_retry and c.base > t + in_begin_ahead as yields
          from counted c
    ), ready as (
        select j.row_locked, j.at_limit, j.free, j.found, j.is_locked, j.at, j.place_by, j.slot_at,
               j.user_mac, j.superseded, j.user_busy, j.pace_at, j.epoch, j.base, j.step_us,
               j.queue_until, j.max_calls, j.ord, j.attempt_id, j.line, j.pace_key, j.account_sid,
               j.revision,
               j.queues and not (j.row_locked or j.at_limit) as is_parked,
               j.free and not (j.row_locked or j.at_limit or j.queues or j.yields) as ready,
               j.free and not (j.row_locked or j.at_limit or j.queues or j.yields or j.slot_valid)
                   as asks
          from judged j
    ), slots_if_all as (
        -- As if every delivery that asks got a slot.
        select r.ready, r.asks, r.is_parked, r.row_locked, r.at_limit, r.free, r.found,
               r.is_locked, r.at, r.place_by, r.slot_at, r.user_mac, r.superseded, r.user_busy,
               r.pace_at, r.epoch, r.base, r.step_us, r.queue_until, r.max_calls, r.ord,
               r.attempt_id, r.line, r.pace_key, r.account_sid, r.revision,
               r.base + (row_number() over (
                   partition by r.pace_key, r.asks order by r.slot_at nulls last, r.ord) - 1)
                   * r.step_us * interval '1 microsecond' as slot_if_all
          from ready r
    ), timed as (
        select w.slot_if_all, w.ready, w.is_parked, w.row_locked, w.at_limit, w.free, w.found,
               w.is_locked, w.at, w.place_by, w.slot_at, w.user_mac, w.superseded, w.user_busy,
               w.pace_at, w.epoch, w.base, w.step_us, w.max_calls, w.ord, w.attempt_id, w.line,
               w.pace_key, w.account_sid, w.revision,
               w.asks and w.slot_if_all > w.place_by - margin as late,
               w.asks and w.slot_if_all <= w.place_by - margin as reserves,
               least(w.place_by, greatest(w.queue_until, w.base, t + interval '1 second'))
                   as estimated_at
          from slots_if_all w
    ), slotted as materialized (
        select w.late, w.reserves, w.is_parked, w.estimated_at, w.slot_if_all, w.row_locked,
               w.at_limit, w.free, w.found, w.is_locked, w.at, w.place_by, w.slot_at, w.user_mac,
               w.superseded, w.user_busy, w.pace_at, w.epoch, w.base, w.step_us, w.max_calls,
               w.ord, w.attempt_id, w.line, w.pace_key, w.account_sid, w.revision,
               w.ready and not w.late or w.is_parked as is_written,
               case when w.reserves then w.base
                        + (row_number() over (
                               partition by w.pace_key, w.reserves
                               order by w.slot_at nulls last, w.ord) - 1)
                        * w.step_us * interval '1 microsecond'
                    when not w.is_parked then w.slot_at end as new_slot
          from timed w
    ), changed as (
        update deliveries d set
               revision = d.revision + 1, pace_key = s.pace_key,
               owner = case when not s.is_parked then in_worker end,
               account_sid = s.account_sid, slot_at = s.new_slot,
               slot_epoch = case when not s.is_parked then s.epoch end,
               state = case when s.new_slot <= t + in_begin_ahead then 'placing'
                            else 'waiting' end,
               wake_at = case when s.new_slot <= t + in_begin_ahead then t + in_rescue
                              else least(s.new_slot, d.place_by) end,
               attempt = d.attempt + case when s.new_slot <= t + in_begin_ahead then 1 else 0 end,
               attempt_id = case when s.new_slot <= t + in_begin_ahead then s.attempt_id end,
               intent_at = case when s.new_slot <= t + in_begin_ahead then t end,
               line = case when s.new_slot <= t + in_begin_ahead then s.line end,
               user_line = case when s.new_slot <= t + in_begin_ahead then s.user_mac end,
               concurrency_key = case when s.new_slot <= t + in_begin_ahead
                                           and s.max_calls is not null then s.pace_key end
          from slotted s
         where s.is_written and d.ctid = s.at
        returning s.ord, d.state, coalesce(d.slot_at, s.estimated_at) as slot_at,
                  coalesce(d.slot_epoch, 0) as slot_epoch, d.revision
    ), pacing_moved as (
        update pacing p set tat = m.next
          from (select s.pace_at,
                       max(s.new_slot) + max(s.step_us) * interval '1 microsecond' as next
                  from slotted s where s.reserves group by s.pace_at) m
         where p.ctid = m.pace_at
    )
    select c.ord, case when c.state = 'placing' then 'started' else 'rescheduled' end, c.slot_at,
           c.slot_epoch, c.revision
      from changed c
    union all
    select s.ord,
           case when not s.found then case when s.is_locked then 'row_locked' else 'conflict' end
                when s.superseded then 'superseded' when s.user_busy then 'user_busy'
                when not s.free then 'line_busy' when s.row_locked then 'row_locked'
                when s.at_limit then 'at_concurrency_limit' else 'no_slot' end,
           case when s.late then s.slot_if_all else s.base end, 0::bigint, s.revision
      from slotted s where not s.is_written
    union all
    -- Changed by another transaction between the look and the lock.
    select s.ord, 'row_locked', s.base, 0::bigint, s.revision
      from slotted s left join changed c on c.ord = s.ord where s.is_written and c.ord is null
     order by 1;
end $$;
