-- Tenants' settings with what belongs to their accounts.
-- $1 tenant ids
select s.tenant_id, s.version, s.account_sid, s.key_id, s.auth_token, s.secondary_auth_token,
       s.api_key_secret, s.from_number, s.api_key_sid, s.region, s.default_locale,
       s.ring_timeout_s, s.enabled, s.allowed_countries, s.test_mode, s.publishers, s.speech,
       s.voicemail, s.redial, s.offered, s.credentials_verified, s.paused,
       s.credentials_rejected_until is not null as credentials_rejected,
       a.paused as account_paused,
       coalesce((
           select p.probe_interval_us is not null from pacing p
            where p.pace_key = case when s.credentials_verified then s.account_sid
                                    else s.account_sid || '/' || s.tenant_id end), false)
           as circuit_open,
       a.calls_per_second
  from voice_settings s join accounts a using (account_sid)
 where s.tenant_id = any ($1)
