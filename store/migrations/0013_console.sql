-- The console: who may look and change, what was changed, and whether voice is offered to users.

create table access_tokens (
    id uuid primary key,
    -- SHA-256 of the token, which is random and long: nothing can be guessed from it.
    hash bytea not null unique,
    name text not null,
    role text not null check (role in ('operator', 'tenant_admin')),
    tenant_id text,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    revoked_at timestamptz,
    used_at timestamptz,
    check ((role = 'tenant_admin') = (tenant_id is not null))
);

-- Somebody signed in with a token, in a browser. A session ends with its token.
create table sessions (
    hash bytea primary key,
    token_id uuid not null references access_tokens on delete cascade,
    expires_at timestamptz not null
);
create index sessions_expiry on sessions (expires_at);

-- Links that sign somebody in, once.
create table sign_in_codes (
    hash bytea primary key,
    token_id uuid not null references access_tokens on delete cascade,
    expires_at timestamptz not null
);

-- Every change by whoever may, without secrets.
create table audit_log (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    -- The token's name and id, or the command line.
    actor text not null,
    -- Null where it is no one tenant's.
    tenant_id text,
    action text not null,
    detail jsonb not null
);
create index audit_log_tenant on audit_log (tenant_id, id);

alter table voice_settings
    -- Whether users may pick voice: where not, only test calls are placed.
    add column offered boolean not null default true,
    -- Since when each secret is the one that it is.
    add column auth_token_since timestamptz,
    add column secondary_auth_token_since timestamptz,
    add column api_key_since timestamptz;
update voice_settings set auth_token_since = updated_at,
    secondary_auth_token_since = case when secondary_auth_token is not null then updated_at end,
    api_key_since = case when api_key_sid is not null then updated_at end;

create index finished_tenant on finished (tenant_id, ended_at);

-- What tenants' calls cost, by the hour in which they ended, as Twilio told it.
create table spend (
    tenant_id text not null,
    hour timestamptz not null,
    unit text not null,
    amount double precision not null,
    calls bigint not null,
    primary key (tenant_id, hour, unit)
);
