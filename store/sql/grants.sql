-- What each program's database role may do, and no more. No role but the owner may change the
-- schema: the owner runs `voice-otp migrate`, then this file, after each upgrade:
--
--   psql -v schema=public -v worker=voice_otp_worker -v console=voice_otp_console -f grants.sql
--
-- `voice-otp database check` names what is missing. The commands that change settings
-- (`voice-otp tenant`, `account`, `token`) need what the console needs. Functions may be executed
-- by all, which is Postgres' default, except the one below.
--
-- Two things that only a superuser can grant, and that nothing but checks need:
--   grant pg_read_all_stats to voice_otp_worker;  -- the state of standbys, others' transactions

set search_path to :"schema";

-- A worker.
grant usage on schema :"schema" to :"worker";
grant select on voice_otp_migrations to :"worker";
grant select on voice_otp_functions to :"worker";
grant select, update on database_state to :"worker";
grant select on accounts to :"worker";
grant select, update on voice_settings to :"worker";
grant select, insert, update, delete on workers to :"worker";
grant select, insert, update on pacing to :"worker";
grant select, insert, update, delete on deliveries to :"worker";
grant select, insert, update on tenant_slots to :"worker";
grant select, insert, update, delete on cancelled_users to :"worker";
grant select, insert on finished to :"worker";
grant select, insert, delete on finished_keys to :"worker";
grant select, insert, update, delete on outbox to :"worker";
grant select, insert, delete on past_attempts to :"worker";
grant select, insert, update, delete on unpriced_calls to :"worker";
grant select, insert, update on spend to :"worker";
grant select, insert, update, delete on delivery_counts to :"worker";
-- It runs with its owner's rights: makes and drops the archive's partitions.
grant execute on function maintain_archive_partitions(interval, interval) to :"worker";

-- A console, and commands.
grant usage on schema :"schema" to :"console";
grant select on voice_otp_migrations to :"console";
grant select on voice_otp_functions to :"console";
grant select, update on database_state to :"console";
grant select, insert, update on accounts to :"console";
grant select, insert, update, delete on voice_settings to :"console";
grant usage on sequence voice_settings_version to :"console";
grant select on workers to :"console";
grant select, insert, update on pacing to :"console";
grant select, update on tenant_slots to :"console";
grant select, update on deliveries to :"console";
grant select on finished to :"console";
grant select on spend to :"console";
grant select on delivery_counts to :"console";
grant select, insert, delete on test_calls to :"console";
grant select, insert on audit_log to :"console";
grant select, insert, update on access_tokens to :"console";
grant select, insert, delete on sessions to :"console";
grant select, insert, delete on sign_in_codes to :"console";
