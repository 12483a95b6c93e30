-- set_account_rate(account SID, calls per second)
--
-- Changes an account's rate, also for what waits already; makes the account if it is new.
--
-- Locks: the account's row; then, for each of its rate limits in the order of their keys, what
-- void_slots() locks.
--
-- Must never touch a rate limit that has this rate already: all its slots would become void.
create or replace function set_account_rate(in_account text, in_calls_per_second double precision)
returns void language plpgsql as $$
begin
    insert into accounts as a (account_sid, calls_per_second)
        values (in_account, in_calls_per_second)
        on conflict (account_sid) do update set calls_per_second = excluded.calls_per_second
        where a.calls_per_second <> excluded.calls_per_second;
    perform void_slots(p.pace_key, interval '0', false)
       from (select pace_key from pacing
              where account_sid = in_account
                and interval_us <> pace_interval(in_calls_per_second)
              order by pace_key) p;
end $$;
