-- Admits a group. Every ordinal of the input gets one answer:
--   place     new, and to be placed: its slot is reserved; begun says whether the intent is saved as well
--   end       new, and over: the planned statuses are said
--   backlog   new, and over: the account has no slot in time
--   known     the row was there; its identity comes along, to be compared
--   stale     the tenant's settings are newer than the plan's: nothing was done
--   raced     somebody inserted it at this very moment: ask again
-- Locks pacing rows in key order, then inserts in key order; so two groups can't deadlock. Only what is new moves an
-- account's pace. The input holds no delivery twice.
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
    wake_at timestamptz, wait_ms bigint, identity_key text, identity_mac bytea
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
        select i.ord, d.identity_key, d.identity_mac
          from input i join deliveries d on d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id
    ), fresh as (
        select i.*, (i.version is distinct from -1 and s.version is distinct from i.version) as stale
          from input i left join voice_settings s on s.tenant_id = i.tenant_id
         where not exists (select 1 from known k where k.ord = i.ord)
    ), wanted as (
        -- As if every one got a slot; who is too late even so, or only because of those before, is refused.
        select f.ord, f.pace_key, f.place_by, p.epoch, p.interval_us, greatest(p.tat, t, p.hold_until) as base,
               greatest(p.tat, t, p.hold_until)
                   + (row_number() over (partition by f.pace_key order by f.ord) - 1) * p.interval_us * interval '1 microsecond'
                   as slot_at
          from fresh f join pacing p on p.pace_key = f.pace_key
         where not f.stale
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
         order by f.line, f.ord
    ), planned as (
        select f.*, s.in_time, s.slot_at, s.epoch, (b.ord is not null) as begun,
               case when f.pace_key is null then 'end' when s.in_time then 'place' else 'backlog' end as verdict,
               case when b.ord is not null then t + in_rescue
                    when s.in_time then least(s.slot_at, f.place_by) else t end as wake_at,
               (extract(epoch from s.slot_at - t) * 1000)::bigint as wait_ms
          from fresh f left join slots s on s.ord = f.ord left join begun b on b.ord = f.ord
         where not f.stale
    ), inserted as (
        insert into deliveries as d (
            tenant_id, delivery_id, owner, state, wake_at, identity_key, identity_mac, user_mac, sealed_key, sealed,
            to_masked, locale, context, traceparent, tracestate, account_sid, pace_key, requested_at, admitted_at,
            expires_at, place_by, heard_after_ms, slot_at, slot_epoch, announced_at, attempt, attempt_id, intent_at, line, sequence,
            ended, ended_at)
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
               case when p.verdict = 'end' and p.status2 is not null then 2 else 1 end,
               case p.verdict when 'end' then coalesce(p.status2, p.status1) when 'backlog' then p.status2 end,
               case when p.verdict <> 'place' then t end
          from planned p
         order by p.tenant_id, p.delivery_id
        on conflict (tenant_id, delivery_id) do nothing
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
           case when k.ord is not null then 'known' when f.stale then 'stale'
                when o.ord is null then 'raced' else o.verdict end,
           o.slot_at, o.epoch, coalesce(o.begun, false), t, o.wake_at, o.wait_ms, k.identity_key, k.identity_mac
      from input i
      left join known k on k.ord = i.ord
      left join fresh f on f.ord = i.ord
      left join done o on o.ord = i.ord
     order by i.ord;
end $$;
