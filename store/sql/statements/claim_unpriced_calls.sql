-- Claims calls whose price should be queried now, and postpones their next query: by 30 seconds,
-- doubled each time, at most an hour.
-- $1 limit
with due as (
    select call_sid from (select clock_timestamp() as t offset 0) c
     cross join lateral (
        select call_sid from unpriced_calls where next_query_at <= t
         order by next_query_at limit $1 for update skip locked) d
)
update unpriced_calls u set
       queries = u.queries + 1,
       next_query_at = clock_timestamp()
           + least(interval '1 hour', interval '30 seconds' * power(2, least(u.queries, 10)))
  from due where u.call_sid = due.call_sid
returning u.call_sid, u.tenant_id, u.delivery_id, u.attempt, u.to_masked, u.context, u.ended_at
