-- A newer request of a user takes the older one's place; a cancellation may come before its request; what is over is kept in
-- daily partitions, so that a year of traffic slows nothing.

-- When the user asked, as far as it can be told: the event's time, or its arrival if that was earlier.
alter table deliveries add column user_time timestamptz;
-- The user, while a call to them is being placed or goes on: at most one at a time.
alter table deliveries add column user_line bytea;
create unique index deliveries_user_line on deliveries (tenant_id, user_line) where user_line is not null;
drop index deliveries_user;
create index deliveries_user on deliveries (tenant_id, user_mac, user_time) where user_mac is not null;
-- Of one user there may be many that are over, and few that aren't.
create index deliveries_user_open on deliveries (tenant_id, user_mac, user_time) where user_mac is not null and state <> 'final';
-- What is over and may be moved.
create index deliveries_ended on deliveries (ended_at) where state = 'final';
create index past_attempts_age on past_attempts (retired_at);
-- A row whose identity_key is empty is a tombstone: its request was taken back before it came.

-- What is over, without code or number: against repeats, and for explanations. A partition a day.
create table finished (
    tenant_id text not null,
    delivery_id text not null,
    identity_key text not null,
    identity_mac bytea not null,
    to_masked text,
    context jsonb not null,
    account_sid text,
    call_sid text,
    attempt integer not null,
    sequence integer not null,
    requested_at timestamptz,
    admitted_at timestamptz not null,
    expires_at timestamptz not null,
    placed_at timestamptz,
    ringing_at timestamptz,
    answered_at timestamptz,
    verified_at timestamptz,
    ended text not null,
    ended_at timestamptz not null
) partition by range (ended_at);
create index finished_key on finished (tenant_id, delivery_id);

-- Makes the partitions that are needed today and in the next days, and drops those of days that ended longer than in_keep ago. What
-- reads finished waits for neither for long: a partition is attached, which locks nobody out, and a drop that can't have its lock at
-- once is left to the next time. One worker at a time.
create function tidy_days(in_recent interval, in_keep interval) returns void language plpgsql set lock_timeout = '50ms' as $$
declare
    t timestamptz := clock_timestamp();
    partition text;
    old record;
    day date;
