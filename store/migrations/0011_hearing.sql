-- How codes are read, what is done about answering machines, calls placed again, and what calls cost.

alter table voice_settings
    add column manner jsonb not null default '{}',
    add column voicemail text not null default 'speak' check (voicemail in ('speak', 'hang_up', 'wait_for_beep', 'press_key')),
    add column redial jsonb not null default '{}';

alter table deliveries
    -- What the current call does about answering machines, what it was told where it asked, and who answered it.
    add column voicemail text not null default 'speak',
    add column said text check (said in ('code', 'question', 'nothing')),
    add column answered_by text,
    -- Calls placed again after one that reached nobody.
    add column redials integer not null default 0;

-- The call of a placement that is over while its delivery isn't: nothing of it is news any more, and it is nobody else's.
alter table past_attempts add column call_sid text;
create index past_attempts_call on past_attempts (call_sid) where call_sid is not null;

-- Calls that cost something, until Twilio has told how much and the world has been told.
create table unpriced_calls (
    call_sid text primary key,
    tenant_id text not null,
    delivery_id text not null,
    attempt integer not null,
    to_masked text,
    context jsonb not null,
    ended_at timestamptz not null default clock_timestamp(),
    -- When to ask next, and how often it was asked.
    ask_at timestamptz not null default clock_timestamp() + interval '15 seconds',
    asked integer not null default 0
);
create index unpriced_calls_due on unpriced_calls (ask_at);
create index unpriced_calls_age on unpriced_calls (ended_at);
