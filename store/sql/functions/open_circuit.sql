-- open_circuit(pace key, first, longest)
--
-- Opens the circuit of a rate limit: no slots for a while, then (half-open) one probe every two
-- seconds until close_circuit(). The while is `first`, doubled for each opening in a row, at most
-- `longest`. Returns it in milliseconds; null if the circuit is open already, or there is no such
-- pace key. A failed probe of a half-open circuit opens it again. Notifies the account's tenants'
-- caches.
--
-- Locks: what void_slots() locks.
--
-- Must never extend an open circuit: the failures of calls that were under way together would count
-- several times.
create or replace function open_circuit(in_pace_key text, in_first interval, in_longest interval)
returns bigint language plpgsql as $$
declare
    t timestamptz;
    account text;
    is_open boolean;
    held_until timestamptz;
    openings integer;
    wait interval;
begin
    select p.account_sid, p.probe_interval_us is not null, p.hold_until, p.circuit_openings
      into account, is_open, held_until, openings
      from pacing p where p.pace_key = in_pace_key for update;
    t := clock_timestamp();
    if not found or (is_open and held_until > t) then
        return null;
    end if;
    wait := least(in_first * (2 ^ least(openings, 10)), in_longest);
    update pacing p set probe_interval_us = 2000000, circuit_openings = p.circuit_openings + 1
     where p.pace_key = in_pace_key;
    perform void_slots(in_pace_key, wait, false);
    perform pg_notify('voice_otp_settings', '@' || account);
    return (extract(epoch from wait) * 1000)::bigint;
end $$;
