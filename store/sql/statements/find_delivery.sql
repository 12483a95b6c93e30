-- One delivery of a tenant, open, finished or archived.
-- $1 tenant id; $2 delivery id
select state, delivery_id, to_masked, call_sid, attempt, context, requested_at, admitted_at,
       expires_at, placed_at, ringing_at, answered_at, verified_at, final_status, ended_at
  from deliveries where tenant_id = $1 and delivery_id = $2 and identity_key <> ''
union all
select 'final' as state, delivery_id, to_masked, call_sid, attempt, context, requested_at,
       admitted_at, expires_at, placed_at, ringing_at, answered_at, verified_at, final_status,
       ended_at
  from finished where tenant_id = $1 and delivery_id = $2 limit 1
