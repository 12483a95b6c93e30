-- All tables, sequences and indexes of a new database. The functions, and the triggers that call
-- them, are in sql/functions/.
--
-- Times are the database's own, by clock_timestamp(). Numbers, codes and credentials are stored
-- sealed, or as keyed hashes (HMAC), never in the clear.

-- Twilio accounts. A rate limit belongs to the account, whichever tenants share it.
create table accounts (
    account_sid text primary key,
    -- Calls placed per second. Never 0: an account without calls is paused.
    calls_per_second double precision not null default 1 check (calls_per_second > 0),
    -- Set by an operator: requests are admitted and wait.
    paused boolean not null default false,
    created_at timestamptz not null default clock_timestamp(),
    -- The limit of calls in progress; null: no limit.
    max_calls integer check (max_calls > 0),
    -- Where several tenants share the account: the share of the slots ahead that one may hold.
    tenant_share double precision not null default 0.5
        check (tenant_share > 0 and tenant_share <= 1)
);

-- Versions keep increasing when settings are deleted and saved again, so that a cached version is
-- never mistaken for a newer one.
create sequence voice_settings_version;

-- One row per tenant: how its calls are placed.
create table voice_settings (
    tenant_id text primary key,
    -- Changes with every write. Admission refuses a plan that was made from another version.
    version bigint not null default nextval('voice_settings_version'),
    account_sid text not null references accounts,
    -- The key that sealed auth_token, secondary_auth_token, api_key_secret and from_number. The
    -- tenant and the column's name are the associated data.
    key_id text not null,
    auth_token bytea not null,
    secondary_auth_token bytea,
    api_key_secret bytea,
    from_number bytea not null,
    api_key_sid text,
    -- Twilio's region of the account; null: us1.
    region text,
    -- The language of requests that name none.
    default_locale text,
    ring_timeout_s integer not null check (ring_timeout_s between 1 and 600),
    -- Whether the tenant's requests are accepted at all.
    enabled boolean not null,
    -- ISO 3166-1 codes of the countries that may be called.
    allowed_countries text[] not null,
    -- Whether calls are only simulated: statuses are published, Twilio is never asked.
    test_mode boolean not null,
    -- Whether Twilio has accepted a call with these credentials. Until then the tenant has a rate
    -- limit of its own: an account's SID is no secret, and naming it must not slow its owner.
    credentials_verified boolean not null default false,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    -- The broker's users whose messages count for the tenant; empty: any user.
    publishers text[] not null default '{}',
    -- Set by an operator: the tenant's requests are admitted and wait.
    paused boolean not null default false,
    -- Set while Twilio rejects the credentials: no call is placed, and the credentials are probed
    -- at this time.
    credentials_rejected_until timestamptz,
    -- How codes are read: voice_otp::speech::SpeechStyle as JSON.
    speech jsonb not null default '{}',
    voicemail text not null default 'speak'
        check (voicemail in ('speak', 'hang_up', 'wait_for_beep', 'press_key')),
    -- Which calls are placed again: voice_otp::settings::policy::Redial as JSON.
    redial jsonb not null default '{}',
    -- Whether voice is offered to the tenant's users; if not, only test calls are placed.
    offered boolean not null default true,
    -- When each secret was last changed.
    auth_token_since timestamptz,
    secondary_auth_token_since timestamptz,
    api_key_since timestamptz,
    check ((api_key_sid is null) = (api_key_secret is null))
);
create index voice_settings_account on voice_settings (account_sid);
create index voice_settings_rejected on voice_settings (credentials_rejected_until)
    where credentials_rejected_until is not null;

-- One row per worker registration. Its lease is the lease of every delivery that it owns.
create table workers (
    epoch bigint generated always as identity primary key,
    -- Host and process id, for operators.
    name text not null,
    started_at timestamptz not null default clock_timestamp(),
    -- The worker is alive before this time. Every heartbeat extends it.
    lease_until timestamptz not null
);

-- One row per rate limit: a GCRA (generic cell rate algorithm). The next slot is at tat, or now if
-- that has passed.
create table pacing (
    -- The account's SID; account_sid/tenant_id while a tenant's credentials are not verified.
    pace_key text primary key,
    account_sid text not null,
    -- The time between two slots, in microseconds. See pace_interval().
    interval_us bigint not null check (interval_us > 0),
    -- The theoretical arrival time: the earliest slot that is not reserved yet.
    tat timestamptz not null,
    -- Increases when all reserved slots become void: the rate was changed, the account was
    -- throttled, or its circuit opened or closed. A slot of another epoch must not be used.
    epoch bigint not null default 1,
    -- No slot before this time: Twilio asked to wait, or the circuit is open.
    hold_until timestamptz not null default '-infinity',
    -- Not null while the circuit is open or half-open: the least time between two probes, in
    -- microseconds.
    probe_interval_us bigint,
    -- How often in a row the circuit was opened. 0 once it is closed.
    circuit_openings integer not null default 0
) with (fillfactor = 50);
create index pacing_account on pacing (account_sid);

