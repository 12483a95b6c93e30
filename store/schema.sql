-- The schema that `voice-otp migrate` makes. Generated; see sql/README.md. Comments on tables and
-- columns are in migrations/, the functions' bodies in sql/functions/.

create sequence voice_settings_version;

create table access_tokens (
    id uuid not null,
    hash bytea not null,
    name text not null,
    role text not null,
    tenant_id text,
    created_at timestamp with time zone not null default clock_timestamp(),
    expires_at timestamp with time zone not null,
    revoked_at timestamp with time zone,
    used_at timestamp with time zone,
    constraint access_tokens_check CHECK (((role = 'tenant_admin'::text) = (tenant_id IS NOT
        NULL))),
    constraint access_tokens_hash_key UNIQUE (hash),
    constraint access_tokens_pkey PRIMARY KEY (id),
    constraint access_tokens_role_check CHECK ((role = ANY (ARRAY['operator'::text,
        'tenant_admin'::text])))
);

create table accounts (
    account_sid text not null,
    calls_per_second double precision not null default 1,
    paused boolean not null default false,
    created_at timestamp with time zone not null default clock_timestamp(),
    max_calls integer,
    tenant_share double precision not null default 0.5,
    constraint accounts_calls_per_second_check CHECK ((calls_per_second > (0)::double precision)),
    constraint accounts_max_calls_check CHECK ((max_calls > 0)),
    constraint accounts_pkey PRIMARY KEY (account_sid),
    constraint accounts_tenant_share_check CHECK (((tenant_share > (0)::double precision) AND
        (tenant_share <= (1)::double precision)))
);
CREATE TRIGGER notify_account_changed AFTER UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION
        notify_account_changed();

create table audit_log (
    id bigint generated always as identity,
    at timestamp with time zone not null default clock_timestamp(),
    actor text not null,
    tenant_id text,
    action text not null,
    detail jsonb not null,
    constraint audit_log_pkey PRIMARY KEY (id)
);
CREATE INDEX audit_log_tenant ON audit_log USING btree (tenant_id, id);

create table cancelled_users (
    user_mac bytea not null,
    cancelled_at timestamp with time zone not null,
    recorded_at timestamp with time zone not null,
    constraint cancelled_users_pkey PRIMARY KEY (user_mac)
) with (fillfactor=70, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=10000);
CREATE INDEX cancelled_users_age ON cancelled_users USING btree (recorded_at);

create table database_state (
    only_row boolean not null default true,
    timeline integer,
    synchronous boolean not null default false,
    suspect_since timestamp with time zone,
    clock_repaired_at timestamp with time zone,
    clock_went_back interval not null default '00:00:00'::interval,
    clock_step interval not null default '00:00:00'::interval,
    constraint database_state_only_row_check CHECK (only_row),
    constraint database_state_pkey PRIMARY KEY (only_row)
);

create table deliveries (
    tenant_id text not null,
    delivery_id text not null,
    revision bigint not null default 1,
    owner bigint,
    state text not null,
    wake_at timestamp with time zone not null,
    identity_key text not null,
    identity_mac bytea not null,
    user_mac bytea,
    sealed_key text,
    sealed bytea,
    to_masked text,
    locale text,
    context jsonb not null,
    traceparent text,
    tracestate text,
    account_sid text,
    pace_key text,
    requested_at timestamp with time zone,
    admitted_at timestamp with time zone not null,
    expires_at timestamp with time zone not null,
    place_by timestamp with time zone not null,
    slot_at timestamp with time zone,
    slot_epoch bigint,
    announced_at timestamp with time zone,
    attempt integer not null default 0,
    attempt_id uuid,
    intent_at timestamp with time zone,
    settle_after timestamp with time zone,
    line bytea,
    call_sid text,
    heard_after_ms integer not null default 0,
    placed_at timestamp with time zone,
    ringing_at timestamp with time zone,
    answered_at timestamp with time zone,
    cancel_reason text,
    tries integer not null default 0,
    sequence integer not null,
    final_status text,
    ended_at timestamp with time zone,
    verified_at timestamp with time zone,
    user_time timestamp with time zone,
    user_line bytea,
    concurrency_key text,
    unannounced boolean not null default false,
    voicemail text not null default 'speak'::text,
    played text,
    answered_by text,
    redials integer not null default 0,
    forget_at timestamp with time zone,
    constraint deliveries_check CHECK (((state = 'final'::text) = (final_status IS NOT NULL))),
    constraint deliveries_check1 CHECK (((state <> 'final'::text) OR (sealed IS NULL))),
    constraint deliveries_pkey PRIMARY KEY (tenant_id, delivery_id),
    constraint deliveries_played_check CHECK ((played = ANY (ARRAY['code'::text, 'prompt'::text,
        'nothing'::text]))),
    constraint deliveries_state_check CHECK ((state = ANY (ARRAY['waiting'::text, 'placing'::text,
        'unsettled'::text, 'calling'::text, 'final'::text])))
) with (fillfactor=70, autovacuum_vacuum_scale_factor=0.02, autovacuum_vacuum_threshold=10000,
        autovacuum_vacuum_cost_delay=0);
