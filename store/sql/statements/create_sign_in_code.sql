-- Inserts a sign-in code, and deletes expired ones.
-- $1 hash; $2 token id; $3 time to live in seconds
with expired as (
    delete from sign_in_codes where expires_at < clock_timestamp()
)
insert into sign_in_codes (hash, token_id, expires_at)
values ($1, $2, clock_timestamp() + $3::double precision * interval '1 second')