begin
    -- One lock for each schema: tests have one each.
    if not pg_try_advisory_xact_lock(hashtext('voice-otp tidy ' || current_schema())) then
        return;
    end if;
    for day in
        select (t at time zone 'UTC')::date + n from generate_series(0, 2) as n
        union
        select distinct (d.ended_at at time zone 'UTC')::date from (
            select ended_at from deliveries where state = 'final' and ended_at < t - in_recent order by ended_at limit 1000) d
    loop
        partition := 'finished_' || to_char(day, 'YYYYMMDD');
        continue when to_regclass(partition) is not null;
        execute format('create table %I (like finished including defaults including constraints including indexes)', partition);
        execute format('alter table finished attach partition %I for values from (%L) to (%L)',
                       partition, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
    end loop;
    for old in
        select c.oid::regclass as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = 'finished'::regclass
           and to_date(right(c.relname, 8), 'YYYYMMDD') + 1 < ((t - in_keep) at time zone 'UTC')::date
    loop
        execute format('drop table %s', old.name);
    end loop;
end $$;

-- Moves up to in_most deliveries that have been over for in_recent, and been told, to their day's partition. Says how many.
create function tidy(in_recent interval, in_most integer) returns bigint language plpgsql as $$
#variable_conflict use_column
declare
    t timestamptz := clock_timestamp();
    moved bigint;
    days text[];
begin
    if not pg_try_advisory_xact_lock(hashtext('voice-otp tidy ' || current_schema())) then
        return 0;
    end if;
    select coalesce(array_agg(right(c.relname, 8)), '{}') into days
      from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'finished'::regclass;
    with over as (
        select d.tenant_id, d.delivery_id from deliveries d
         where d.state = 'final' and d.ended_at < t - in_recent
           and to_char(d.ended_at at time zone 'UTC', 'YYYYMMDD') = any (days)
           -- Not before the world has been told.
           and not exists (select 1 from outbox o where o.tenant_id = d.tenant_id and o.delivery_id = d.delivery_id)
         order by d.ended_at limit in_most for update skip locked
    ), gone as (
        delete from deliveries d using over o where d.tenant_id = o.tenant_id and d.delivery_id = o.delivery_id returning d.*
    ), kept as (
        insert into finished (tenant_id, delivery_id, identity_key, identity_mac, to_masked, context, account_sid, call_sid, attempt,
                              sequence, requested_at, admitted_at, expires_at, placed_at, ringing_at, answered_at, verified_at,
                              ended, ended_at)
        select g.tenant_id, g.delivery_id, g.identity_key, g.identity_mac, g.to_masked, g.context, g.account_sid, g.call_sid, g.attempt,
               g.sequence, g.requested_at, g.admitted_at, g.expires_at, g.placed_at, g.ringing_at, g.answered_at, g.verified_at,
               g.ended, g.ended_at
          from gone g where g.identity_key <> ''
    )
    select count(*) into moved from gone;
    delete from past_attempts where attempt_id in (
        select attempt_id from past_attempts where retired_at < t - in_recent order by retired_at limit in_most);
    return moved;
end $$;

-- As before, and
--   place       also the admission's own row, when the answer was lost: begun says true
--   withdrawn   it was taken back before it came: nothing was done, it is to be ended
--   superseded  a newer request of the user is known: nothing was done, it is to be ended
-- rivals says whether older requests of the user are not over yet.
drop function admit;
create function admit(
    in_worker bigint, in_begin_ahead interval, in_rescue interval,
    in_tenant text[], in_delivery text[], in_identity_key text[], in_identity_mac bytea[], in_user_mac bytea[],
    in_requested_at timestamptz[], in_expires_at timestamptz[], in_to_masked text[], in_context jsonb[],
    in_traceparent text[], in_tracestate text[],
    in_sealed_key text[], in_sealed bytea[], in_locale text[], in_account text[], in_pace_key text[],
    -- Of the settings that the plan was made from: null where there were none, -1 where none were asked for.
    in_version bigint[], in_place_by timestamptz[], in_heard_after_ms integer[], in_attempt uuid[], in_line bytea[],
    -- To be placed: accepted, and expired for want of a slot. Else: the statuses to say, the second may be missing.
    in_status1 text[], in_route1 text[], in_body1 text[], in_status2 text[], in_route2 text[], in_body2 text[]
) returns table (
    ord bigint, verdict text, slot_at timestamptz, slot_epoch bigint, begun boolean, admitted_at timestamptz,
    wake_at timestamptz, wait_ms bigint, identity_key text, identity_mac bytea, rivals boolean
) language plpgsql as $$
#variable_conflict use_column
declare
    t timestamptz;
begin
    insert into pacing (pace_key, account_sid, interval_us, tat)
        select distinct on (x.pace_key) x.pace_key, x.account_sid,
               ceil(1e6 / coalesce(a.calls_per_second, 1))::bigint, clock_timestamp()
          from unnest(in_pace_key, in_account) as x(pace_key, account_sid)
          left join accounts a on a.account_sid = x.account_sid
         where x.pace_key is not null and not exists (select 1 from pacing p where p.pace_key = x.pace_key)
         order by x.pace_key
        on conflict (pace_key) do nothing;
    perform 1 from pacing p where p.pace_key = any (in_pace_key) order by p.pace_key for update;
    -- After the locks: what is read from here on is the latest, and the time is the time of the reservation.
    t := clock_timestamp();
    return query
    with input as (
        select * from unnest(
            in_tenant, in_delivery, in_identity_key, in_identity_mac, in_user_mac, in_requested_at, in_expires_at,
            in_to_masked, in_context, in_traceparent, in_tracestate, in_sealed_key, in_sealed, in_locale, in_account,
            in_pace_key, in_version, in_place_by, in_heard_after_ms, in_attempt, in_line,
            in_status1, in_route1, in_body1, in_status2, in_route2, in_body2
        ) with ordinality as i(
            tenant_id, delivery_id, identity_key, identity_mac, user_mac, requested_at, expires_at,
            to_masked, context, traceparent, tracestate, sealed_key, sealed, locale, account_sid,
            pace_key, version, place_by, heard_after_ms, attempt_id, line, status1, route1, body1, status2, route2, body2, ord)
    ), known as (
        -- Begun by this very attempt: it is this admission's own row, whose answer was lost.
        select i.ord, d.identity_key, d.identity_mac, d.slot_at, d.slot_epoch, d.admitted_at, d.wake_at,
               coalesce(d.attempt_id = i.attempt_id and d.state = 'placing' and d.revision = 1, false) as ours
          from input i join deliveries d on d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id
         where d.identity_key <> ''
        union all
        select i.ord, f.identity_key, f.identity_mac, null, null, null, null, false
          from input i join finished f on f.tenant_id = i.tenant_id and f.delivery_id = i.delivery_id
    ), candidates as (
        -- A publisher's clock that is ahead must not make later requests of the user look older.
        select i.*, case when i.user_mac is not null then least(coalesce(i.requested_at, t), t) end as user_time,
               (i.version is distinct from -1 and s.version is distinct from i.version) as stale,
               i.pace_key is not null and exists (
                   select 1 from deliveries d
                    where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id and d.identity_key = '') as withdrawn
          from input i left join voice_settings s on s.tenant_id = i.tenant_id
         where not exists (select 1 from known k where k.ord = i.ord)
    ), overtaken as (
        -- By another of this group: one that is to be admitted, and no repeat of anything.
        select o.ord from (
            select c.ord, c.delivery_id <> first_value(c.delivery_id) over (
                       partition by c.tenant_id, c.user_mac order by c.user_time desc, c.delivery_id desc) as is_older
              from candidates c where c.user_mac is not null and not (c.stale or c.withdrawn)) o
         where o.is_older
    ), fresh as (
        select c.*,
               c.user_mac is not null and (exists (select 1 from overtaken o where o.ord = c.ord) or exists (
                   select 1 from deliveries n
                    where n.tenant_id = c.tenant_id and n.user_mac = c.user_mac
                      and (n.user_time, n.delivery_id) > (c.user_time, c.delivery_id))) as superseded
          from candidates c
    ), wanted as (
        -- As if every one got a slot; who is too late even so, or only because of those before, is refused.
        select f.ord, f.pace_key, f.place_by, p.epoch, p.interval_us, greatest(p.tat, t, p.hold_until) as base,
               greatest(p.tat, t, p.hold_until)
                   + (row_number() over (partition by f.pace_key order by f.ord) - 1) * p.interval_us * interval '1 microsecond'
                   as slot_at
          from fresh f join pacing p on p.pace_key = f.pace_key
         where not (f.stale or f.withdrawn or f.superseded)
    ), slots as (
        select w.ord, w.pace_key, w.epoch, w.interval_us, true as in_time,
               w.base + (row_number() over (partition by w.pace_key order by w.ord) - 1) * w.interval_us * interval '1 microsecond'
                   as slot_at
          from wanted w where w.slot_at <= w.place_by
        union all
        select w.ord, w.pace_key, w.epoch, w.interval_us, false, w.slot_at from wanted w where w.slot_at > w.place_by
    ), begun as (
        select distinct on (f.line) f.ord
          from fresh f join slots s on s.ord = f.ord
         where s.in_time and s.slot_at <= t + in_begin_ahead and f.attempt_id is not null
           and not exists (select 1 from deliveries d where d.line = f.line)
           and (f.user_mac is null or not exists (
               select 1 from deliveries d where d.tenant_id = f.tenant_id and d.user_line = f.user_mac))
         order by f.line, f.ord
    ), planned as (
        select f.*, s.in_time, s.slot_at, s.epoch, (b.ord is not null) as begun,
               case when f.pace_key is null then 'end' when s.in_time then 'place' else 'backlog' end as verdict,
               case when b.ord is not null then t + in_rescue
                    when s.in_time then least(s.slot_at, f.place_by) else t end as wake_at,
               (extract(epoch from s.slot_at - t) * 1000)::bigint as wait_ms
          from fresh f left join slots s on s.ord = f.ord left join begun b on b.ord = f.ord
         where not (f.stale or f.withdrawn or f.superseded)
    ), inserted as (
        insert into deliveries as d (
            tenant_id, delivery_id, owner, state, wake_at, identity_key, identity_mac, user_mac, sealed_key, sealed,
            to_masked, locale, context, traceparent, tracestate, account_sid, pace_key, requested_at, admitted_at,
            expires_at, place_by, heard_after_ms, slot_at, slot_epoch, announced_at, attempt, attempt_id, intent_at, line,
            user_time, user_line, sequence, ended, ended_at)
        select p.tenant_id, p.delivery_id, in_worker,
               case when p.begun then 'placing' when p.verdict = 'place' then 'waiting' else 'final' end, p.wake_at,
               p.identity_key, p.identity_mac, p.user_mac,
               case when p.verdict = 'place' then p.sealed_key end, case when p.verdict = 'place' then p.sealed end,
               p.to_masked, p.locale, p.context, p.traceparent, p.tracestate, p.account_sid, p.pace_key, p.requested_at, t,
               p.expires_at, coalesce(p.place_by, p.expires_at), coalesce(p.heard_after_ms, 0),
               case when p.in_time then p.slot_at end, case when p.in_time then p.epoch end,
               case when p.in_time then p.slot_at end,
               case when p.begun then 1 else 0 end, case when p.begun then p.attempt_id end,
               case when p.begun then t end, case when p.begun then p.line end,
               p.user_time, case when p.begun then p.user_mac end,
               case when p.verdict = 'end' and p.status2 is not null then 2 else 1 end,
               case p.verdict when 'end' then coalesce(p.status2, p.status1) when 'backlog' then p.status2 end,
               case when p.verdict <> 'place' then t end
          from planned p
         order by p.tenant_id, p.delivery_id
        -- What ends at once may take the place of a tombstone; a call to be placed never does.
        on conflict (tenant_id, delivery_id) do update set
            revision = d.revision + 1, owner = excluded.owner, wake_at = excluded.wake_at, identity_key = excluded.identity_key,
            identity_mac = excluded.identity_mac, to_masked = excluded.to_masked, context = excluded.context,
            traceparent = excluded.traceparent, tracestate = excluded.tracestate, requested_at = excluded.requested_at,
            admitted_at = excluded.admitted_at, expires_at = excluded.expires_at, place_by = excluded.place_by,
            sequence = excluded.sequence, ended = excluded.ended, ended_at = excluded.ended_at
            where d.identity_key = '' and excluded.state = 'final'
        returning d.tenant_id, d.delivery_id
    ), done as (
        select p.* from planned p join inserted n on n.tenant_id = p.tenant_id and n.delivery_id = p.delivery_id
    ), told as (
        insert into outbox (tenant_id, delivery_id, sequence, owner, status, routing_key, body, traceparent, tracestate)
        select p.tenant_id, p.delivery_id, e.sequence, in_worker, e.status, e.route,
               -- Marks that only the slot fills; see the core's event module.
               replace(replace(e.body, '"\u0001due_at"',
                   coalesce('"' || to_char(p.slot_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') || '"', 'null')),
                   '"estimated_wait_ms":-9223372036854775807', '"estimated_wait_ms":' || coalesce(p.wait_ms, 0)::text),
               p.traceparent, p.tracestate
          from done p
         cross join lateral (
            select 1 as sequence, p.status1 as status, p.route1 as route, p.body1 as body where p.verdict <> 'backlog'
            union all
            select case p.verdict when 'end' then 2 else 1 end, p.status2, p.route2, p.body2
             where p.verdict = 'backlog' or (p.verdict = 'end' and p.status2 is not null)
         ) e
    ), paced as (
        update pacing p set tat = m.next
          from (select s.pace_key, max(s.slot_at) + max(s.interval_us) * interval '1 microsecond' as next
                  from slots s join done o on o.ord = s.ord
                 where s.in_time group by s.pace_key) m
         where p.pace_key = m.pace_key
    )
    select i.ord,
           case when k.ours then 'place' when k.ord is not null then 'known' when f.stale then 'stale'
                when f.withdrawn then 'withdrawn' when f.superseded then 'superseded'
                when o.ord is null then 'raced' else o.verdict end,
           coalesce(o.slot_at, k.slot_at), coalesce(o.epoch, k.slot_epoch), coalesce(o.begun, k.ours, false),
           coalesce(k.admitted_at, t), coalesce(o.wake_at, k.wake_at), o.wait_ms, k.identity_key, k.identity_mac,
           o.user_mac is not null and exists (
               select 1 from deliveries r
                where r.tenant_id = i.tenant_id and r.user_mac = i.user_mac and r.state <> 'final'
                  and (r.user_time, r.delivery_id) < (o.user_time, i.delivery_id))
      from input i
      left join known k on k.ord = i.ord
      left join fresh f on f.ord = i.ord
      left join done o on o.ord = i.ord
     order by i.ord;
end $$;

-- As before, and
--   superseded  a newer request of the user is known
--   user_busy   a call to the user is being placed or goes on
drop function begin_attempts;
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
               d.slot_at, d.slot_epoch, d.pace_key as old_pace_key, d.user_mac, d.user_time
          from input i join deliveries d on d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id
         where d.revision = i.revision and d.state = 'waiting'
         order by d.tenant_id, d.delivery_id
           for update of d
    ), superseded as (
        select u.ord from due u
         where u.user_mac is not null and exists (
               select 1 from deliveries n
                where n.tenant_id = u.tenant_id and n.user_mac = u.user_mac
                  and (n.user_time, n.delivery_id) > (u.user_time, u.delivery_id))
    ), user_busy as (
        select u.ord from due u
         where u.user_mac is not null and exists (
               select 1 from deliveries b where b.tenant_id = u.tenant_id and b.user_line = u.user_mac)
           and not exists (select 1 from superseded s where s.ord = u.ord)
    ), free as (
        select distinct on (u.line) u.ord
          from due u where not exists (select 1 from deliveries d where d.line = u.line)
           and not exists (select 1 from superseded s where s.ord = u.ord)
           and not exists (select 1 from user_busy b where b.ord = u.ord)
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
               line = case when s.slot_at <= t + in_begin_ahead then j.line end,
               user_line = case when s.slot_at <= t + in_begin_ahead then j.user_mac end
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
           case when u.ord is null then 'conflict' when x.ord is not null then 'superseded'
                when y.ord is not null then 'user_busy' when l.ord is not null then 'late'
                when c.ord is null then 'line_busy' when c.state = 'placing' then 'go' else 'wait' end,
           coalesce(c.slot_at, l.slot_at), coalesce(c.slot_epoch, 0), coalesce(c.revision, i.revision)
      from input i
      left join due u on u.ord = i.ord
      left join superseded x on x.ord = i.ord
      left join user_busy y on y.ord = i.ord
      left join late l on l.ord = i.ord
      left join changed c on c.ord = i.ord
     order by i.ord;
end $$;
