-- Repairs what was computed before the clock went back, if a lease shows that it did.
-- $1 lease in seconds
select repair_clock_step(s.step, $1::double precision * interval '1 second')
  from (select max(w.lease_until) - clock_timestamp() - $1::double precision * interval '1 second'
                   as step
          from workers w) s
 where s.step > interval '1 second'
