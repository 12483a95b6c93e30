-- void_slots(pace key, hold, resumed)
--
-- Makes all reserved slots of a rate limit void: they belong to an earlier epoch from then on. The
-- present rate counts, and no slot comes before the end of the hold. If slots were ahead, or the
-- circuit is open, or deliveries were resumed, there is a queue from then on: claim_deliveries()
-- gives the waiting deliveries new slots, in the order of admission, as their time comes. Does
-- nothing if there is no such pace key.
--
-- While only workers of the previous release are alive, which don't call claim_deliveries(),
-- reschedule_account() gives the new slots at once instead.
--
-- Inputs
--   in_hold      no slot within this time
--   in_resumed   whether deliveries wait that were admitted without a slot
--
-- Locks: the pacing row; then the shares of the account's tenants (tenant_slots), which are only
-- written with the pacing row locked.
--
-- Must never read or write a delivery, but for the previous release's workers: its cost must not
-- depend on how many wait.
create or replace function void_slots(in_pace_key text, in_hold interval, in_resumed boolean)
returns void language plpgsql as $$
declare
    t timestamptz;
    old_us bigint;
    step_us bigint;
    head timestamptz;
begin
    select p.interval_us into old_us from pacing p where p.pace_key = in_pace_key for update;
    if not found then
        return;
    end if;
    t := clock_timestamp();
    if (select not bool_or(w.gives_slots) from workers w where w.lease_until > t) then
        update pacing p set queue_until = null where p.pace_key = in_pace_key;
        perform reschedule_account(in_pace_key, in_hold);
        return;
    end if;
    update pacing p set
           epoch = p.epoch + 1, hold_until = greatest(p.hold_until, t + in_hold),
           interval_us = coalesce(
               (select pace_interval(a.calls_per_second) from accounts a
                 where a.account_sid = p.account_sid),
               p.interval_us)
     where p.pace_key = in_pace_key;
    update pacing p set
           queue_until = case when in_resumed or p.queue_until is not null or p.tat > t
                                   or p.probe_interval_us is not null
                              then greatest(coalesce(p.queue_until, p.tat), t) end,
           queue_counted_at = '-infinity',
           -- Reserved slots of the next 50 ms may be in use already: the first new one keeps its
           -- distance from them.
           tat = greatest(t, least(p.tat, t + interval '50 milliseconds'
                   + greatest(p.interval_us, coalesce(p.probe_interval_us, 0))
                   * interval '1 microsecond'))
     where p.pace_key = in_pace_key
    returning greatest(p.interval_us, coalesce(p.probe_interval_us, 0)),
              greatest(p.tat, p.hold_until)
         into step_us, head;
    -- The slots that were ahead are ahead still, at the present rate.
    update pacing p set
           queue_until = head + (extract(epoch from p.queue_until - t) * 1000000)::bigint / old_us
                   * step_us * interval '1 microsecond'
     where p.pace_key = in_pace_key and p.queue_until is not null;
    update tenant_slots s set
           counted_at = head,
           held_until = head + (extract(epoch from greatest(s.held_until - t, interval '0'))
                   * 1000000)::bigint / old_us * step_us * interval '1 microsecond'
     where s.pace_key = in_pace_key;
end $$;
