-- note_timeline()
--
-- Compares the timeline of the server with the recorded one. If it is another, a standby was
-- promoted or a backup restored. Commits from before may be lost then, unless replication was
-- synchronous and a worker was alive a minute ago. Returns since when that is so: calls of
-- deliveries that were admitted earlier may have been placed although the database doesn't know.
-- Returns null if no commit was lost, or a day after.
--
-- Every new connection calls it before its first statement, so that no worker writes to a promoted
-- server without knowing.
--
-- Locks: the one row of database_state, when it changes. Writes nothing otherwise.
--
-- Must never fail for want of a right, or where the server has no timelines: then it returns null.
create or replace function note_timeline() returns timestamptz language plpgsql as $$
declare
    now_on integer;
    is_synchronous boolean;
    recorded record;
    since timestamptz;
begin
    select s.timeline, s.synchronous, s.suspect_since into recorded from database_state s;
    since := recorded.suspect_since;
    begin
        now_on := ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer;
        is_synchronous := current_setting('synchronous_standby_names') <> ''
            and current_setting('synchronous_commit') not in ('off', 'local');
    exception when others then
        return since;
    end;
    if recorded.timeline is not distinct from now_on
        and recorded.synchronous is not distinct from is_synchronous then
        return case when since > clock_timestamp() - interval '1 day' then since end;
    end if;
    if recorded.timeline is not null and recorded.timeline <> now_on and not (
        recorded.synchronous and exists (
            select 1 from workers w
             where w.lease_until > clock_timestamp() - interval '1 minute')) then
        since := clock_timestamp();
    end if;
    -- Of several connections at once, the first records the change.
    update database_state s
       set timeline = now_on, synchronous = is_synchronous, suspect_since = since
     where s.timeline is not distinct from recorded.timeline;
    select s.suspect_since into since from database_state s;
    return since;
end $$;
