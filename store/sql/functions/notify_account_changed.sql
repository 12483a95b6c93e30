-- notify_account_changed()
--
-- Trigger of accounts, for every updated row: notifies the channel voice_otp_settings with the
-- account's SID after an '@', which no tenant id contains. Workers drop the account's tenants from
-- their caches. The notification is sent when the transaction commits.
--
-- Takes no locks. Must never fail: it would undo the change.
create or replace function notify_account_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('voice_otp_settings', '@' || new.account_sid);
    return null;
end $$;

do $make$
begin
    if not exists (select 1 from pg_trigger g where g.tgname = 'notify_account_changed'
                      and g.tgrelid = 'accounts'::regclass) then
        create trigger notify_account_changed after update on accounts
            for each row execute function notify_account_changed();
    end if;
end $make$;
