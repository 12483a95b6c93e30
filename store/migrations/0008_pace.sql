-- The account's pace, shared fairly: pauses, circuits, tenants' shares, a limit of calls in progress; nothing waits long for a
-- locked row; what waits for long is nobody's until shortly before it is due.

alter table accounts
    -- The most calls in progress at once; null: as many as come.
    add column max_calls integer check (max_calls > 0),
    -- Of the slots ahead of an account that several tenants share, one tenant may hold this share.
    add column tenant_share double precision not null default 0.5 check (tenant_share > 0 and tenant_share <= 1);
alter table voice_settings
    add column paused boolean not null default false,
    -- Twilio refused these credentials: nothing is tried with them until they are looked at again, then.
    add column refused_until timestamptz;
create index voice_settings_account on voice_settings (account_sid);
create index voice_settings_refused on voice_settings (refused_until) where refused_until is not null;
alter table pacing
    -- While an open circuit is tried out: the pause between two calls, if it is longer than the pace's.
    add column trial_us bigint,
    -- How often in a row the circuit was opened.
    add column opened integer not null default 0;
alter table deliveries
    -- The pace key of a delivery that counts among the account's calls in progress.
    add column counted text,
    -- Its slot is later than was last said: whoever takes it up says so.
    add column untold boolean not null default false;
create index deliveries_untold on deliveries (wake_at) where untold;
alter table pacing set (fillfactor = 50);
create index deliveries_counted on deliveries (counted) where counted is not null;
create index deliveries_waiting on deliveries (pace_key, tenant_id) where state = 'waiting';
-- A user's keyed hash says the tenant as well. Without the tenant in them these can't be mistaken for the primary key, which would
-- lead through all that a tenant has.
drop index deliveries_user, deliveries_user_open, deliveries_user_line;
create index deliveries_user on deliveries (user_mac, user_time) where user_mac is not null;
create index deliveries_user_open on deliveries (user_mac, user_time) where user_mac is not null and ended is null;
create unique index deliveries_user_line on deliveries (user_line) where user_line is not null;

-- The pause between two calls of an account. A hundredth of the pace is kept back: calls that leave exactly in time reach Twilio a
-- little sooner or later, and must not exceed the pace there.
create function pace_interval(in_calls_per_second double precision) returns bigint language sql immutable as
    $$ select round(1010000::double precision / in_calls_per_second)::bigint $$;
update pacing p set interval_us = pace_interval(a.calls_per_second), epoch = p.epoch + 1
  from accounts a where a.account_sid = p.account_sid;

-- Makes pacing rows where there are none.
create function ensure_paces(in_pace_key text[], in_account text[]) returns void language sql as $$
    insert into pacing (pace_key, account_sid, interval_us, tat)
        select distinct on (x.pace_key) x.pace_key, x.account_sid, pace_interval(coalesce(a.calls_per_second, 1)), clock_timestamp()
          from unnest(in_pace_key, in_account) as x(pace_key, account_sid)
          left join accounts a on a.account_sid = x.account_sid
         where x.pace_key is not null and not exists (select 1 from pacing p where p.pace_key = x.pace_key)
         order by x.pace_key
        on conflict (pace_key) do nothing
$$;

-- What the statements below join by key in tables is written so that only an index will do, whatever the planner thinks of a table
-- that was empty when it looked: laterals with a limit, rows by the place at which they were locked, no sequential scans.
--
-- One row that the planner takes for forty: groups are large, and a plan for ten rows that joins by comparing each with each costs
-- more than all the work.
create function as_many() returns setof integer language plpgsql immutable rows 40 as $$ begin return next 1; end $$;

-- Locks pacing rows, in key order, and says which. Who holds one of them for long must not hold up the others' calls: it waits for a
-- moment only, and fails then; asked to skip, it leaves out what it can't have. (No exception is caught here: what is locked in a
-- subtransaction and changed outside it costs far more.)
create function lock_paces(in_keys text[], in_skip boolean) returns text[] language plpgsql as $$
declare
    patience text := current_setting('lock_timeout');
    locked text[];
begin
    if coalesce(cardinality(in_keys), 0) = 0 then
        return '{}';
    end if;
    if in_skip then
        select array_agg(l.pace_key) into locked
          from (select distinct k from unnest(in_keys) as k order by k) x
         cross join lateral (select p.pace_key from pacing p where p.pace_key = x.k for update skip locked) l;
    else
        perform set_config('lock_timeout', '100ms', true);
        select array_agg(l.pace_key) into locked
          from (select distinct k from unnest(in_keys) as k order by k) x
         cross join lateral (select p.pace_key from pacing p where p.pace_key = x.k for update) l;
        perform set_config('lock_timeout', patience, true);
    end if;
    return coalesce(locked, '{}');
