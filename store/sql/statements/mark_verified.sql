-- Records that codes were entered. One row per delivery, in order: whether that is recorded, now or
-- before; whether the delivery waits for a redial; whether another transaction has locked it, in
-- which case nothing was written. The revision stays.
-- $1 tenant ids; $2 delivery ids, in parallel
with input as (
    select i.tenant_id, i.delivery_id, i.ord
      from unnest($1::text[], $2::text[]) with ordinality as i(tenant_id, delivery_id, ord)
     cross join batch_size_hint()
), locked as (
    select i.ord, d.at, d.verified_at, d.awaits_redial
      from (select n.tenant_id, n.delivery_id, n.ord
              from input n order by n.tenant_id, n.delivery_id) i
     cross join lateral (
        select d.ctid as at, d.verified_at,
               d.state || '' = 'waiting' and d.redials > 0 as awaits_redial
          from deliveries d
         where d.tenant_id = i.tenant_id and d.delivery_id = i.delivery_id
           for update skip locked) d
), written as (
    update deliveries d set verified_at = clock_timestamp()
      from locked l where d.ctid = l.at and l.verified_at is null
    returning d.tenant_id, d.delivery_id
)
select l.verified_at is not null or w.delivery_id is not null as recorded,
       coalesce(l.awaits_redial, false) as awaits_redial,
       -- Also one that was changed between the look and the lock.
       x.one is not null as row_locked
  from input i
  left join locked l on l.ord = i.ord
  left join written w on w.tenant_id = i.tenant_id and w.delivery_id = i.delivery_id
  left join lateral (
    select 1 as one from deliveries x
     where l.verified_at is null and w.delivery_id is null
       and x.tenant_id = i.tenant_id and x.delivery_id = i.delivery_id limit 1) x on true
 order by i.ord
