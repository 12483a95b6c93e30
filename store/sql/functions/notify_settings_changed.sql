-- notify_settings_changed()
--
-- Trigger of voice_settings, for every inserted, updated or deleted row: notifies the channel
-- voice_otp_settings with the tenant's id, on which workers drop the tenant from their caches. The
-- notification is sent when the transaction commits.
--
-- Takes no locks. Must never fail: it would undo the change.
create or replace function notify_settings_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('voice_otp_settings', coalesce(new.tenant_id, old.tenant_id));
    return null;
end $$;

do $make$
begin
    if not exists (select 1 from pg_trigger g where g.tgname = 'notify_settings_changed'
                      and g.tgrelid = 'voice_settings'::regclass) then
        create trigger notify_settings_changed after insert or update or delete on voice_settings
            for each row execute function notify_settings_changed();
    end if;
end $make$;
