-- repair_clock_step(step, lease)
--
-- Repairs what was computed before the database's clock went back by `step`, and is now that much
-- too far ahead: an idle account would hand out no slots, a dead worker would look alive, and calls
-- would be looked after too late. Holds, queues and the next slots of all rate limits are moved
-- back, and reserved slots become void; no lease ends later than one that begins now; attempts
-- under way and retries are due earlier. Of several workers that notice the same step, the first
-- repairs.
--
-- Locks: the one row of database_state; for each rate limit in the order of their keys, what
-- void_slots() locks; the workers; the deliveries with an attempt, leaving out those that another
-- transaction has locked.
--
-- Must never hand out a slot that another worker may be using at this moment: void_slots() keeps
-- the distance. Must never change when a code expires.
create or replace function repair_clock_step(in_step interval, in_lease interval) returns void
language plpgsql as $$
declare
    t timestamptz;
    ahead record;
begin
    perform 1 from database_state for update;
    t := clock_timestamp();
    -- This step was repaired a moment ago.
    if exists (select 1 from database_state s
                where s.clock_repaired_at between t - interval '10 seconds'
                                              and t + interval '10 seconds'
                  and s.clock_step between in_step - interval '2 seconds'
                                       and in_step + interval '2 seconds') then
        return;
    end if;
    update database_state s
       set clock_repaired_at = t, clock_step = in_step,
           clock_went_back = in_step + case when s.clock_repaired_at > t - interval '1 hour'
                                            then s.clock_went_back else interval '0' end
     where s.only_row;
    for ahead in
        select p.pace_key from pacing p
         where p.tat > t or p.hold_until > t or p.queue_until > t order by p.pace_key
    loop
        update pacing p
           set tat = greatest(t, p.tat - in_step), queue_until = p.queue_until - in_step,
               hold_until = case when p.hold_until > t
                                 then greatest(t, p.hold_until - in_step) else p.hold_until end
         where p.pace_key = ahead.pace_key;
        perform void_slots(ahead.pace_key, interval '0', true);
    end loop;
    update workers w set lease_until = t + in_lease where w.lease_until > t + in_lease;
    update deliveries d
       set revision = d.revision + 1, wake_at = greatest(t, d.wake_at - in_step),
           settle_after = greatest(t, d.settle_after - in_step)
      from (select o.ctid as at from deliveries o
             where o.state <> 'final' and o.wake_at > t
               and (o.state <> 'waiting' or o.attempt > 0)
               for update skip locked) l
     where d.ctid = l.at;
end $$;