CREATE UNIQUE INDEX deliveries_attempt ON deliveries USING btree (attempt_id) WHERE (attempt_id IS
        NOT NULL);
CREATE UNIQUE INDEX deliveries_call ON deliveries USING btree (call_sid) WHERE (call_sid IS NOT
        NULL);
CREATE INDEX deliveries_concurrency ON deliveries USING btree (concurrency_key) WHERE
        (concurrency_key IS NOT NULL);
CREATE INDEX deliveries_due ON deliveries USING btree (wake_at) WHERE (state <> 'final'::text);
CREATE INDEX deliveries_ended ON deliveries USING btree (ended_at) WHERE (state = 'final'::text);
CREATE INDEX deliveries_forgotten ON deliveries USING btree (forget_at) WHERE (forget_at IS NOT
        NULL);
CREATE UNIQUE INDEX deliveries_line ON deliveries USING btree (line) WHERE (line IS NOT NULL);
CREATE INDEX deliveries_queue ON deliveries USING btree (pace_key, tenant_id, ((attempt > 0)),
        admitted_at) WHERE (state = 'waiting'::text);
CREATE INDEX deliveries_unannounced ON deliveries USING btree (wake_at) WHERE unannounced;
CREATE INDEX deliveries_user ON deliveries USING btree (user_mac, user_time) WHERE (user_mac IS NOT
        NULL);
CREATE UNIQUE INDEX deliveries_user_line ON deliveries USING btree (user_line) WHERE (user_line IS
        NOT NULL);
CREATE INDEX deliveries_user_open ON deliveries USING btree (user_mac, user_time) WHERE ((user_mac
        IS NOT NULL) AND (final_status IS NULL));

create table delivery_counts (
    tenant_id text not null,
    hour timestamp with time zone not null,
    outcome text not null,
    to_masked text not null,
    deliveries bigint not null,
    placed bigint not null,
    ring_ms bigint not null,
    rang bigint not null,
    constraint delivery_counts_pkey PRIMARY KEY (tenant_id, hour, outcome, to_masked)
) with (fillfactor=70);
CREATE INDEX delivery_counts_age ON delivery_counts USING btree (hour);

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
    requested_at timestamp with time zone,
    admitted_at timestamp with time zone not null,
    expires_at timestamp with time zone not null,
    placed_at timestamp with time zone,
    ringing_at timestamp with time zone,
    answered_at timestamp with time zone,
    verified_at timestamp with time zone,
    final_status text not null,
    ended_at timestamp with time zone not null
) partition by RANGE (ended_at);
CREATE INDEX finished_key ON ONLY finished USING btree (tenant_id, delivery_id);
CREATE INDEX finished_tenant ON ONLY finished USING btree (tenant_id, ended_at);

create table finished_keys (
    tenant_id text not null,
    delivery_id text not null,
    identity_key text not null,
    identity_mac bytea not null,
    ended_at timestamp with time zone not null,
    constraint finished_keys_pkey PRIMARY KEY (tenant_id, delivery_id)
) partition by HASH (tenant_id, delivery_id);
CREATE INDEX finished_keys_age ON ONLY finished_keys USING btree (ended_at);

