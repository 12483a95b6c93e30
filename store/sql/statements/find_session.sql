-- The token of the session with this hash, if both are valid.
-- $1 hash
select t.id, t.name, t.role, t.tenant_id
  from sessions s join access_tokens t on t.id = s.token_id
 where s.hash = $1 and s.expires_at > clock_timestamp()
   and t.revoked_at is null and t.expires_at > clock_timestamp()
