-- Registers a worker under a new epoch, with a lease.
-- $1 name; $2 lease in seconds
insert into workers (name, lease_until, gives_slots)
values ($1, clock_timestamp() + $2::double precision * interval '1 second', true)
returning epoch, clock_timestamp()
