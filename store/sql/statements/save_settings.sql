-- Inserts or replaces a tenant's settings, and the account if it is new. Changes no row if the
-- settings that are there don't have the expected version. Rejected credentials count again.
-- $1 tenant id; $2 account SID; $3 key id; $4 auth token; $5 secondary auth token;
-- $6 API key secret; $7 From number; $8 API key SID; $9 region; $10 locale; $11 ring timeout in
-- seconds; $12 enabled; $13 countries; $14 test mode; $15 credentials verified; $16 publishers;
-- $17 speech; $18 voicemail; $19 redial; $20 expected version (null: any or none; 0: none);
-- $21 offered, which only a new row takes; $22, $23, $24 whether auth token, secondary auth token
-- and API key stay the same
with account as (
    insert into accounts (account_sid) values ($2) on conflict (account_sid) do nothing
)
insert into voice_settings (
    tenant_id, account_sid, key_id, auth_token, secondary_auth_token, api_key_secret, from_number,
    api_key_sid, region, default_locale, ring_timeout_s, enabled, allowed_countries, test_mode,
    credentials_verified, publishers, speech, voicemail, redial, offered, auth_token_since,
    secondary_auth_token_since, api_key_since)
select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $21,
       clock_timestamp(),
       case when $5::bytea is not null then clock_timestamp() end,
       case when $6::bytea is not null then clock_timestamp() end
 where coalesce($20::bigint, 0) = 0 or exists (select 1 from voice_settings where tenant_id = $1)
on conflict (tenant_id) do update set
    version = nextval('voice_settings_version'), account_sid = excluded.account_sid,
    key_id = excluded.key_id, auth_token = excluded.auth_token,
    secondary_auth_token = excluded.secondary_auth_token,
    api_key_secret = excluded.api_key_secret, from_number = excluded.from_number,
    api_key_sid = excluded.api_key_sid, region = excluded.region,
    default_locale = excluded.default_locale, ring_timeout_s = excluded.ring_timeout_s,
    enabled = excluded.enabled, allowed_countries = excluded.allowed_countries,
    test_mode = excluded.test_mode, credentials_verified = excluded.credentials_verified,
    publishers = excluded.publishers, speech = excluded.speech, voicemail = excluded.voicemail,
    redial = excluded.redial, credentials_rejected_until = null,
    auth_token_since = case when $22 then voice_settings.auth_token_since
                            else excluded.auth_token_since end,
    secondary_auth_token_since = case when $23 then voice_settings.secondary_auth_token_since
                                      else excluded.secondary_auth_token_since end,
    api_key_since = case when $24 then voice_settings.api_key_since
                         else excluded.api_key_since end,
    updated_at = clock_timestamp()
    where $20::bigint is null or voice_settings.version = $20
