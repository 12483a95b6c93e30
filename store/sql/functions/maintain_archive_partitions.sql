-- maintain_archive_partitions(recent, keep)
--
-- Makes the archive's partitions for today, the next two days, and the days of finished deliveries
-- that are older than `recent`. Drops partitions whose day ended longer than `keep` ago. Days are
-- UTC's.
--
-- Locks: an advisory lock of the schema, shared with archive_finished(); if another transaction has
-- it, the function does nothing. Attaching a partition locks no reader of finished out. Dropping
-- one does: it waits at most 50 ms for its locks, then the function fails with lock_not_available
-- (55P03), and the next call tries again.
--
-- Runs with the rights of its owner, so that a worker's role need not own or create tables. Its
-- search path is that of the session that made it, with the caller's temporary tables at the end,
-- where they hide nothing. Only roles that were granted it may execute it.
--
-- Must never drop a partition of a day within `keep`, nor use a name that its caller chooses.
create or replace function maintain_archive_partitions(in_recent interval, in_keep interval)
returns void language plpgsql security definer
set search_path from current set lock_timeout = '50ms' as $$
declare
    t timestamptz := clock_timestamp();
    partition text;
    old regclass;
    day date;
begin
    -- Unnamed, they would come first.
    perform set_config('search_path', current_setting('search_path') || ', pg_temp', true);
    -- One lock per schema: tests have a schema each.
    if not pg_try_advisory_xact_lock(hashtext('voice-otp archive ' || current_schema())) then
        return;
    end if;
    for day in
        select (t at time zone 'UTC')::date + n from generate_series(0, 2) as n
        union
        select distinct (d.ended_at at time zone 'UTC')::date
          from (select ended_at from deliveries
                 where state = 'final' and ended_at < t - in_recent
                 order by ended_at limit 1000) d
    loop
        partition := 'finished_' || to_char(day, 'YYYYMMDD');
        continue when to_regclass(partition) is not null;
        execute format(
            'create table %I (like finished including defaults including constraints '
            'including indexes)', partition);
        execute format(
            'alter table finished attach partition %I for values from (%L) to (%L)',
            partition, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
    end loop;
    for old in
        select c.oid::regclass from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = 'finished'::regclass
           and to_date(right(c.relname, 8), 'YYYYMMDD') + 1
               < ((t - in_keep) at time zone 'UTC')::date
    loop
        execute format('drop table %s', old);
    end loop;
end $$;

revoke all on function maintain_archive_partitions(interval, interval) from public;
