-- When test calls were asked for, so that nobody rings a telephone again and again with them.

create table test_calls (
    tenant_id text not null,
    at timestamptz not null default clock_timestamp()
);
create index test_calls_tenant on test_calls (tenant_id, at);
