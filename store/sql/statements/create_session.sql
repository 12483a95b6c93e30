-- Inserts a session, and deletes expired ones.
-- $1 hash; $2 token id; $3 time to live in seconds
with expired as (
    delete from sessions where expires_at < clock_timestamp()
)
insert into sessions (hash, token_id, expires_at)
values ($1, $2, clock_timestamp() + $3::double precision * interval '1 second')
