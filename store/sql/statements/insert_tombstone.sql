-- Inserts a tombstone, which an empty identity_key marks, unless the delivery is known.
-- $1 tenant id; $2 delivery id
insert into deliveries (
    tenant_id, delivery_id, state, wake_at, identity_key, identity_mac, context, admitted_at,
    expires_at, place_by, sequence, final_status, ended_at)
select $1, $2, 'final', t, '', '', '{}', t, t, t, 0, 'cancelled', t
  from clock_timestamp() as t
 where not exists (select 1 from finished_keys where tenant_id = $1 and delivery_id = $2)
on conflict (tenant_id, delivery_id) do nothing
returning 1
