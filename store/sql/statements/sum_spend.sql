-- What a tenant's calls cost, by currency.
-- $1 tenant id; $2 ended at or after the hour of this time
select unit, sum(amount) as amount, sum(calls)::bigint as calls
  from spend
 where tenant_id = $1 and hour >= date_trunc('hour', $2::timestamptz, 'UTC')
 group by unit order by unit
