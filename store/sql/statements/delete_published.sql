-- Deletes published events. The commit does not wait for the disk: an event that a crash of the
-- database brings back is published again, unchanged.
-- $1 tenant ids; $2 delivery ids; $3 sequences, in parallel
with no_wait as materialized (
    select set_config('synchronous_commit', 'off', true)
)
delete from outbox o
 using no_wait, unnest($1::text[], $2::text[], $3::int[]) as x(tenant_id, delivery_id, sequence)
 cross join lateral (
    select l.ctid as at from outbox l
     where l.tenant_id = x.tenant_id and l.delivery_id = x.delivery_id
       and l.sequence = x.sequence limit 1) l
 where o.ctid = l.at
