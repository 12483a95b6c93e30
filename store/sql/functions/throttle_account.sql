-- throttle_account(pace key, wait)
--
-- Hands out no slot of a rate limit before `wait` has passed, and voids the reserved ones. Does
-- nothing if the present hold is at least 90 % as long: the answers to calls that were under way
-- together ask for nearly the same. Does nothing if there is no such pace key.
--
-- Locks: what void_slots() locks.
--
-- Must never shorten a hold.
create or replace function throttle_account(in_pace_key text, in_wait interval) returns void
language plpgsql as $$
declare
    held_until timestamptz;
begin
    select p.hold_until into held_until from pacing p where p.pace_key = in_pace_key for update;
    if found and held_until < clock_timestamp() + in_wait * 0.9 then
        perform void_slots(in_pace_key, in_wait, false);
    end if;
end $$;
