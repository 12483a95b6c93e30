-- Records cancellations by user. One row per hash, in order: whether it is recorded. One that isn't
-- is being recorded by another transaction at this moment.
-- $1 users' hashes, each once; $2 the events' times, in parallel
with input as (
    select i.user_mac, coalesce(i.time, t) as cancelled_at, t as recorded_at, i.ord
      from unnest($1::bytea[], $2::timestamptz[]) with ordinality as i(user_mac, time, ord)
     cross join batch_size_hint()
     cross join clock_timestamp() as t
), known as (
    select i.user_mac, i.cancelled_at, i.recorded_at, c.at
      from (select n.user_mac, n.cancelled_at, n.recorded_at from input n order by n.user_mac) i
     cross join lateral (
        select c.ctid as at from cancelled_users c
         where c.user_mac = i.user_mac for update skip locked) c
), updated as (
    update cancelled_users c set
           cancelled_at = greatest(c.cancelled_at, k.cancelled_at),
           recorded_at = greatest(c.recorded_at, k.recorded_at)
      from known k where c.ctid = k.at
    returning c.user_mac
), inserted as (
    insert into cancelled_users (user_mac, cancelled_at, recorded_at)
    select i.user_mac, i.cancelled_at, i.recorded_at
      from input i
      left join lateral (
        select 1 as one from cancelled_users c where c.user_mac = i.user_mac limit 1) c on true
     where c.one is null
     order by i.user_mac
    on conflict (user_mac) do nothing
    returning user_mac
)
select u.user_mac is not null or n.user_mac is not null as recorded
  from input i
  left join updated u on u.user_mac = i.user_mac
  left join inserted n on n.user_mac = i.user_mac
 order by i.ord
