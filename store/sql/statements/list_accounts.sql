-- All accounts, with how many tenants use each, and how long a new request would wait for its slot.
select a.account_sid, a.calls_per_second, a.paused, a.max_calls, a.tenant_share,
       (select count(*) from voice_settings s where s.account_sid = a.account_sid) as tenants,
       coalesce(ceil(extract(epoch from greatest(p.tat, p.queue_until, p.hold_until)
                         - clock_timestamp()) * 1000),
                0)::bigint as backlog_ms,
       coalesce(p.probe_interval_us is not null, false) as circuit_open
  from accounts a left join pacing p on p.pace_key = a.account_sid
 order by a.account_sid