create table outbox (
    tenant_id text not null,
    delivery_id text not null,
    sequence integer not null,
    owner bigint not null,
    status text not null,
    routing_key text not null,
    body text not null,
    traceparent text,
    tracestate text,
    created_at timestamp with time zone not null default clock_timestamp(),
    constraint outbox_pkey PRIMARY KEY (tenant_id, delivery_id, sequence)
) with (autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=10000,
        autovacuum_vacuum_cost_delay=0);
CREATE INDEX outbox_owner ON outbox USING btree (owner, created_at);

create table pacing (
    pace_key text not null,
    account_sid text not null,
    interval_us bigint not null,
    tat timestamp with time zone not null,
    epoch bigint not null default 1,
    hold_until timestamp with time zone not null default '-infinity'::timestamp with time zone,
    probe_interval_us bigint,
    circuit_openings integer not null default 0,
    queue_until timestamp with time zone,
    queue_counted_at timestamp with time zone not null default '-infinity'::timestamp with time
        zone,
    constraint pacing_interval_us_check CHECK ((interval_us > 0)),
    constraint pacing_pkey PRIMARY KEY (pace_key)
) with (fillfactor=50, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=1000,
        autovacuum_vacuum_cost_delay=0);
CREATE INDEX pacing_account ON pacing USING btree (account_sid);
CREATE INDEX pacing_queue ON pacing USING btree (queue_counted_at) WHERE (queue_until IS NOT NULL);

create table past_attempts (
    attempt_id uuid not null,
    tenant_id text not null,
    delivery_id text not null,
    ended_at timestamp with time zone not null default clock_timestamp(),
    call_sid text,
    constraint past_attempts_pkey PRIMARY KEY (attempt_id)
);
CREATE INDEX past_attempts_age ON past_attempts USING btree (ended_at);
CREATE INDEX past_attempts_call ON past_attempts USING btree (call_sid) WHERE (call_sid IS NOT
        NULL);

create table sessions (
    hash bytea not null,
    token_id uuid not null,
    expires_at timestamp with time zone not null,
    constraint sessions_pkey PRIMARY KEY (hash),
    constraint sessions_token_id_fkey FOREIGN KEY (token_id) REFERENCES access_tokens(id) ON DELETE
        CASCADE
);
CREATE INDEX sessions_expiry ON sessions USING btree (expires_at);

create table sign_in_codes (
    hash bytea not null,
    token_id uuid not null,
    expires_at timestamp with time zone not null,
    constraint sign_in_codes_pkey PRIMARY KEY (hash),
    constraint sign_in_codes_token_id_fkey FOREIGN KEY (token_id) REFERENCES access_tokens(id) ON
        DELETE CASCADE
);

create table spend (
    tenant_id text not null,
    hour timestamp with time zone not null,
    unit text not null,
    amount double precision not null,
    calls bigint not null,
    constraint spend_pkey PRIMARY KEY (tenant_id, hour, unit)
);

create table tenant_slots (
    pace_key text not null,
    tenant_id text not null,
    held bigint not null,
    counted_at timestamp with time zone not null,
    held_until timestamp with time zone not null,
    constraint tenant_slots_pkey PRIMARY KEY (pace_key, tenant_id)
) with (fillfactor=50);

create table test_calls (
    tenant_id text not null,
    at timestamp with time zone not null default clock_timestamp()
);
CREATE INDEX test_calls_tenant ON test_calls USING btree (tenant_id, at);

create table unpriced_calls (
    call_sid text not null,
    tenant_id text not null,
    delivery_id text not null,
    attempt integer not null,
    to_masked text,
    context jsonb not null,
    ended_at timestamp with time zone not null default clock_timestamp(),
    next_query_at timestamp with time zone not null default (clock_timestamp() +
        '00:00:15'::interval),
    queries integer not null default 0,
    constraint unpriced_calls_pkey PRIMARY KEY (call_sid)
);
CREATE INDEX unpriced_calls_age ON unpriced_calls USING btree (ended_at);
CREATE INDEX unpriced_calls_due ON unpriced_calls USING btree (next_query_at);

