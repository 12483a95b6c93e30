-- An open circuit is tried out with a call every two seconds until one goes well, and then the account has its pace back: nobody
-- knows when. So who would get no slot at that step is not told that it is too late, unless it would be even if the circuit closed at
-- the hold's end: it has no slot, as if paused, and is due at its last moment; when the circuit closes, it gets its place.

-- Gives the waiting of an account new slots, from now or the end of a hold on, at its present pace: those never tried first, each in
-- the order they came. Who gets none in time is due at once, to be ended; but while a circuit
-- is tried out, who would have one at the account's own pace is due at its last moment, as if paused. All slots before are void.
create or replace function repace(in_pace_key text, in_hold interval) returns bigint language plpgsql as $$
declare
    t timestamptz;
    pace pacing;
    moved bigint;
begin
    perform 1 from pacing p where p.pace_key = in_pace_key for update;
    t := clock_timestamp();
    update pacing p set
           epoch = p.epoch + 1, hold_until = greatest(p.hold_until, t + in_hold),
           interval_us = coalesce((select pace_interval(a.calls_per_second) from accounts a where a.account_sid = p.account_sid),
                                  p.interval_us)
     where p.pace_key = in_pace_key returning * into pace;
    if not found then
        return 0;
    end if;
    -- Of the slots ahead, those of the next 50 ms may be under way already: the first new one keeps its distance from them.
    update pacing p set
           tat = greatest(t, least(p.tat, t + interval '50 milliseconds'
                                          + greatest(p.interval_us, coalesce(p.trial_us, 0)) * interval '1 microsecond'))
     where p.pace_key = in_pace_key returning * into pace;
    with waiting as (
        -- What waits for another try at a time of its own keeps that; and of what is paused nothing moves.
        select d.tenant_id, d.delivery_id, d.place_by, d.attempt > 0 as tried, d.admitted_at,
               d.slot_at is not null or d.wake_at >= d.place_by as moves
          from deliveries d
         where d.pace_key = in_pace_key and d.state = 'waiting'
           and not exists (select 1 from accounts a where a.account_sid = pace.account_sid and a.paused)
           and not exists (select 1 from voice_settings s where s.tenant_id = d.tenant_id and s.paused)
         order by d.tenant_id, d.delivery_id
           for update of d
    ), ranked as (
        -- Not at once: they are nobody's until somebody claims them, and a slot that has passed by then is lost.
        select w.*, greatest(pace.tat, pace.hold_until, t + interval '700 milliseconds') as base,
               greatest(pace.interval_us, coalesce(pace.trial_us, 0)) as step_us,
               row_number() over (order by w.tried, w.admitted_at, w.tenant_id, w.delivery_id) - 1 as n
          from waiting w where w.moves
    ), slots as (
        select r.*, r.base + (row_number() over (order by r.n) - 1) * r.step_us * interval '1 microsecond' as slot_at
          from ranked r where r.base + r.n * r.step_us * interval '1 microsecond' <= r.place_by
        union all
        select r.*, null from ranked r where r.base + r.n * r.step_us * interval '1 microsecond' > r.place_by
    ), hopeful as (
        select s.*, s.slot_at is null and pace.trial_us is not null
                    and s.base + s.n * pace.interval_us * interval '1 microsecond' <= s.place_by as hopes
          from slots s
    ), changed as (
        update deliveries d set
               revision = d.revision + 1, owner = null, slot_at = s.slot_at,
               slot_epoch = case when s.slot_at is not null then pace.epoch end, wake_at = coalesce(s.slot_at, case when s.hopes then s.place_by else t end),
               untold = coalesce(coalesce(s.slot_at, case when s.hopes then s.place_by end)
                                 > coalesce(d.announced_at, d.admitted_at) + interval '1 second', false)
          from hopeful s where d.tenant_id = s.tenant_id and d.delivery_id = s.delivery_id
        returning d.slot_at
    ), noticed as (
        -- Whoever is just working on one of the others looks at everything anew.
        update deliveries d set revision = d.revision + 1
          from waiting w where not w.moves and d.tenant_id = w.tenant_id and d.delivery_id = w.delivery_id
    ), paced as (
        update pacing p set tat = greatest(p.tat, m.next)
          from (select max(c.slot_at) + greatest(pace.interval_us, coalesce(pace.trial_us, 0)) * interval '1 microsecond' as next
                  from changed c where c.slot_at is not null) m
         where p.pace_key = in_pace_key and m.next is not null
    )
    select count(*) into moved from changed;
    return moved;
