-- Claims the unpublished events of workers whose lease has expired. A delivery's events are claimed
-- by locking its first: whoever has that has them all, so two workers never share a delivery's
-- events. Events whose first belongs to a living worker are left to that worker.
-- The epochs between two living workers' are one range of the index, so the events of living
-- workers are never read, however many there are.
-- $1 epoch; $2 limit of deliveries
with alive as materialized (
    select epoch from workers where lease_until > clock_timestamp()
    union
    select $1::bigint
), dead as materialized (
    select a.epoch as after, lead(a.epoch) over (order by a.epoch) as before
      from (select epoch from alive union all select 0) a
), left_behind as materialized (
    select o.tenant_id, o.delivery_id
      from dead cross join lateral (
        select l.tenant_id, l.delivery_id, l.created_at from outbox l
         where l.owner > dead.after and l.owner < coalesce(dead.before, 9223372036854775807)
           and not exists (
               select 1 from outbox e
                where e.tenant_id = l.tenant_id and e.delivery_id = l.delivery_id
                  and e.sequence < l.sequence)
         order by l.owner, l.created_at limit $2 for update skip locked) o
     limit $2
), claimed as (
    update outbox o set owner = $1
      from left_behind l cross join lateral (
        select e.ctid as at from outbox e
         where e.tenant_id = l.tenant_id and e.delivery_id = l.delivery_id) e
     where o.ctid = e.at
    returning o.tenant_id, o.delivery_id, o.sequence, o.status, o.routing_key, o.body,
              o.traceparent, o.tracestate
)
select tenant_id, delivery_id, sequence, status, routing_key, body, traceparent, tracestate
  from claimed order by tenant_id, delivery_id, sequence
