-- Extends a worker's lease and deletes workers whose lease expired a day ago. A lease that has
-- expired is not extended: other workers may own its deliveries already.
-- $1 epoch; $2 lease in seconds
with renewed as (
    update workers set lease_until = clock_timestamp() + $2::double precision * interval '1 second'
     where epoch = $1 and lease_until > clock_timestamp()
    returning 1
), swept as (
    delete from workers where lease_until < clock_timestamp() - interval '1 day'
)
select clock_timestamp(), exists (select 1 from renewed)