end $$;

-- Admission of a group: as before, but for circuits that are tried out, where a tenant's share is of the account's own pace.
create or replace function admit(
    in_worker bigint, in_skip boolean, in_begin_ahead interval, in_rescue interval, in_hold_ahead interval,
    in_tenant text[], in_delivery text[], in_identity_key text[], in_identity_mac bytea[], in_user_mac bytea[],
    in_requested_at timestamptz[], in_expires_at timestamptz[], in_to_masked text[], in_context jsonb[],
    in_traceparent text[], in_tracestate text[],
    in_sealed_key text[], in_sealed bytea[], in_locale text[], in_account text[], in_pace_key text[], in_parked boolean[],
    -- Of the settings that the plan was made from: null where there were none, -1 where none were asked for.
    in_version bigint[], in_place_by timestamptz[], in_heard_after_ms integer[], in_attempt uuid[], in_line bytea[],
    -- To be placed: accepted, and expired for want of a slot. Else: the statuses to say, the second may be missing.
    in_status1 text[], in_route1 text[], in_body1 text[], in_status2 text[], in_route2 text[], in_body2 text[]
) returns table (
    ord bigint, verdict text, slot_at timestamptz, slot_epoch bigint, begun boolean, admitted_at timestamptz,
    wake_at timestamptz, wait_ms bigint, identity_key text, identity_mac bytea, rivals boolean, held boolean
) language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    t timestamptz;
    hopeful text[];
    locked text[];
