-- A tenant's deliveries by hour of admission, outcome and the first digits of the number, without
-- test calls: the counts of those that are archived, and up to $3 others, which are counted now.
-- $1 tenant id; $2 admitted at or after the hour of this time; $3 limit
select hour, outcome, to_masked, sum(deliveries)::bigint as deliveries,
       sum(recent)::bigint as recent, sum(placed)::bigint as placed,
       sum(ring_ms)::bigint as ring_ms, sum(rang)::bigint as rang
  from (
    select hour, outcome, nullif(to_masked, '') as to_masked, deliveries, 0 as recent, placed,
           ring_ms, rang
      from delivery_counts
     where tenant_id = $1 and hour >= date_trunc('hour', $2::timestamptz, 'UTC')
    union all
    select date_trunc('hour', admitted_at, 'UTC'), coalesce(final_status, 'in_progress'),
           left(to_masked, 5) || '*****', count(*), count(*), count(placed_at),
           coalesce(sum((extract(epoch from ringing_at - placed_at) * 1000)::bigint), 0),
           count(ringing_at - placed_at)
      from (
        select to_masked, admitted_at, placed_at, ringing_at, final_status
          from deliveries
         where tenant_id = $1 and identity_key <> ''
           and admitted_at >= date_trunc('hour', $2::timestamptz, 'UTC')
           and context ->> 'test_call' is distinct from 'true'
         limit $3::bigint) d
     group by 1, 2, 3
  ) c
 group by 1, 2, 3 order by 1
