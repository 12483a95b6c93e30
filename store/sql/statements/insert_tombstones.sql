-- Inserts tombstones, which an empty identity_key marks, for deliveries that aren't known. One row
-- per delivery, in order: whether it was inserted. Those of tenants that don't exist are soon
-- forgotten.
-- $1 tenant ids; $2 delivery ids, in parallel
with input as (
    select i.tenant_id, i.delivery_id, i.ord
      from unnest($1::text[], $2::text[]) with ordinality as i(tenant_id, delivery_id, ord)
     cross join batch_size_hint()
), inserted as (
    insert into deliveries (
        tenant_id, delivery_id, state, wake_at, identity_key, identity_mac, context, admitted_at,
        expires_at, place_by, sequence, final_status, ended_at, forget_at)
    select i.tenant_id, i.delivery_id, 'final', t, '', '', '{}', t, t, t, 0, 'cancelled', t,
           case when s.one is null then t + interval '5 minutes' end
      from input i
     cross join clock_timestamp() as t
      left join lateral (
        select 1 as one from finished_keys f
         where f.tenant_id = i.tenant_id and f.delivery_id = i.delivery_id limit 1) f on true
      left join lateral (
        select 1 as one from voice_settings s where s.tenant_id = i.tenant_id limit 1) s on true
     where f.one is null
     order by i.tenant_id, i.delivery_id
    on conflict (tenant_id, delivery_id) do nothing
    returning tenant_id, delivery_id
)
select n.delivery_id is not null as inserted
  from input i left join inserted n on n.tenant_id = i.tenant_id and n.delivery_id = i.delivery_id
 order by i.ord