-- One row per delivery id, until archive_finished() moves it to finished. A row whose identity_key
-- is empty is a tombstone: its request was cancelled before it arrived.
create table deliveries (
    tenant_id text not null,
    delivery_id text not null,
    -- Increases with every write. A save names the revision that it was computed from.
    revision bigint not null default 1,
    -- workers.epoch of the owner; null: none, until shortly before wake_at.
    owner bigint,
    -- waiting: for its slot, a retry or the end of a pause. placing: the intent is stored, the POST
    -- is about to be sent or under way. unsettled: the POST's outcome is unknown. calling: Twilio
    -- has the call. final: final_status is set.
    state text not null
        check (state in ('waiting', 'placing', 'unsettled', 'calling', 'final')),
    -- When the delivery needs attention next. If its owner's lease has expired by then, any worker
    -- may claim it.
    wake_at timestamptz not null,
    -- Duplicates are compared by this: an HMAC of number, code and extension, and its key's id.
    identity_key text not null,
    identity_mac bytea not null,
    -- An HMAC of tenant and user_ref; null: the request names no user.
    user_mac bytea,
    -- Number, code and extension, sealed, and the id of the key. Dropped with the final status.
    sealed_key text,
    sealed bytea,
    to_masked text,
    locale text,
    -- The request's context, copied into every status.
    context jsonb not null,
    -- The request's trace context, in W3C's form.
    traceparent text,
    tracestate text,
    account_sid text,
    pace_key text,
    -- The request's own time.
    requested_at timestamptz,
    admitted_at timestamptz not null,
    -- When the code expires.
    expires_at timestamptz not null,
    -- The deadline of a POST, before expires_at: ringing and one reading must still fit.
    place_by timestamptz not null,
    -- The reserved slot, and pacing.epoch when it was reserved.
    slot_at timestamptz,
    slot_epoch bigint,
    -- The due time in the last status that named one.
    announced_at timestamptz,
    -- The number of attempts, the current one included.
    attempt integer not null default 0,
    -- The current attempt's id: random, in the callbacks' URLs.
    attempt_id uuid,
    -- When the current attempt's intent was stored.
    intent_at timestamptz,
    -- While unsettled: from when on the call's absence from Twilio's call list counts.
    settle_after timestamptz,
    -- An HMAC of account, From and To while an attempt is placing or unsettled. Unique, so that two
    -- such calls are never placed at once.
    line bytea,
    call_sid text,
    -- How long a call must last, in milliseconds, for the code to have been read once.
    heard_after_ms integer not null default 0,
    placed_at timestamptz,
    ringing_at timestamptz,
    answered_at timestamptz,
    -- The reason code of a requested cancellation.
    cancel_reason text,
    -- How often in a row an attempt failed, or its call was polled, without progress.
    tries integer not null default 0,
    -- The sequence of the last status.
    sequence integer not null,
    final_status text,
    ended_at timestamptz,
    -- When the code is known to have been entered.
    verified_at timestamptz,
    -- When the user asked: the event's time, or the time of its arrival if that is earlier.
    user_time timestamptz,
    -- user_mac while a call to the user is placing, unsettled or in progress. Unique: at most one
    -- such call per user.
    user_line bytea,
    -- The pace key while the call counts against accounts.max_calls.
    concurrency_key text,
    -- The slot became later than announced_at: the worker that claims the delivery publishes it.
    unannounced boolean not null default false,
    -- The current call's voicemail policy.
    voicemail text not null default 'speak',
    -- What the current call has played, where Twilio asked for instructions.
    played text check (played in ('code', 'prompt', 'nothing')),
    -- Who answered the current call, in Twilio's words.
    answered_by text,
    -- How many calls were placed again after one that reached no person.
    redials integer not null default 0,
    primary key (tenant_id, delivery_id),
    check ((state = 'final') = (final_status is not null)),
    check (state <> 'final' or sealed is null)
) with (fillfactor = 70);
create index deliveries_due on deliveries (wake_at) where state <> 'final';
create unique index deliveries_attempt on deliveries (attempt_id) where attempt_id is not null;
create unique index deliveries_line on deliveries (line) where line is not null;
create unique index deliveries_call on deliveries (call_sid) where call_sid is not null;
create index deliveries_ended on deliveries (ended_at) where state = 'final';
create index deliveries_unannounced on deliveries (wake_at) where unannounced;
create index deliveries_concurrency on deliveries (concurrency_key)
    where concurrency_key is not null;
