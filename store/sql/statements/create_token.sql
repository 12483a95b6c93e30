-- Inserts a token.
-- $1 id; $2 hash; $3 name; $4 role; $5 tenant id of a tenant_admin; $6 time to live in seconds
insert into access_tokens (id, hash, name, role, tenant_id, expires_at)
values ($1, $2, $3, $4, $5, clock_timestamp() + $6::double precision * interval '1 second')