create table voice_otp_functions (
    name text not null,
    checksum bytea not null,
    applied_at timestamp with time zone not null default clock_timestamp(),
    constraint voice_otp_functions_pkey PRIMARY KEY (name)
);

create table voice_otp_migrations (
    version integer not null,
    name text not null,
    checksum bytea not null,
    applied_at timestamp with time zone not null default clock_timestamp(),
    constraint voice_otp_migrations_pkey PRIMARY KEY (version)
);

create table voice_settings (
    tenant_id text not null,
    version bigint not null default nextval('voice_settings_version'::regclass),
    account_sid text not null,
    key_id text not null,
    auth_token bytea not null,
    secondary_auth_token bytea,
    api_key_secret bytea,
    from_number bytea not null,
    api_key_sid text,
    region text,
    default_locale text,
    ring_timeout_s integer not null,
    enabled boolean not null,
    allowed_countries text[] not null,
    test_mode boolean not null,
    credentials_verified boolean not null default false,
    created_at timestamp with time zone not null default clock_timestamp(),
    updated_at timestamp with time zone not null default clock_timestamp(),
    publishers text[] not null default '{}'::text[],
    paused boolean not null default false,
    credentials_rejected_until timestamp with time zone,
    speech jsonb not null default '{}'::jsonb,
    voicemail text not null default 'speak'::text,
    redial jsonb not null default '{}'::jsonb,
    offered boolean not null default true,
    auth_token_since timestamp with time zone,
    secondary_auth_token_since timestamp with time zone,
    api_key_since timestamp with time zone,
    constraint voice_settings_account_sid_fkey FOREIGN KEY (account_sid) REFERENCES
        accounts(account_sid),
    constraint voice_settings_check CHECK (((api_key_sid IS NULL) = (api_key_secret IS NULL))),
    constraint voice_settings_pkey PRIMARY KEY (tenant_id),
    constraint voice_settings_ring_timeout_s_check CHECK (((ring_timeout_s >= 1) AND
        (ring_timeout_s <= 600))),
    constraint voice_settings_voicemail_check CHECK ((voicemail = ANY (ARRAY['speak'::text,
        'hang_up'::text, 'wait_for_beep'::text, 'press_key'::text])))
);
CREATE INDEX voice_settings_account ON voice_settings USING btree (account_sid);
CREATE INDEX voice_settings_rejected ON voice_settings USING btree (credentials_rejected_until)
        WHERE (credentials_rejected_until IS NOT NULL);
CREATE TRIGGER notify_settings_changed AFTER INSERT OR DELETE OR UPDATE ON voice_settings FOR EACH
        ROW EXECUTE FUNCTION notify_settings_changed();

create table workers (
    epoch bigint not null default ((('x'::text || "left"(replace((gen_random_uuid())::text,
        '-'::text, ''::text), 12)))::bit(48))::bigint,
    name text not null,
    started_at timestamp with time zone not null default clock_timestamp(),
    lease_until timestamp with time zone not null,
    gives_slots boolean not null default false,
    constraint workers_pkey PRIMARY KEY (epoch)
) with (autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=1000,
        autovacuum_vacuum_cost_delay=0);

create function admit(
        in_worker bigint,
        in_skip boolean,
        in_begin_ahead interval,
        in_rescue interval,
        in_hold_ahead interval,
        in_tenant text[],
        in_delivery text[],
        in_identity_key text[],
        in_identity_mac bytea[],
        in_user_mac bytea[],
        in_requested_at timestamp with time zone[],
        in_expires_at timestamp with time zone[],
        in_to_masked text[],
        in_context jsonb[],
        in_traceparent text[],
        in_tracestate text[],
        in_sealed_key text[],
        in_sealed bytea[],
        in_locale text[],
        in_account text[],
        in_pace_key text[],
        in_paused boolean[],
        in_version bigint[],
        in_place_by timestamp with time zone[],
        in_heard_after_ms integer[],
        in_attempt uuid[],
        in_line bytea[],
        in_status1 text[],
        in_route1 text[],
        in_body1 text[],
        in_status2 text[],
        in_route2 text[],
        in_body2 text[])
    returns TABLE(ord bigint, verdict text, slot_at timestamp with time zone, slot_epoch bigint,
        begun boolean, admitted_at timestamp with time zone, wake_at timestamp with time zone,
        wait_ms bigint, identity_key text, identity_mac bytea, has_older_requests boolean, held
        boolean) language plpgsql volatile rows 1000 set enable_seqscan=off set
        plan_cache_mode=force_generic_plan;
