-- close_circuit(pace key)
--
-- Closes the circuit of a rate limit: what waits gets slots at the account's rate from now on.
-- Notifies the account's tenants' caches. Does nothing if the circuit is closed.
--
-- Locks: what void_slots() locks.
--
-- Must never end a hold: one that Twilio asked for still counts.
create or replace function close_circuit(in_pace_key text) returns void language plpgsql as $$
declare
    account text;
begin
    update pacing set probe_interval_us = null, circuit_openings = 0
     where pace_key = in_pace_key and probe_interval_us is not null
    returning account_sid into account;
    if not found then
        return;
    end if;
    perform void_slots(in_pace_key, interval '0', true);
    perform pg_notify('voice_otp_settings', '@' || account);
end $$;