begin
    if exists (select 1 from unnest(in_pace_key) as x(k) left join pacing p on p.pace_key = x.k where x.k is not null and p.pace_key is null) then
        perform ensure_paces(in_pace_key, in_account);
    end if;
    -- Whose backlog is longer than every life in the group gets no slot whoever else is served: a flood of refusals locks nothing.
    select array_agg(w.pace_key) into hopeful
      from (select x.pace_key, max(x.place_by) filter (where not x.parked) as place_by, bool_or(x.parked) as parked
              from unnest(in_pace_key, in_place_by, in_parked) as x(pace_key, place_by, parked)
             where x.pace_key is not null group by x.pace_key) w
      join pacing p on p.pace_key = w.pace_key
     -- What is parked waits for a resumption under way, or that would not see it.
     where w.parked or greatest(case when p.trial_us is null then p.tat end, clock_timestamp(), p.hold_until) <= w.place_by;
    locked := lock_paces(hopeful, in_skip);
    -- After the locks: what is read from here on is the latest, and the time is the time of the reservation.
    t := clock_timestamp();
    return query
    with looked_up as (
        select i.*, coalesce(d.identity_key <> '', f.identity_key is not null) as known,
               coalesce(d.identity_key, f.identity_key) as known_key, coalesce(d.identity_mac, f.identity_mac) as known_mac,
               -- Begun by this very attempt: it is this admission's own row, whose answer was lost.
               coalesce(d.attempt_id = i.attempt_id and d.state = 'placing' and d.revision = 1, false) as ours,
               d.slot_at as known_slot_at, d.slot_epoch as known_epoch, d.admitted_at as known_at, d.wake_at as known_wake_at,
               i.version is distinct from -1 and s.version is distinct from i.version as stale,
               i.pace_key is not null and coalesce(d.identity_key = '', false) as withdrawn,
               h.k is not null and l.k is null as busy, l.k is not null as locked,
               -- A publisher's clock that is ahead must not make later requests of the user look older.
               case when i.user_mac is not null then least(coalesce(i.requested_at, t), t) end as user_time,
               p.at, p.epoch, p.base, p.step_us, p.own_us, p.reopens, p.counted, p.tenant_share, p.shared
          from unnest(
            in_tenant, in_delivery, in_identity_key, in_identity_mac, in_user_mac, in_requested_at, in_expires_at,
            in_to_masked, in_context, in_traceparent, in_tracestate, in_sealed_key, in_sealed, in_locale, in_account,
            in_pace_key, in_parked, in_version, in_place_by, in_heard_after_ms, in_attempt, in_line,
            in_status1, in_route1, in_body1, in_status2, in_route2, in_body2
        ) with ordinality as i(
            tenant_id, delivery_id, identity_key, identity_mac, user_mac, requested_at, expires_at,
            to_masked, context, traceparent, tracestate, sealed_key, sealed, locale, account_sid,
            pace_key, parked, version, place_by, heard_after_ms, attempt_id, line, status1, route1, body1, status2, route2, body2, ord)
         cross join as_many()
          left join lateral (
            select d.* from deliveries d where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id limit 1) d on true
          left join lateral (
            select f.identity_key, f.identity_mac from finished f
             where d.delivery_id is null and f.tenant_id = i.tenant_id and f.delivery_id = i.delivery_id limit 1) f on true
          left join lateral (select s.version from voice_settings s where s.tenant_id = i.tenant_id limit 1) s on true
          left join lateral (
            select p.ctid as at, p.epoch, greatest(p.tat, t, p.hold_until) as base,
                   greatest(p.interval_us, coalesce(p.trial_us, 0)) as step_us, p.interval_us as own_us,
                   case when p.trial_us is not null then greatest(t, p.hold_until) end as reopens,
                   a.max_calls is not null as counted, coalesce(a.tenant_share, 1) as tenant_share,
                   -- A tenant whose credentials are not proven has a pace of its own.
                   p.pace_key = p.account_sid and (select count(*) from (
                       select 1 from voice_settings s
                        where s.account_sid = p.account_sid and s.proven and s.enabled and not s.test_mode limit 2) s) > 1 as shared
              from pacing p left join accounts a on a.account_sid = p.account_sid where p.pace_key = i.pace_key limit 1) p on true
          left join unnest(locked) as l(k) on l.k = i.pace_key
          left join unnest(hopeful) as h(k) on h.k = i.pace_key
    ), candidates as (
        select l.*, not (l.known or l.stale or l.withdrawn or l.busy) as candidate from looked_up l
    ), by_user as (
        -- By another of this group: one that is to be admitted, and no repeat of anything.
        select c.*, c.candidate and c.user_mac is not null and c.delivery_id <> first_value(c.delivery_id) over (
                   partition by c.tenant_id, c.user_mac, c.candidate order by c.user_time desc, c.delivery_id desc) as overtaken
          from candidates c
    ), fresh as (
        select u.*, u.candidate and (u.overtaken or coalesce(n.newer, false)) as superseded
          from by_user u
          left join lateral (
            select true as newer from deliveries n
             where u.candidate and u.user_mac is not null and n.user_mac = u.user_mac
               and (n.user_time, n.delivery_id) > (u.user_time, u.delivery_id) limit 1) n on true
    ), asking as (
        select f.*, f.candidate and not f.superseded as admitted,
               f.candidate and not f.superseded and f.pace_key is not null and not f.parked as asks
          from fresh f
    ), ranked as materialized (
        select a.*, row_number() over (partition by a.pace_key, a.asks order by a.ord) - 1 as nth,
               row_number() over (partition by a.pace_key, a.tenant_id, a.asks order by a.ord) as of_tenant
          from asking a
    ), ahead as materialized (
        select x.pace_key, x.tenant_id, (
                   select count(*) from deliveries d
                    where d.pace_key = x.pace_key and d.tenant_id = x.tenant_id and d.state = 'waiting' and d.slot_at > t) as waiting
          from (select distinct r.pace_key, r.tenant_id from ranked r where r.asks and r.shared) x
    ), shares as (
        -- Of the slots before its last moment a tenant may hold its share, and one in any case.
        select r.*, r.asks and not coalesce(r.of_tenant + h.waiting > 1
                   and (r.of_tenant + h.waiting) * r.own_us
                       > trunc(r.tenant_share * (extract(epoch from r.place_by - t) * 1000000)::bigint), false) as wanted
          from ranked r left join ahead h on h.pace_key = r.pace_key and h.tenant_id = r.tenant_id
    ), wanted as (
        -- As if every one got a slot; who is too late even so, or only because of those before, is refused.
        select s.*, s.base + (row_number() over (partition by s.pace_key, s.wanted order by s.ord) - 1)
                   * s.step_us * interval '1 microsecond' as slot_if_all
          from shares s
    ), timed as (
        select w.*, w.wanted and w.locked and w.slot_if_all <= w.place_by as in_time,
               coalesce(w.wanted and w.locked and w.slot_if_all > w.place_by and w.reopens <= w.place_by, false) as hopes
          from wanted w
    ), slotted as (
        select w.*, case when w.in_time then w.base + (row_number() over (partition by w.pace_key, w.in_time order by w.ord) - 1)
                                 * w.step_us * interval '1 microsecond'
                         when w.hopes then w.place_by
                         when w.wanted then w.slot_if_all
                         when w.asks then w.base + w.nth * w.step_us * interval '1 microsecond' end as slot_at
          from timed w
    ), ready as (
        select s.*, s.in_time and s.slot_at <= t + in_begin_ahead and s.attempt_id is not null and not s.counted
                   and o.one is null and u.one is null as ready
          from slotted s
          left join lateral (select 1 as one from deliveries d where s.in_time and d.line = s.line limit 1) o on true
          left join lateral (
            select 1 as one from deliveries d
             where s.in_time and d.user_line = s.user_mac limit 1) u on true
    ), planned as materialized (
        select r.*, r.ready and row_number() over (partition by r.line, r.ready order by r.ord) = 1 as begun,
               case when r.parked then 'parked' when r.pace_key is null then 'end' when r.in_time or r.hopes then 'place'
                    else 'backlog' end
                   as verdict,
               (extract(epoch from r.slot_at - t) * 1000)::bigint as wait_ms
          from ready r
    ), inserted as (
        insert into deliveries as d (
            tenant_id, delivery_id, owner, state, wake_at, identity_key, identity_mac, user_mac, sealed_key, sealed,
            to_masked, locale, context, traceparent, tracestate, account_sid, pace_key, requested_at, admitted_at,
            expires_at, place_by, heard_after_ms, slot_at, slot_epoch, announced_at, attempt, attempt_id, intent_at, line,
            user_time, user_line, sequence, ended, ended_at)
        select p.tenant_id, p.delivery_id,
               case when p.begun or p.in_time and p.slot_at <= t + in_hold_ahead then in_worker end,
               case when p.begun then 'placing' when p.verdict in ('place', 'parked') then 'waiting' else 'final' end,
               case when p.begun then t + in_rescue when p.parked or p.hopes then p.place_by
                    when p.in_time then least(p.slot_at, p.place_by) else t end,
               p.identity_key, p.identity_mac, p.user_mac,
               case when p.verdict in ('place', 'parked') then p.sealed_key end,
               case when p.verdict in ('place', 'parked') then p.sealed end,
               p.to_masked, p.locale, p.context, p.traceparent, p.tracestate, p.account_sid, p.pace_key, p.requested_at, t,
               p.expires_at, coalesce(p.place_by, p.expires_at), coalesce(p.heard_after_ms, 0),
               case when p.in_time then p.slot_at end, case when p.in_time then p.epoch end,
               case when p.in_time then p.slot_at when p.parked or p.hopes then p.place_by end,
               case when p.begun then 1 else 0 end, case when p.begun then p.attempt_id end,
               case when p.begun then t end, case when p.begun then p.line end,
               p.user_time, case when p.begun then p.user_mac end,
               case when p.verdict in ('end', 'parked') and p.status2 is not null then 2 else 1 end,
               case p.verdict when 'end' then coalesce(p.status2, p.status1) when 'backlog' then p.status2 end,
               case when p.verdict in ('end', 'backlog') then t end
          from planned p
         where p.admitted
         order by p.tenant_id, p.delivery_id
        -- What ends at once may take the place of a tombstone; a call to be placed never does.
        on conflict (tenant_id, delivery_id) do update set
            revision = d.revision + 1, owner = excluded.owner, wake_at = excluded.wake_at, identity_key = excluded.identity_key,
            identity_mac = excluded.identity_mac, to_masked = excluded.to_masked, context = excluded.context,
            traceparent = excluded.traceparent, tracestate = excluded.tracestate, requested_at = excluded.requested_at,
            admitted_at = excluded.admitted_at, expires_at = excluded.expires_at, place_by = excluded.place_by,
            sequence = excluded.sequence, ended = excluded.ended, ended_at = excluded.ended_at
            where d.identity_key = '' and excluded.state = 'final'
        returning d.tenant_id, d.delivery_id, d.owner, d.wake_at
    ), done as materialized (
        select p.*, n.delivery_id is not null as inserted, n.owner is not null as held, n.wake_at
          from planned p left join inserted n on p.admitted and n.tenant_id = p.tenant_id and n.delivery_id = p.delivery_id
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
            select case p.verdict when 'backlog' then 1 else 2 end, p.status2, p.route2, p.body2
             where p.verdict = 'backlog' or (p.verdict in ('end', 'parked') and p.status2 is not null)
         ) e
         where p.inserted
    ), paced as (
        update pacing p set tat = m.next
          from (select o.at, max(o.slot_at) + max(o.step_us) * interval '1 microsecond' as next
                  from done o where o.in_time and o.inserted group by o.at) m
         where p.ctid = m.at
    )
    select o.ord,
           case when o.ours then 'place' when o.known then 'known' when o.stale then 'stale'
                when o.withdrawn then 'withdrawn' when o.busy then 'busy' when o.superseded then 'superseded'
                when not o.inserted then 'raced' else o.verdict end,
           case when o.inserted then o.slot_at else o.known_slot_at end, case when o.inserted then o.epoch else o.known_epoch end,
           case when o.inserted then o.begun else o.ours end, coalesce(o.known_at, t),
           case when o.inserted then o.wake_at else o.known_wake_at end, o.wait_ms,
           case when o.known then o.known_key end, case when o.known then o.known_mac end,
           o.inserted and coalesce(r.one is not null, false),
           case when o.inserted then o.held else o.ours end
      from done o
      left join lateral (
        select 1 as one from deliveries r
         where o.inserted and o.user_mac is not null and r.user_mac = o.user_mac and r.ended is null
           and (r.user_time, r.delivery_id) < (o.user_time, o.delivery_id) limit 1) r on true
     order by o.ord;
end $$;

-- Beginning placements that are due: as before, but for circuits that are tried out.
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
      join deliveries d on d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id
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
             where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id and d.revision = i.revision and d.state = 'waiting'
               for update skip locked) d on true
          left join lateral (
            -- Locked by somebody, since it wasn't found.
            select 1 as one from deliveries x
             where d.delivery_id is null and x.tenant_id = i.tenant_id and x.delivery_id = i.delivery_id
               and x.revision = i.revision and x.state = 'waiting' limit 1) x on true
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
     order by 1;
end $$;
