-- ensure_pacing(pace keys, account SIDs)
--
-- Inserts the pacing rows of those pace keys that have none: at the account's rate, or one call per
-- second for an account that isn't known, with the first slot now. The arrays run in parallel; null
-- keys are ignored.
--
-- Locks: the inserted rows, in the order of their keys.
--
-- Must never change a row that exists.
create or replace function ensure_pacing(in_pace_key text[], in_account text[]) returns void
language sql as $$
    insert into pacing (pace_key, account_sid, interval_us, tat)
        select distinct on (x.pace_key) x.pace_key, x.account_sid,
               pace_interval(coalesce(a.calls_per_second, 1)), clock_timestamp()
          from unnest(in_pace_key, in_account) as x(pace_key, account_sid)
          left join accounts a on a.account_sid = x.account_sid
         where x.pace_key is not null
           and not exists (select 1 from pacing p where p.pace_key = x.pace_key)
         order by x.pace_key
        on conflict (pace_key) do nothing
$$;
