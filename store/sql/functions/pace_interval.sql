-- pace_interval(calls per second)
--
-- Returns the time between two slots of a rate limit, in microseconds. It is 1 % longer than the
-- rate asks for: calls that leave exactly in time reach Twilio a little sooner or later, and must
-- not exceed the rate there.
--
-- Reads and locks nothing. The rate must be above 0.
create or replace function pace_interval(in_calls_per_second double precision) returns bigint
language sql immutable as $$
    select round(1010000::double precision / in_calls_per_second)::bigint
$$;
