-- The latest workers, those with a valid lease first, and how many open deliveries each owns.
select w.epoch, w.name, w.started_at, w.lease_until > clock_timestamp() as alive,
       (select count(*) from deliveries d where d.owner = w.epoch and d.state <> 'final')
           as deliveries
  from workers w order by alive desc, w.epoch desc limit 100