create function archive_finished(
        in_recent interval,
        in_limit integer)
    returns bigint language plpgsql volatile;
create function batch_size_hint()
    returns SETOF integer language plpgsql immutable rows 40;
create function claim_deliveries(
        in_worker bigint,
        in_keys text[],
        in_limit bigint,
        in_ahead interval,
        in_forgotten interval)
    returns TABLE(tenant_id text, delivery_id text, revision bigint, state text, wake_at timestamp
        with time zone, sealed_key text, sealed bytea, to_masked text, locale text, context jsonb,
        traceparent text, tracestate text, account_sid text, pace_key text, requested_at timestamp
        with time zone, admitted_at timestamp with time zone, expires_at timestamp with time zone,
        place_by timestamp with time zone, slot_at timestamp with time zone, slot_epoch bigint,
        announced_at timestamp with time zone, attempt integer, attempt_id uuid, intent_at
        timestamp with time zone, line bytea, settle_after timestamp with time zone, call_sid text,
        heard_after_ms integer, placed_at timestamp with time zone, ringing_at timestamp with time
        zone, answered_at timestamp with time zone, cancel_reason text, voicemail text, played
        text, answered_by text, redials integer, verified_at timestamp with time zone, tries
        integer, sequence integer, final_status text, is_parked boolean) language plpgsql volatile
        rows 1000 set enable_seqscan=off set plan_cache_mode=force_generic_plan;
create function close_circuit(
        in_pace_key text)
    returns void language plpgsql volatile;
create function ensure_pacing(
        in_pace_key text[],
        in_account text[])
    returns void language sql volatile;
create function lock_pacing(
        in_keys text[],
        in_skip boolean)
    returns text[] language plpgsql volatile;
create function maintain_archive_partitions(
        in_recent interval,
        in_keep interval)
    returns void language plpgsql volatile security definer set search_path from current set
        lock_timeout=50ms;
create function note_timeline()
    returns timestamp with time zone language plpgsql volatile;
create function notify_account_changed()
    returns trigger language plpgsql volatile;
create function notify_settings_changed()
    returns trigger language plpgsql volatile;
create function open_circuit(
        in_pace_key text,
        in_first interval,
        in_longest interval)
    returns bigint language plpgsql volatile;
create function pace_interval(
        in_calls_per_second double precision)
    returns bigint language sql immutable;
create function repair_clock_step(
        in_step interval,
        in_lease interval)
    returns void language plpgsql volatile;
create function reschedule_account(
        in_pace_key text,
        in_hold interval)
    returns bigint language plpgsql volatile;
create function set_account_paused(
        in_account text,
        in_paused boolean)
    returns boolean language plpgsql volatile;
create function set_account_rate(
        in_account text,
        in_calls_per_second double precision)
    returns void language plpgsql volatile;
create function set_tenant_paused(
        in_tenant text,
        in_paused boolean)
    returns boolean language plpgsql volatile;
create function start_attempts(
        in_worker bigint,
        in_skip boolean,
        in_begin_ahead interval,
        in_slot_late interval,
        in_rescue interval,
        in_tenant text[],
        in_delivery text[],
        in_revision bigint[],
        in_attempt uuid[],
        in_line bytea[],
        in_pace_key text[],
        in_account text[])
    returns TABLE(ord bigint, verdict text, slot_at timestamp with time zone, slot_epoch bigint,
        revision bigint) language plpgsql volatile rows 1000 set enable_seqscan=off set
        plan_cache_mode=force_generic_plan;
create function throttle_account(
        in_pace_key text,
        in_wait interval)
    returns void language plpgsql volatile;
create function void_slots(
        in_pace_key text,
        in_hold interval,
        in_resumed boolean)
    returns void language plpgsql volatile;
