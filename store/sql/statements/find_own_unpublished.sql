-- This worker's own unpublished events that are old, and were perhaps forgotten: those of the next
-- deliveries after a position, and the position after them. Only events behind them that belong to
-- another worker are rewritten: they are this worker's from then on.
-- $1 epoch; $2 the age from which on an event is old, in seconds; $3 created_at of the last first
-- event that was looked at; $4 limit of deliveries; $5 tenants to leave out
with old as materialized (
    select o.tenant_id, o.delivery_id, o.created_at
      from (select clock_timestamp() - $2::double precision * interval '1 second' as t offset 0)
           clock
     cross join lateral (
        select l.tenant_id, l.delivery_id, l.created_at from outbox l
         where l.owner = $1 and l.created_at > $3 and l.created_at < t
           and l.tenant_id <> all ($5)
           and not exists (
               select 1 from outbox e
                where e.tenant_id = l.tenant_id and e.delivery_id = l.delivery_id
                  and e.sequence < l.sequence)
         order by l.created_at limit $4) o
), found as materialized (
    select e.at, e.owner, o.created_at, e.tenant_id, e.delivery_id, e.sequence, e.status,
           e.routing_key, e.body, e.traceparent, e.tracestate
      from old o cross join lateral (
        select l.ctid as at, l.owner, l.tenant_id, l.delivery_id, l.sequence, l.status,
               l.routing_key, l.body, l.traceparent, l.tracestate
          from outbox l
         where l.tenant_id = o.tenant_id and l.delivery_id = o.delivery_id) e
), taken as (
    update outbox o set owner = $1 from found f where f.owner <> $1 and o.ctid = f.at
)
select tenant_id, delivery_id, sequence, status, routing_key, body, traceparent, tracestate,
       created_at
  from found order by tenant_id, delivery_id, sequence
