-- set_tenant_paused(tenant id, paused)
--
-- Pauses a tenant, or resumes it, so that what waits under its account's rate limit and its own
-- gets slots. Returns false, and does nothing, if the tenant has no settings.
--
-- Locks: the tenant's settings; when resuming, for each of the two rate limits in the order of
-- their keys, what void_slots() locks.
--
-- Must never leave the version as it is: a plan that was made before the change would still be
-- admitted.
create or replace function set_tenant_paused(in_tenant text, in_paused boolean) returns boolean
language plpgsql as $$
declare
    account text;
begin
    update voice_settings set paused = in_paused, version = nextval('voice_settings_version')
     where tenant_id = in_tenant returning account_sid into account;
    if not found then
        return false;
    end if;
    if not in_paused then
        perform void_slots(p.pace_key, interval '0', true)
           from (select pace_key from pacing
                  where pace_key in (account, account || '/' || in_tenant)
                  order by pace_key) p;
    end if;
    return true;
end $$;
