-- Marks a tenant's credentials as verified, if they have this version. Its calls count against the
-- account's rate limit from now on: the account's next slot is at least one interval away.
-- $1 tenant id; $2 version
with verified as (
    update voice_settings set
           credentials_verified = true, version = nextval('voice_settings_version')
     where tenant_id = $1 and version = $2 and not credentials_verified
    returning account_sid
)
insert into pacing as p (pace_key, account_sid, interval_us, tat)
select a.account_sid, a.account_sid, pace_interval(a.calls_per_second),
       clock_timestamp() + pace_interval(a.calls_per_second) * interval '1 microsecond'
  from accounts a join verified using (account_sid)
on conflict (pace_key) do update set tat = greatest(p.tat, excluded.tat)
