-- Tenants' voice settings and the Twilio accounts they go through.

create table accounts (
    account_sid text primary key,
    -- The pace belongs to the account; 0 is never stored, paused is.
    calls_per_second double precision not null default 1 check (calls_per_second > 0),
    paused boolean not null default false,
    created_at timestamptz not null default clock_timestamp()
);

-- Versions go on over a deletion, so that a cached version is never mistaken for a newer one.
create sequence voice_settings_version;

create table voice_settings (
    tenant_id text primary key,
    version bigint not null default nextval('voice_settings_version'),
    account_sid text not null references accounts,
    -- The key that sealed the columns below it; tenant and column are the associated data.
    key_id text not null,
    auth_token bytea not null,
    secondary_auth_token bytea,
    api_key_secret bytea,
    from_number bytea not null,
    api_key_sid text,
    region text,
    default_locale text,
    ring_timeout_s integer not null check (ring_timeout_s between 1 and 600),
    enabled boolean not null,
    allowed_countries text[] not null,
    test_mode boolean not null,
    -- Whether Twilio has taken these credentials once: until then the tenant has a pace of its own, since an account's
    -- SID is no secret and claiming it must not slow its owner.
    proven boolean not null default false,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    check ((api_key_sid is null) = (api_key_secret is null))
);

-- Workers cache settings; a change counts within a second.
create function tell_settings() returns trigger language plpgsql as $$
begin
    perform pg_notify('voice_otp_settings', coalesce(new.tenant_id, old.tenant_id));
    return null;
end $$;
create trigger tell_settings after insert or update or delete on voice_settings
    for each row execute function tell_settings();

create function tell_account() returns trigger language plpgsql as $$
begin
    -- A tenant id is never '*'.
    perform pg_notify('voice_otp_settings', '*');
    return null;
end $$;
create trigger tell_account after update on accounts for each row execute function tell_account();
