-- When a tenant's secrets were changed, and whether other verified tenants use its account.
-- $1 tenant id
select s.auth_token_since, s.secondary_auth_token_since, s.api_key_since, s.updated_at,
       exists (
           select 1 from voice_settings o
            where o.account_sid = s.account_sid and o.tenant_id <> s.tenant_id
              and o.credentials_verified) as shared
  from voice_settings s where s.tenant_id = $1
