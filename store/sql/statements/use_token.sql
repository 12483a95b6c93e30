-- The valid token with this hash, whose last use is recorded once a minute.
-- $1 hash
with valid as (
    select id, name, role, tenant_id, used_at from access_tokens
     where hash = $1 and revoked_at is null and expires_at > clock_timestamp()
), used as (
    update access_tokens t set used_at = clock_timestamp() from valid v
     where t.id = v.id
       and (v.used_at is null or v.used_at < clock_timestamp() - interval '1 minute')
)
select id, name, role, tenant_id from valid
