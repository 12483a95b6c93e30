-- reschedule_account(pace key, hold)
--
-- Only for workers of the previous release, which don't give slots to queues: see void_slots().
--
-- Makes all reserved slots of a rate limit void and gives its waiting deliveries new ones, from now
-- or from the end of the hold on, at the account's present rate: deliveries without an attempt
-- first, each group in the order of admission. Returns how many deliveries were moved; 0 if there
-- is no such pace key.
--
-- A delivery that gets no slot before its deadline is due at once, to be finished. While a circuit
-- is open or half-open, a delivery that would have a slot at the account's own rate is due at its
-- deadline instead, as if it were paused: if the circuit closes in time, it gets a slot.
-- A delivery whose due time became more than a second later than announced is marked unannounced.
-- Moved deliveries have no owner afterwards.
--
-- Locks: the pacing row; then the waiting deliveries, in the order of their keys.
--
-- Must never move deliveries of a paused tenant or account, nor retries that wait for a time of
-- their own: those only get a new revision.
create or replace function reschedule_account(in_pace_key text, in_hold interval) returns bigint
language plpgsql as $$
declare
    t timestamptz;
    account text;
    new_epoch bigint;
    own_us bigint;
    step bigint;
    circuit_open boolean;
    earliest timestamptz;
    moved bigint;
begin
    perform 1 from pacing p where p.pace_key = in_pace_key for update;
    t := clock_timestamp();
    update pacing p set
           epoch = p.epoch + 1, hold_until = greatest(p.hold_until, t + in_hold),
           interval_us = coalesce(
               (select pace_interval(a.calls_per_second) from accounts a
                 where a.account_sid = p.account_sid),
               p.interval_us)
     where p.pace_key = in_pace_key;
    if not found then
        return 0;
    end if;
    -- Reserved slots of the next 50 ms may be in use already: the first new one keeps its distance
    -- from them.
    update pacing p set
           tat = greatest(t, least(p.tat, t + interval '50 milliseconds'
                   + greatest(p.interval_us, coalesce(p.probe_interval_us, 0))
                   * interval '1 microsecond'))
     where p.pace_key = in_pace_key
    returning p.account_sid, p.epoch, p.interval_us,
              greatest(p.interval_us, coalesce(p.probe_interval_us, 0)),
              p.probe_interval_us is not null,
              -- Moved deliveries must be claimed first, and a slot that has passed by then is lost.
              greatest(p.tat, p.hold_until, t + interval '700 milliseconds')
         into account, new_epoch, own_us, step, circuit_open, earliest;
    with waiting as (
        select d.tenant_id, d.delivery_id, d.place_by, d.attempt > 0 as is_retry, d.admitted_at,
               d.slot_at is not null or d.wake_at >= d.place_by as moves
          from deliveries d
         where d.pace_key = in_pace_key and d.state = 'waiting'
           and not exists (select 1 from accounts a where a.account_sid = account and a.paused)
           and not exists (
               select 1 from voice_settings s where s.tenant_id = d.tenant_id and s.paused)
         order by d.tenant_id, d.delivery_id
           for update of d
    ), ranked as (
        select w.tenant_id, w.delivery_id, w.place_by,
               row_number() over (
                   order by w.is_retry, w.admitted_at, w.tenant_id, w.delivery_id) - 1 as n
          from waiting w where w.moves
    ), slots as (
        select r.tenant_id, r.delivery_id, r.place_by, r.n,
               earliest + (row_number() over (order by r.n) - 1) * step * interval '1 microsecond'
                   as slot_at
          from ranked r
         where earliest + r.n * step * interval '1 microsecond' <= r.place_by
        union all
        select r.tenant_id, r.delivery_id, r.place_by, r.n, null
          from ranked r
         where earliest + r.n * step * interval '1 microsecond' > r.place_by
    ), judged as (
        select s.tenant_id, s.delivery_id, s.place_by, s.slot_at,
               s.slot_at is null and circuit_open
                   and earliest + s.n * own_us * interval '1 microsecond' <= s.place_by
                   as waits_for_circuit
          from slots s
    ), changed as (
        update deliveries d set
               revision = d.revision + 1, owner = null, slot_at = j.slot_at,
               slot_epoch = case when j.slot_at is not null then new_epoch end,
               wake_at = coalesce(
                   j.slot_at, case when j.waits_for_circuit then j.place_by else t end),
               unannounced = coalesce(
                   coalesce(j.slot_at, case when j.waits_for_circuit then j.place_by end)
                       > coalesce(d.announced_at, d.admitted_at) + interval '1 second',
                   false)
          from judged j where d.tenant_id = j.tenant_id and d.delivery_id = j.delivery_id
        returning d.slot_at
    ), touched as (
        -- A worker that is computing a change of one of the others must look at everything again.
        update deliveries d set revision = d.revision + 1
          from waiting w
         where not w.moves and d.tenant_id = w.tenant_id and d.delivery_id = w.delivery_id
    ), pacing_moved as (
        update pacing p set tat = greatest(p.tat, m.next)
          from (select max(c.slot_at) + step * interval '1 microsecond' as next
                  from changed c where c.slot_at is not null) m
         where p.pace_key = in_pace_key and m.next is not null
    )
    select count(*) into moved from changed;
    return moved;
end $$;
