-- Deletes calls whose price is published and adds the prices to the tenants' spend. A price counts
-- once, with the row that is deleted. Twilio reports what was paid as a negative number.
-- $1 call SIDs; $2 amounts; $3 currencies, in parallel
with deleted as (
    delete from unpriced_calls where call_sid = any ($1) returning call_sid, tenant_id, ended_at
)
insert into spend as s (tenant_id, hour, unit, amount, calls)
select g.tenant_id, date_trunc('hour', g.ended_at, 'UTC'), p.unit, sum(-p.amount), count(*)
  from deleted g
  join unnest($1::text[], $2::double precision[], $3::text[]) as p(call_sid, amount, unit)
    on p.call_sid = g.call_sid
 group by 1, 2, 3 order by 1, 2, 3
on conflict (tenant_id, hour, unit) do update set
    amount = s.amount + excluded.amount, calls = s.calls + excluded.calls
