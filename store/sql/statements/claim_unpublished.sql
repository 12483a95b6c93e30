-- Claims the unpublished events of workers whose lease has expired, and this worker's own forgotten
-- ones. A delivery's events are claimed by locking its first: whoever has that has them all, so two
-- workers never share a delivery's events.
-- $1 epoch; $2 the age from which on an own event is forgotten, in seconds; $3 limit of deliveries
with alive as materialized (
    select epoch from workers where lease_until > clock_timestamp() and epoch <> $1
), left_behind as (
    select o.tenant_id, o.delivery_id from outbox o
     where o.owner not in (select epoch from alive)
       and (o.owner <> $1
            or o.created_at < clock_timestamp() - $2::double precision * interval '1 second')
       and not exists (
           select 1 from outbox l
            where l.tenant_id = o.tenant_id and l.delivery_id = o.delivery_id
              and l.sequence < o.sequence)
     order by o.created_at limit $3 for update skip locked
), claimed as (
    update outbox o set owner = $1 from left_behind l
     where o.tenant_id = l.tenant_id and o.delivery_id = l.delivery_id
    returning o.tenant_id, o.delivery_id, o.sequence, o.status, o.routing_key, o.body,
              o.traceparent, o.tracestate
)
select tenant_id, delivery_id, sequence, status, routing_key, body, traceparent, tracestate
  from claimed order by tenant_id, delivery_id, sequence
