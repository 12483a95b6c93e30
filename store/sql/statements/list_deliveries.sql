-- A tenant's deliveries, the newest first.
-- $1 tenant id; $2 admitted at or after; $3 admitted before; $4 final statuses, or in_progress
-- (empty: any); $5 masked number; $6 prefix of the id; $7 and $8 admission and id after which the
-- page begins; $9 limit. $2, $3, $5, $6 and $7 may be null.
select state, delivery_id, to_masked, call_sid, attempt, context, requested_at, admitted_at,
       expires_at, placed_at, ringing_at, answered_at, verified_at, final_status, ended_at
  from (
    select state, delivery_id, to_masked, call_sid, attempt, context, requested_at, admitted_at,
           expires_at, placed_at, ringing_at, answered_at, verified_at, final_status, ended_at
      from deliveries where tenant_id = $1 and identity_key <> ''
    union all
    select 'final' as state, delivery_id, to_masked, call_sid, attempt, context, requested_at,
           admitted_at, expires_at, placed_at, ringing_at, answered_at, verified_at, final_status,
           ended_at
      from finished
     where tenant_id = $1 and ended_at >= coalesce($2::timestamptz, '-infinity')
  ) d
 where ($2::timestamptz is null or admitted_at >= $2)
   and ($3::timestamptz is null or admitted_at < $3)
   and (cardinality($4::text[]) = 0 or coalesce(final_status, 'in_progress') = any ($4))
   and ($5::text is null or to_masked = $5)
   and ($6::text is null or starts_with(delivery_id, $6))
   and ($7::timestamptz is null or (admitted_at, delivery_id) < ($7, $8::text))
 order by admitted_at desc, delivery_id desc limit $9