create index deliveries_waiting on deliveries (pace_key, tenant_id) where state = 'waiting';
-- user_mac covers the tenant too. These indexes leave tenant_id out: with it, the planner could
-- take the primary key for them, which leads through all rows of the tenant.
create index deliveries_user on deliveries (user_mac, user_time) where user_mac is not null;
-- A user may have many finished deliveries and has few open ones.
create index deliveries_user_open on deliveries (user_mac, user_time)
    where user_mac is not null and final_status is null;
create unique index deliveries_user_line on deliveries (user_line) where user_line is not null;

-- Attempts that ended while their delivery did not, or without a known call. A callback may still
-- arrive for one.
create table past_attempts (
    attempt_id uuid primary key,
    tenant_id text not null,
    delivery_id text not null,
    ended_at timestamptz not null default clock_timestamp(),
    -- The attempt's call, if it had one: updates for it are ignored.
    call_sid text
);
create index past_attempts_age on past_attempts (ended_at);
create index past_attempts_call on past_attempts (call_sid) where call_sid is not null;

-- Status events that are not known to be published. Each is written with the change that it
-- reports, and deleted once the broker has confirmed it.
create table outbox (
    tenant_id text not null,
    delivery_id text not null,
    sequence integer not null,
    -- workers.epoch of the worker that publishes it.
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

-- Completed calls whose price Twilio has not reported yet, or which has not been published.
create table unpriced_calls (
    call_sid text primary key,
    tenant_id text not null,
    delivery_id text not null,
    attempt integer not null,
    to_masked text,
    context jsonb not null,
    ended_at timestamptz not null default clock_timestamp(),
    -- When Twilio is asked next, and how often it has been asked.
    next_query_at timestamptz not null default clock_timestamp() + interval '15 seconds',
    queries integer not null default 0
);
create index unpriced_calls_due on unpriced_calls (next_query_at);
create index unpriced_calls_age on unpriced_calls (ended_at);

-- What tenants' calls cost, by the hour in which they ended, as Twilio reported it.
create table spend (
    tenant_id text not null,
    hour timestamptz not null,
    -- The currency, ISO 4217.
    unit text not null,
    amount double precision not null,
    calls bigint not null,
    primary key (tenant_id, hour, unit)
);

-- The archive: finished deliveries without code and number, for recognising duplicates and for the
-- console. maintain_archive_partitions() makes one partition per day (UTC) and drops old ones.
create table finished (
    tenant_id text not null,
    delivery_id text not null,
    identity_key text not null,
    identity_mac bytea not null,
    to_masked text,
    context jsonb not null,
    account_sid text,
    call_sid text,
    attempt integer not null,
    sequence integer not null,
    requested_at timestamptz,
    admitted_at timestamptz not null,
    expires_at timestamptz not null,
    placed_at timestamptz,
    ringing_at timestamptz,
    answered_at timestamptz,
    verified_at timestamptz,
    final_status text not null,
    ended_at timestamptz not null
) partition by range (ended_at);
create index finished_key on finished (tenant_id, delivery_id);
create index finished_tenant on finished (tenant_id, ended_at);

-- The times of recent test calls, which are limited per tenant.
create table test_calls (
    tenant_id text not null,
    at timestamptz not null default clock_timestamp()
);
create index test_calls_tenant on test_calls (tenant_id, at);

-- Tokens for the console and its API.
create table access_tokens (
    id uuid primary key,
    -- SHA-256 of the token. The token is random and long, so that its hash gives nothing away.
    hash bytea not null unique,
    name text not null,
    role text not null check (role in ('operator', 'tenant_admin')),
    -- The tenant of a tenant_admin.
    tenant_id text,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    revoked_at timestamptz,
    -- The last use, exact to the minute.
    used_at timestamptz,
    check ((role = 'tenant_admin') = (tenant_id is not null))
);

-- Browser sessions, by the SHA-256 of their cookie. A session ends with the token that began it.
create table sessions (
    hash bytea primary key,
    token_id uuid not null references access_tokens on delete cascade,
    expires_at timestamptz not null
);
create index sessions_expiry on sessions (expires_at);

-- Sign-in links, by the SHA-256 of their code. Each works once.
create table sign_in_codes (
    hash bytea primary key,
    token_id uuid not null references access_tokens on delete cascade,
    expires_at timestamptz not null
);

-- Every change of settings, accounts and tokens, without secrets.
create table audit_log (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    -- The token's name and id, or the command line.
    actor text not null,
    -- Null: the change concerns no single tenant.
    tenant_id text,
    action text not null,
    detail jsonb not null
);
create index audit_log_tenant on audit_log (tenant_id, id);
