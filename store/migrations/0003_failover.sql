-- What a failover or a stepping clock changes, and the workers' epochs.

-- One row: what is known of the server, to notice when it becomes another.
create table database_state (
    only_row boolean primary key default true check (only_row),
    -- The timeline of the WAL; null: not seen yet.
    timeline integer,
    -- Whether commits wait for a standby.
    synchronous boolean not null default false,
    -- When the timeline changed, if commits from before may be lost.
    suspect_since timestamptz,
    -- When what was computed before was last repaired after the clock went back, and how far it
    -- went back, all steps of the hour before together.
    clock_repaired_at timestamptz,
    clock_went_back interval not null default '0',
    -- How far it went back last.
    clock_step interval not null default '0'
);
insert into database_state (only_row) values (true);

-- Random, so that an epoch is never used again: not even if a failover loses the registration. 48
-- bits, so that JSON can hold it.
alter table workers alter column epoch drop identity;
alter table workers alter column epoch set default
    ('x' || left(replace(gen_random_uuid()::text, '-', ''), 12))::bit(48)::bigint;
