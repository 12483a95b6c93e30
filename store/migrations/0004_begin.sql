-- Begins placements that are due. Every ordinal of the input gets one answer:
--   go          the intent is saved; the slot is now or in a moment
--   wait        the slot was void, or isn't yet: this is the one to wait for
--   late        the next slot would be after place_by: nothing was reserved
--   line_busy   another placement is under way on the line
--   conflict    somebody changed the delivery
-- A slot is void when its epoch is not its pacing row's, or when it is used too late.
create function begin_attempts(
    in_worker bigint, in_begin_ahead interval, in_slot_late interval, in_rescue interval,
    in_tenant text[], in_delivery text[], in_revision bigint[], in_attempt uuid[], in_line bytea[],
    in_pace_key text[], in_account text[]
) returns table (ord bigint, verdict text, slot_at timestamptz, slot_epoch bigint, revision bigint)
language plpgsql as $$
#variable_conflict use_column
declare
    t timestamptz;
begin
    insert into pacing (pace_key, account_sid, interval_us, tat)
        select distinct on (x.pace_key) x.pace_key, x.account_sid,
               ceil(1e6 / coalesce(a.calls_per_second, 1))::bigint, clock_timestamp()
          from unnest(in_pace_key, in_account) as x(pace_key, account_sid)
          left join accounts a on a.account_sid = x.account_sid
         where not exists (select 1 from pacing p where p.pace_key = x.pace_key)
         order by x.pace_key
        on conflict (pace_key) do nothing;
    perform 1 from pacing p where p.pace_key = any (in_pace_key) order by p.pace_key for update;
    t := clock_timestamp();
    return query
    with input as (
        select * from unnest(in_tenant, in_delivery, in_revision, in_attempt, in_line, in_pace_key, in_account)
            with ordinality as i(tenant_id, delivery_id, revision, attempt_id, line, pace_key, account_sid, ord)
    ), due as (
        select i.ord, i.attempt_id, i.line, i.pace_key, i.account_sid, d.tenant_id, d.delivery_id, d.place_by,
               d.slot_at, d.slot_epoch, d.pace_key as old_pace_key
          from input i join deliveries d on d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id
         where d.revision = i.revision and d.state = 'waiting'
         order by d.tenant_id, d.delivery_id
           for update of d
    ), free as (
        select distinct on (u.line) u.ord
          from due u where not exists (select 1 from deliveries d where d.line = u.line)
         order by u.line, u.ord
    ), judged as (
        select u.*, p.epoch, p.interval_us, greatest(p.tat, t, p.hold_until) as base,
               coalesce(u.slot_epoch = p.epoch and u.old_pace_key = u.pace_key and u.slot_at >= t - in_slot_late, false) as good
          from due u join free f on f.ord = u.ord join pacing p on p.pace_key = u.pace_key
    ), wanted as (
        select j.ord, j.base + (row_number() over (partition by j.pace_key order by j.slot_at nulls last, j.ord) - 1)
                   * j.interval_us * interval '1 microsecond' as slot_at
          from judged j where not j.good
    ), late as (
        select j.ord, w.slot_at from judged j join wanted w on w.ord = j.ord where w.slot_at > j.place_by
    ), slots as (
        select j.ord, j.slot_at, false as reserved from judged j where j.good
        union all
        select j.ord, j.base + (row_number() over (partition by j.pace_key order by j.slot_at nulls last, j.ord) - 1)
                   * j.interval_us * interval '1 microsecond', true
          from judged j where not j.good and not exists (select 1 from late l where l.ord = j.ord)
    ), changed as (
        update deliveries d set
               revision = d.revision + 1, owner = in_worker, pace_key = j.pace_key, account_sid = j.account_sid,
               slot_at = s.slot_at, slot_epoch = j.epoch,
               state = case when s.slot_at <= t + in_begin_ahead then 'placing' else 'waiting' end,
               wake_at = case when s.slot_at <= t + in_begin_ahead then t + in_rescue else least(s.slot_at, d.place_by) end,
               attempt = d.attempt + case when s.slot_at <= t + in_begin_ahead then 1 else 0 end,
               attempt_id = case when s.slot_at <= t + in_begin_ahead then j.attempt_id end,
               intent_at = case when s.slot_at <= t + in_begin_ahead then t end,
               line = case when s.slot_at <= t + in_begin_ahead then j.line end
          from judged j join slots s on s.ord = j.ord
         where d.tenant_id = j.tenant_id and d.delivery_id = j.delivery_id
        returning j.ord, d.state, d.slot_at, d.slot_epoch, d.revision
    ), paced as (
        update pacing p set tat = m.next
          from (select j.pace_key, max(s.slot_at) + max(j.interval_us) * interval '1 microsecond' as next
                  from slots s join judged j on j.ord = s.ord where s.reserved group by j.pace_key) m
         where p.pace_key = m.pace_key
    )
    select i.ord,
           case when u.ord is null then 'conflict' when l.ord is not null then 'late'
                when c.ord is null then 'line_busy' when c.state = 'placing' then 'go' else 'wait' end,
           coalesce(c.slot_at, l.slot_at), coalesce(c.slot_epoch, 0), coalesce(c.revision, i.revision)
      from input i
      left join due u on u.ord = i.ord
      left join late l on l.ord = i.ord
      left join changed c on c.ord = i.ord
     order by i.ord;
end $$;
