-- What keeps the cost of each statement independent of how much is waiting: a queue for deliveries
-- whose slots became void, a tenant's share by arithmetic, one look-up for archived repeats, and an
-- outbox that is found by its owner.
--
-- The indexes are built in a transaction, which locks writes out for about a second per million
-- rows.

-- Whether the worker gives slots to queues. Those of the previous release don't.
alter table workers add column gives_slots boolean not null default false;

-- The account's voided and newly admitted deliveries wait in a queue. Slots are given in the order
-- of admission as their time comes; see claim_deliveries().
alter table pacing
    -- Not null while there is a queue: when its last delivery will have its slot, as estimated.
    add column queue_until timestamptz,
    -- When the queue was last counted.
    add column queue_counted_at timestamptz not null default '-infinity';
update pacing set queue_until = greatest(tat, clock_timestamp())
 where probe_interval_us is not null;
create index pacing_queue on pacing (queue_counted_at) where queue_until is not null;

-- The queue: of each tenant in the order of admission, deliveries without an attempt first.
create index deliveries_queue on deliveries (pace_key, tenant_id, (attempt > 0), admitted_at)
    where state = 'waiting';
drop index deliveries_waiting;

-- How many slots ahead a tenant holds of an account that several tenants share, by arithmetic.
create table tenant_slots (
    pace_key text not null,
    tenant_id text not null,
    -- The tenant's slots that were ahead at counted_at. They pass evenly until held_until.
    held bigint not null,
    counted_at timestamptz not null,
    held_until timestamptz not null,
    primary key (pace_key, tenant_id)
) with (fillfactor = 50);

-- The identities of archived deliveries, beside the daily partitions of finished: one look-up finds
-- a repeat, however many days are kept.
create table finished_keys (
    tenant_id text not null,
    delivery_id text not null,
    identity_key text not null,
    identity_mac bytea not null,
    ended_at timestamptz not null,
    primary key (tenant_id, delivery_id)
) partition by hash (tenant_id, delivery_id);
create table finished_keys_0 partition of finished_keys for values with (modulus 8, remainder 0);
create table finished_keys_1 partition of finished_keys for values with (modulus 8, remainder 1);
create table finished_keys_2 partition of finished_keys for values with (modulus 8, remainder 2);
create table finished_keys_3 partition of finished_keys for values with (modulus 8, remainder 3);
create table finished_keys_4 partition of finished_keys for values with (modulus 8, remainder 4);
create table finished_keys_5 partition of finished_keys for values with (modulus 8, remainder 5);
create table finished_keys_6 partition of finished_keys for values with (modulus 8, remainder 6);
create table finished_keys_7 partition of finished_keys for values with (modulus 8, remainder 7);
create index finished_keys_age on finished_keys (ended_at);
insert into finished_keys (tenant_id, delivery_id, identity_key, identity_mac, ended_at)
    select tenant_id, delivery_id, identity_key, identity_mac, ended_at from finished
    on conflict do nothing;

-- Sweeps read the events of one owner.
create index outbox_owner on outbox (owner, created_at);
drop index outbox_age;

-- Small tables whose rows die fast, and the largest one. Their dead rows are removed by number, not
-- by share, and without pauses.
alter table outbox set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0);
alter table pacing set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0);
alter table workers set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0);
alter table deliveries set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0);