end $$;

-- Gives the waiting of an account new slots, from now or the end of a hold on, at its present pace: those never tried first, each in
-- the order they came. Who gets none in time is due at once, to be ended. All slots before are void.
create function repace(in_pace_key text, in_hold interval) returns bigint language plpgsql as $$
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
    ), changed as (
        update deliveries d set
               revision = d.revision + 1, owner = null, slot_at = s.slot_at,
               slot_epoch = case when s.slot_at is not null then pace.epoch end, wake_at = coalesce(s.slot_at, t),
               untold = coalesce(s.slot_at > coalesce(d.announced_at, d.admitted_at) + interval '1 second', false)
          from slots s where d.tenant_id = s.tenant_id and d.delivery_id = s.delivery_id
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

-- Changes an account's rate, which counts at once for all that waits.
create function set_rate(in_account text, in_calls_per_second double precision) returns void language plpgsql as $$
begin
    insert into accounts as a (account_sid, calls_per_second) values (in_account, in_calls_per_second)
        on conflict (account_sid) do update set calls_per_second = excluded.calls_per_second
        where a.calls_per_second <> excluded.calls_per_second;
    perform repace(p.pace_key, interval '0')
       from (select pace_key from pacing where account_sid = in_account and interval_us <> pace_interval(in_calls_per_second)
              order by pace_key) p;
end $$;

-- Pauses an account or resumes it. Every plan made before is stale by the settings' versions.
create function pause_account(in_account text, in_paused boolean) returns boolean language plpgsql as $$
begin
    update accounts set paused = in_paused where account_sid = in_account;
    if not found then
        return false;
    end if;
    update voice_settings set version = nextval('voice_settings_version') where account_sid = in_account;
    if not in_paused then
        perform repace(p.pace_key, interval '0') from (select pace_key from pacing where account_sid = in_account order by pace_key) p;
    end if;
    return true;
end $$;

-- The same for one tenant.
create function pause_tenant(in_tenant text, in_paused boolean) returns boolean language plpgsql as $$
declare
    account text;
begin
    update voice_settings set paused = in_paused, version = nextval('voice_settings_version')
     where tenant_id = in_tenant returning account_sid into account;
    if not found then
        return false;
    end if;
    if not in_paused then
        perform repace(p.pace_key, interval '0')
           from (select pace_key from pacing where pace_key in (account, account || '/' || in_tenant) order by pace_key) p;
    end if;
    return true;
end $$;

-- Gives an account's slots only after a while, unless it waits nearly as long already: answers to calls that were under way together
-- ask for nearly the same.
create function hold(in_pace_key text, in_wait interval) returns void language plpgsql as $$
declare
    pace pacing;
begin
    select * into pace from pacing p where p.pace_key = in_pace_key for update;
    if found and pace.hold_until < clock_timestamp() + in_wait * 0.9 then
        perform repace(in_pace_key, in_wait);
    end if;
end $$;

-- Opens an account's circuit: no slots for a while, longer each time in a row, then one every two seconds. Gives the while in
-- milliseconds; null if it was open already.
create function trip(in_pace_key text, in_first interval, in_longest interval) returns bigint language plpgsql as $$
declare
    t timestamptz;
    pace pacing;
    wait interval;
begin
    select * into pace from pacing p where p.pace_key = in_pace_key for update;
    t := clock_timestamp();
    if not found or (pace.trial_us is not null and pace.hold_until > t) then
        return null;
    end if;
    wait := least(in_first * (2 ^ least(pace.opened, 10)), in_longest);
    update pacing p set trial_us = 2000000, opened = p.opened + 1 where p.pace_key = in_pace_key;
    perform repace(in_pace_key, wait);
    perform pg_notify('voice_otp_settings', '@' || pace.account_sid);
    return (extract(epoch from wait) * 1000)::bigint;
end $$;

-- Closes it.
create function mend(in_pace_key text) returns void language plpgsql as $$
declare
    account text;
begin
    update pacing set trial_us = null, opened = 0
     where pace_key = in_pace_key and trial_us is not null returning account_sid into account;
    if not found then
        return;
    end if;
    perform repace(in_pace_key, interval '0');
    perform pg_notify('voice_otp_settings', '@' || account);
end $$;

-- A change of an account concerns its tenants only.
create or replace function tell_account() returns trigger language plpgsql as $$
begin
    -- A tenant id never has an @.
    perform pg_notify('voice_otp_settings', '@' || new.account_sid);
    return null;
end $$;
