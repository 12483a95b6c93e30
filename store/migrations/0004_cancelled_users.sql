-- Cancellations by user that are remembered, and rows that are soon forgotten.
--
-- The index is built in a transaction, which locks writes out while deliveries are read once. A
-- lock that can't be had at once must not hold up the workers: run migrate again.
set local lock_timeout = '5s';

-- Cancellations by user, as long as codes live: admission refuses requests that are not newer.
create table cancelled_users (
    -- An HMAC of tenant and user_ref, as in deliveries.user_mac; one row for each key.
    user_mac bytea primary key,
    -- The time of the latest cancellation: the event's, or when it was recorded.
    cancelled_at timestamptz not null,
    -- When it was recorded.
    recorded_at timestamptz not null
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
create index cancelled_users_age on cancelled_users (recorded_at);

-- A final row of a tenant that doesn't exist is deleted at this time, and not archived.
alter table deliveries add column forget_at timestamptz;
create index deliveries_forgotten on deliveries (forget_at) where forget_at is not null;
