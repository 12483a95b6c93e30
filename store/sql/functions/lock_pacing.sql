-- lock_pacing(pace keys, skip)
--
-- Locks pacing rows until the transaction ends, and returns the keys of the locked ones.
--
-- Locks: the rows of pacing, in the order of their keys, so that two batches can't deadlock.
--
-- skip = false: waits 100 ms for each row, then fails with lock_not_available (55P03). A
-- transaction that holds an account's row for long must not delay the calls of other accounts, so
-- the caller asks again with skip = true.
-- skip = true: leaves out the rows that another transaction has locked.
--
-- Must never catch the exception: a row that is locked in a subtransaction and updated outside of
-- it costs far more. The session's lock_timeout is restored.
create or replace function lock_pacing(in_keys text[], in_skip boolean) returns text[]
language plpgsql as $$
declare
    session_timeout text := current_setting('lock_timeout');
    locked text[];
begin
    if coalesce(cardinality(in_keys), 0) = 0 then
        return '{}';
    end if;
    if in_skip then
        select array_agg(l.pace_key) into locked
          from (select distinct k from unnest(in_keys) as k order by k) x
         cross join lateral (
            select p.pace_key from pacing p where p.pace_key = x.k for update skip locked) l;
    else
        perform set_config('lock_timeout', '100ms', true);
        select array_agg(l.pace_key) into locked
          from (select distinct k from unnest(in_keys) as k order by k) x
         cross join lateral (select p.pace_key from pacing p where p.pace_key = x.k for update) l;
        perform set_config('lock_timeout', session_timeout, true);
    end if;
    return coalesce(locked, '{}');
end $$;
