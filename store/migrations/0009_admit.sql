-- Admission of a group, by one statement.

-- As before, and
--   parked      its tenant or account is paused: it waits, due only at its last moment, to be ended
--   busy        the account's pace is locked by somebody: nothing was done; only said if asked to skip, else the statement fails
-- in_parked says which were planned so; held, whether the worker holds it: what is due later than in_hold_ahead from now is nobody's.
drop function admit;
create function admit(
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
     where w.parked or greatest(p.tat, clock_timestamp(), p.hold_until) <= w.place_by;
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
               p.at, p.epoch, p.base, p.step_us, p.counted, p.tenant_share, p.shared
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
                   greatest(p.interval_us, coalesce(p.trial_us, 0)) as step_us, a.max_calls is not null as counted, coalesce(a.tenant_share, 1) as tenant_share,
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
                   and (r.of_tenant + h.waiting) * r.step_us
                       > trunc(r.tenant_share * (extract(epoch from r.place_by - t) * 1000000)::bigint), false) as wanted
          from ranked r left join ahead h on h.pace_key = r.pace_key and h.tenant_id = r.tenant_id
    ), wanted as (
        -- As if every one got a slot; who is too late even so, or only because of those before, is refused.
        select s.*, s.base + (row_number() over (partition by s.pace_key, s.wanted order by s.ord) - 1)
                   * s.step_us * interval '1 microsecond' as slot_if_all
          from shares s
    ), timed as (
        select w.*, w.wanted and w.locked and w.slot_if_all <= w.place_by as in_time from wanted w
    ), slotted as (
        select w.*, case when w.in_time then w.base + (row_number() over (partition by w.pace_key, w.in_time order by w.ord) - 1)
                                 * w.step_us * interval '1 microsecond'
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
               case when r.parked then 'parked' when r.pace_key is null then 'end' when r.in_time then 'place' else 'backlog' end
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
               case when p.begun then t + in_rescue when p.parked then p.place_by
                    when p.in_time then least(p.slot_at, p.place_by) else t end,
               p.identity_key, p.identity_mac, p.user_mac,
               case when p.verdict in ('place', 'parked') then p.sealed_key end,
               case when p.verdict in ('place', 'parked') then p.sealed end,
               p.to_masked, p.locale, p.context, p.traceparent, p.tracestate, p.account_sid, p.pace_key, p.requested_at, t,
               p.expires_at, coalesce(p.place_by, p.expires_at), coalesce(p.heard_after_ms, 0),
               case when p.in_time then p.slot_at end, case when p.in_time then p.epoch end,
               case when p.in_time then p.slot_at when p.parked then p.place_by end,
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
