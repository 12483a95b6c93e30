-- Deliveries, the pace of accounts, the outbox, and the workers.

-- One row a life of a worker. Its lease is the lease of every delivery that it owns.
create table workers (
    epoch bigint generated always as identity primary key,
    name text not null,
    started_at timestamptz not null default clock_timestamp(),
    lease_until timestamptz not null
);

-- GCRA: the next slot is at the theoretical arrival time, or now if that has passed.
create table pacing (
    pace_key text primary key,
    account_sid text not null,
    interval_us bigint not null check (interval_us > 0),
    tat timestamptz not null,
    -- A slot of another epoch is void: the rate was changed, or Twilio asked to wait.
    epoch bigint not null default 1,
    hold_until timestamptz not null default '-infinity'
);
create index pacing_account on pacing (account_sid);

create table deliveries (
    tenant_id text not null,
    delivery_id text not null,
    -- Counts the saves; a save names the revision that it was computed from.
    revision bigint not null default 1,
    -- workers.epoch of who holds it.
    owner bigint,
    state text not null check (state in ('waiting', 'placing', 'unsettled', 'calling', 'final')),
    -- When something is to be done about it; if its owner is dead then, anybody may.
    wake_at timestamptz not null,
    -- What a repeat is compared by: an HMAC of number, code and extension, and the key it was made with.
    identity_key text not null,
    identity_mac bytea not null,
    user_mac bytea,
    -- Number, code and extension, sealed; gone with the final status.
    sealed_key text,
    sealed bytea,
    to_masked text,
    locale text,
    context jsonb not null,
    traceparent text,
    tracestate text,
    account_sid text,
    pace_key text,
    requested_at timestamptz,
    admitted_at timestamptz not null,
    expires_at timestamptz not null,
    place_by timestamptz not null,
    slot_at timestamptz,
    slot_epoch bigint,
    announced_at timestamptz,
    attempt integer not null default 0,
    attempt_id uuid,
    intent_at timestamptz,
    settle_after timestamptz,
    -- An HMAC of account, From and To, while a placement is under way or unsettled: at most one on a line.
    line bytea,
    call_sid text,
    heard_after_ms integer not null default 0,
    placed_at timestamptz,
    ringing_at timestamptz,
    answered_at timestamptz,
    withdrawn text,
    tries integer not null default 0,
    sequence integer not null,
    ended text,
    ended_at timestamptz,
    verified_at timestamptz,
    primary key (tenant_id, delivery_id),
    check ((state = 'final') = (ended is not null)),
    check (state <> 'final' or sealed is null)
) with (fillfactor = 70);
create index deliveries_due on deliveries (wake_at) where state <> 'final';
create unique index deliveries_attempt on deliveries (attempt_id) where attempt_id is not null;
create unique index deliveries_line on deliveries (line) where line is not null;
create unique index deliveries_call on deliveries (call_sid) where call_sid is not null;
create index deliveries_user on deliveries (tenant_id, user_mac) where state <> 'final' and user_mac is not null;

-- Placements that are over without a call that we know of: a callback may still come for one.
create table past_attempts (
    attempt_id uuid primary key,
    tenant_id text not null,
    delivery_id text not null,
    retired_at timestamptz not null default clock_timestamp()
);

-- Status events that are not known to be published. Written with the change they tell of; deleted once confirmed.
create table outbox (
    tenant_id text not null,
    delivery_id text not null,
    sequence integer not null,
    -- workers.epoch of who publishes it.
    owner bigint not null,
    status text not null,
    routing_key text not null,
    body text not null,
    traceparent text,
    tracestate text,
    created_at timestamptz not null default clock_timestamp(),
    primary key (tenant_id, delivery_id, sequence)
);
create index outbox_age on outbox (created_at);
