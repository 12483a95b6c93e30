-- Claims tenants whose rejected credentials should be probed now, and postpones the next probe.
-- $1 limit; $2 seconds until the next probe
with due as (
    select tenant_id from (select clock_timestamp() as t offset 0) clock
     cross join lateral (
        select tenant_id from voice_settings where credentials_rejected_until <= t
         order by credentials_rejected_until limit $1 for update skip locked) d
)
update voice_settings s set
       credentials_rejected_until = clock_timestamp() + $2::double precision * interval '1 second'
  from due where s.tenant_id = due.tenant_id
returning s.tenant_id
