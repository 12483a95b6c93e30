-- Archived deliveries by hour, so that a tenant's figures don't read every row.
create table delivery_counts (
    tenant_id text not null,
    -- The hour of admission.
    hour timestamptz not null,
    -- The final status.
    outcome text not null,
    -- The first digits of the number, the rest masked; empty without a number.
    to_masked text not null,
    deliveries bigint not null,
    -- Those for which Twilio accepted a call.
    placed bigint not null,
    -- The sum of the times from Twilio's acceptance to ringing, and of how many calls.
    ring_ms bigint not null,
    rang bigint not null,
    primary key (tenant_id, hour, outcome, to_masked)
) with (fillfactor = 70);
create index delivery_counts_age on delivery_counts (hour);

-- What is archived already. Workers go on; of the previous release's, what they archive until this
-- release's archive_finished() is there isn't counted.
set local lock_timeout = '5s';
lock table finished in share mode;
insert into delivery_counts (
    tenant_id, hour, outcome, to_masked, deliveries, placed, ring_ms, rang)
select tenant_id, date_trunc('hour', admitted_at, 'UTC'), final_status,
       coalesce(left(to_masked, 5) || '*****', ''), count(*), count(placed_at),
       coalesce(sum((extract(epoch from ringing_at - placed_at) * 1000)::bigint), 0),
       count(ringing_at - placed_at)
  from finished
 where ended_at >= clock_timestamp() - interval '8 days'
   and context ->> 'test_call' is distinct from 'true'
 group by 1, 2, 3, 4;
