-- Deletes the sign-in code with this hash; its token, if both are valid.
-- $1 hash
with used as (
    delete from sign_in_codes where hash = $1 returning token_id, expires_at
)
select t.id, t.name, t.role, t.tenant_id
  from used c join access_tokens t on t.id = c.token_id
 where c.expires_at > clock_timestamp()
   and t.revoked_at is null and t.expires_at > clock_timestamp()
