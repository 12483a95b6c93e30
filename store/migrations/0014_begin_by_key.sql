-- Beginning placements that are due, as before; but its deliveries are found by key whatever was due when the plan was made, and one
-- that is changed in the moment between the statement's look and its lock is asked for again.

create or replace function begin_attempts(
    in_worker bigint, in_skip boolean, in_begin_ahead interval, in_slot_late interval, in_rescue interval,
    in_tenant text[], in_delivery text[], in_revision bigint[], in_attempt uuid[], in_line bytea[],
    in_pace_key text[], in_account text[]
) returns table (ord bigint, verdict text, slot_at timestamptz, slot_epoch bigint, revision bigint)
language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    t timestamptz;
    locked text[];
begin
    if exists (select 1 from unnest(in_pace_key) as x(k) left join pacing p on p.pace_key = x.k where p.pace_key is null) then
        perform ensure_paces(in_pace_key, in_account);
    end if;
    -- A slot that holds needs no lock: only who reserves one, or is counted, waits for others.
    select array_agg(distinct i.pace_key) into locked
      from unnest(in_tenant, in_delivery, in_pace_key) as i(tenant_id, delivery_id, pace_key)
     cross join lateral (
        select d.slot_at, d.slot_epoch, d.pace_key from deliveries d
         where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id limit 1) d
      join pacing p on p.pace_key = i.pace_key
      left join accounts a on a.account_sid = p.account_sid
     where a.max_calls is not null
        or not coalesce(d.slot_epoch = p.epoch and d.pace_key = i.pace_key and d.slot_at >= clock_timestamp() - in_slot_late, false);
    locked := lock_paces(locked, in_skip);
    t := clock_timestamp();
    return query
    with looked_up as (
        select i.ord, i.tenant_id, i.delivery_id, i.attempt_id, i.line, i.pace_key, i.account_sid, i.revision,
               d.delivery_id is not null as found, coalesce(x.one is not null, false) as is_there,
               d.at, d.place_by, d.slot_at, d.user_mac, d.attempt > 0 as tried,
               n.one is not null as superseded, u.one is not null as user_busy, o.one is not null as line_busy,
               p.at as pace_at, p.epoch, p.base, p.step_us, p.reopens, p.max_calls, l.k is not null as locked,
               coalesce(d.slot_epoch = p.epoch and d.pace_key = i.pace_key and d.slot_at >= t - in_slot_late, false) as good
          from (select * from unnest(in_tenant, in_delivery, in_revision, in_attempt, in_line, in_pace_key, in_account)
                    with ordinality as i(tenant_id, delivery_id, revision, attempt_id, line, pace_key, account_sid, ord)
                 cross join as_many()
                 order by tenant_id, delivery_id) i
          left join lateral (
            select d.ctid as at, d.* from deliveries d
             where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id and d.revision = i.revision
               -- Not `d.state = 'waiting'`: the index of what waits may be nearly empty when the plan is made, and would be read whole.
               and d.state || '' = 'waiting'
               for update skip locked) d on true
          left join lateral (
            -- Locked by somebody, since it wasn't found.
            select 1 as one from deliveries x
             where d.delivery_id is null and x.tenant_id = i.tenant_id and x.delivery_id = i.delivery_id
               and x.revision = i.revision and x.state || '' = 'waiting' limit 1) x on true
          left join lateral (
            select 1 as one from deliveries n
             where n.user_mac = d.user_mac
               and (n.user_time, n.delivery_id) > (d.user_time, d.delivery_id) limit 1) n on true
          left join lateral (
            select 1 as one from deliveries b where b.user_line = d.user_mac limit 1) u on true
          left join lateral (select 1 as one from deliveries b where d.delivery_id is not null and b.line = i.line limit 1) o on true
          left join lateral (
            select p.ctid as at, p.epoch, greatest(p.tat, t, p.hold_until) as base,
                   greatest(p.interval_us, coalesce(p.trial_us, 0)) as step_us,
                   case when p.trial_us is not null then greatest(t, p.hold_until) end as reopens, a.max_calls
              from pacing p left join accounts a on a.account_sid = p.account_sid where p.pace_key = i.pace_key limit 1) p on true
          left join unnest(locked) as l(k) on l.k = i.pace_key
    ), clear as (
        select l.*, l.found and not (l.superseded or l.user_busy or l.line_busy) as clear from looked_up l
    ), first_on_line as (
        -- Two of a group on one line: the first.
        select c.*, c.clear and row_number() over (partition by c.line, c.clear order by c.ord) = 1 as free from clear c
    ), in_progress as materialized (
        select x.pace_key, (select count(*) from deliveries d where d.counted = x.pace_key) as calls
          from (select distinct f.pace_key from first_on_line f where f.free and f.max_calls is not null) x
    ), counted as (
        -- Who is counted comes in the order of the slots.
        select f.*, f.free and coalesce(g.calls + row_number() over (
                   partition by f.pace_key, f.free order by f.slot_at nulls last, f.ord) > f.max_calls, false) as full
          from first_on_line f left join in_progress g on g.pace_key = f.pace_key
    ), judged as (
        select c.*, c.free and not c.locked and (not c.good or c.max_calls is not null) as busy,
               c.free and not c.good and c.tried and c.base > t + in_begin_ahead as yields
          from counted c
    ), ready as (
        select j.*, j.free and not (j.busy or j.full or j.yields) as ready,
               j.free and not (j.busy or j.full or j.yields or j.good) as asks
          from judged j
    ), wanted as (
        select r.*, r.base + (row_number() over (partition by r.pace_key, r.asks order by r.slot_at nulls last, r.ord) - 1)
                   * r.step_us * interval '1 microsecond' as slot_if_all
          from ready r
    ), timed as (
        select w.*, w.asks and w.slot_if_all > w.place_by as late, w.asks and w.slot_if_all <= w.place_by as reserves,
               coalesce((w.yields and not (w.busy or w.full) or w.asks and w.slot_if_all > w.place_by)
                        and w.reopens <= w.place_by, false) as hopes
          from wanted w
    ), slotted as materialized (
        select w.*, w.ready and not w.late or w.hopes as goes_on,
               case when w.reserves then w.base
                        + (row_number() over (partition by w.pace_key, w.reserves order by w.slot_at nulls last, w.ord) - 1)
                        * w.step_us * interval '1 microsecond'
                    when not w.hopes then w.slot_at end as new_slot
          from timed w
    ), changed as (
        update deliveries d set
               revision = d.revision + 1, owner = in_worker, pace_key = s.pace_key, account_sid = s.account_sid,
               slot_at = s.new_slot, slot_epoch = case when not s.hopes then s.epoch end,
               state = case when s.new_slot <= t + in_begin_ahead then 'placing' else 'waiting' end,
               wake_at = case when s.new_slot <= t + in_begin_ahead then t + in_rescue else least(s.new_slot, d.place_by) end,
               attempt = d.attempt + case when s.new_slot <= t + in_begin_ahead then 1 else 0 end,
               attempt_id = case when s.new_slot <= t + in_begin_ahead then s.attempt_id end,
               intent_at = case when s.new_slot <= t + in_begin_ahead then t end,
               line = case when s.new_slot <= t + in_begin_ahead then s.line end,
               user_line = case when s.new_slot <= t + in_begin_ahead then s.user_mac end,
               counted = case when s.new_slot <= t + in_begin_ahead and s.max_calls is not null then s.pace_key end
          from slotted s
         where s.goes_on and d.ctid = s.at
        returning s.ord, d.state, coalesce(d.slot_at, d.place_by) as slot_at, coalesce(d.slot_epoch, 0) as slot_epoch, d.revision
    ), paced as (
        update pacing p set tat = m.next
          from (select s.pace_at, max(s.new_slot) + max(s.step_us) * interval '1 microsecond' as next
                  from slotted s where s.reserves group by s.pace_at) m
         where p.ctid = m.pace_at
    )
    select c.ord, case when c.state = 'placing' then 'go' else 'wait' end, c.slot_at, c.slot_epoch, c.revision from changed c
    union all
    select s.ord,
           case when not s.found then case when s.is_there then 'busy' else 'conflict' end
                when s.superseded then 'superseded' when s.user_busy then 'user_busy'
                when not s.free then 'line_busy' when s.busy then 'busy' when s.full then 'full' else 'late' end,
           case when s.late then s.slot_if_all else s.base end, 0::bigint, s.revision
      from slotted s where not s.goes_on
    union all
    select s.ord, 'busy', s.base, 0::bigint, s.revision
      from slotted s left join changed c on c.ord = s.ord where s.goes_on and c.ord is null
     order by 1;
end $$;
