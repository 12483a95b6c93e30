-- A tenant's deliveries by hour of admission, outcome and the first digits of the number, without
-- test calls.
-- $1 tenant id; $2 admitted at or after
select date_trunc('hour', admitted_at, 'UTC') as hour,
       coalesce(final_status, 'in_progress') as outcome,
       left(to_masked, 5) || '*****' as to_masked,
       count(*) as deliveries,
       count(placed_at) as placed,
       coalesce(sum((extract(epoch from ringing_at - placed_at) * 1000)::bigint), 0)::bigint
           as ring_ms,
       count(ringing_at - placed_at) as rang
  from (
    select to_masked, admitted_at, placed_at, ringing_at, final_status, context
      from deliveries where tenant_id = $1 and identity_key <> ''
    union all
    select to_masked, admitted_at, placed_at, ringing_at, final_status, context
      from finished where tenant_id = $1 and ended_at >= $2
  ) d
 where admitted_at >= $2 and context ->> 'test_call' is distinct from 'true'
 group by 1, 2, 3 order by 1
