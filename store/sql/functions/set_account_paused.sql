-- set_account_paused(account SID, paused)
--
-- Pauses an account, or resumes it, so that what waits gets slots. Returns false, and does nothing,
-- if there is no such account.
--
-- Locks: the account's row; the settings of its tenants; when resuming, for each of its rate limits
-- in the order of their keys, what void_slots() locks.
--
-- Must never leave the tenants' versions as they are: a plan that was made before the change would
-- still be admitted.
create or replace function set_account_paused(in_account text, in_paused boolean) returns boolean
language plpgsql as $$
begin
    update accounts set paused = in_paused where account_sid = in_account;
    if not found then
        return false;
    end if;
    update voice_settings set version = nextval('voice_settings_version')
     where account_sid = in_account;
    if not in_paused then
        perform void_slots(p.pace_key, interval '0', true)
           from (select pace_key from pacing where account_sid = in_account order by pace_key) p;
    end if;
    return true;
end $$;
