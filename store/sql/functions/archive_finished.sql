-- archive_finished(recent, limit)
--
-- Moves up to `limit` deliveries that finished longer than `recent` ago from deliveries to
-- finished, without codes and numbers, and their identities to finished_keys, counts them in
-- delivery_counts, and deletes up to `limit` past attempts of that age. Tombstones are deleted, up
-- to `limit` identities whose day is not archived any more, and up to `limit` counts of hours that
-- no figures show. So are up to `limit` rows of tenants that don't exist, some minutes after they
-- finished, and up to `limit` cancellations by user, once no code lives that is older: `recent` is
-- at least twice the longest life of a code. Returns how many deliveries it moved or deleted.
--
-- Locks: an advisory lock of the schema, shared with maintain_archive_partitions(); if another
-- transaction has it, the function does nothing and returns 0. Then the deliveries, in the order of
-- ended_at; those that another transaction has locked are left for the next call.
--
-- Must never move a delivery with an event in the outbox, nor one whose day has no partition.
create or replace function archive_finished(in_recent interval, in_limit integer) returns bigint
language plpgsql as $$
#variable_conflict use_column
declare
    t timestamptz := clock_timestamp();
    moved bigint;
    forgotten bigint;
    days text[];
begin
    if not pg_try_advisory_xact_lock(hashtext('voice-otp archive ' || current_schema())) then
        return 0;
    end if;
    select coalesce(array_agg(right(c.relname, 8)), '{}') into days
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'finished'::regclass;
    with old as (
        select d.tenant_id, d.delivery_id from deliveries d
         where d.state = 'final' and d.ended_at < t - in_recent
           and to_char(d.ended_at at time zone 'UTC', 'YYYYMMDD') = any (days)
           and not exists (
               select 1 from outbox o
                where o.tenant_id = d.tenant_id and o.delivery_id = d.delivery_id)
         order by d.ended_at limit in_limit for update skip locked
    ), deleted as (
        delete from deliveries d using old o
         where d.tenant_id = o.tenant_id and d.delivery_id = o.delivery_id
        returning d.tenant_id, d.delivery_id, d.identity_key, d.identity_mac, d.to_masked,
                  d.context, d.account_sid, d.call_sid, d.attempt, d.sequence, d.requested_at,
                  d.admitted_at, d.expires_at, d.placed_at, d.ringing_at, d.answered_at,
                  d.verified_at, d.final_status, d.ended_at
    ), archived as (
        insert into finished (
            tenant_id, delivery_id, identity_key, identity_mac, to_masked, context, account_sid,
            call_sid, attempt, sequence, requested_at, admitted_at, expires_at, placed_at,
            ringing_at, answered_at, verified_at, final_status, ended_at)
        select r.tenant_id, r.delivery_id, r.identity_key, r.identity_mac, r.to_masked,
               r.context, r.account_sid, r.call_sid, r.attempt, r.sequence, r.requested_at,
               r.admitted_at, r.expires_at, r.placed_at, r.ringing_at, r.answered_at,
               r.verified_at, r.final_status, r.ended_at
          from deleted r where r.identity_key <> ''
    ), counted as (
        insert into delivery_counts as c (
            tenant_id, hour, outcome, to_masked, deliveries, placed, ring_ms, rang)
        select r.tenant_id, date_trunc('hour', r.admitted_at, 'UTC'), r.final_status,
               coalesce(left(r.to_masked, 5) || '*****', ''), count(*), count(r.placed_at),
               coalesce(sum((extract(epoch from r.ringing_at - r.placed_at) * 1000)::bigint), 0),
               count(r.ringing_at - r.placed_at)
          from deleted r
         where r.identity_key <> '' and r.context ->> 'test_call' is distinct from 'true'
         group by 1, 2, 3, 4 order by 1, 2, 3, 4
        on conflict (tenant_id, hour, outcome, to_masked) do update set
            deliveries = c.deliveries + excluded.deliveries, placed = c.placed + excluded.placed,
            ring_ms = c.ring_ms + excluded.ring_ms, rang = c.rang + excluded.rang
    ), keys_archived as (
        insert into finished_keys (tenant_id, delivery_id, identity_key, identity_mac, ended_at)
        select r.tenant_id, r.delivery_id, r.identity_key, r.identity_mac, r.ended_at
          from deleted r where r.identity_key <> ''
        on conflict do nothing
    )
    select count(*) into moved from deleted;
    delete from deliveries where (tenant_id, delivery_id) in (
        select d.tenant_id, d.delivery_id from deliveries d
         where d.forget_at < t and d.final_status is not null
           and not exists (
               select 1 from outbox o
                where o.tenant_id = d.tenant_id and o.delivery_id = d.delivery_id)
         order by d.forget_at limit in_limit for update skip locked);
    get diagnostics forgotten = row_count;
    delete from cancelled_users where user_mac in (
        select c.user_mac from cancelled_users c
         where c.recorded_at < t - in_recent / 2
         order by c.recorded_at limit in_limit for update skip locked);
    delete from finished_keys k where (k.tenant_id, k.delivery_id) in (
        select o.tenant_id, o.delivery_id from finished_keys o
         where o.ended_at < (
             select to_date(min(d), 'YYYYMMDD')::timestamp at time zone 'UTC' from unnest(days) d)
         order by o.ended_at limit in_limit);
    delete from delivery_counts where (tenant_id, hour, outcome, to_masked) in (
        select c.tenant_id, c.hour, c.outcome, c.to_masked from delivery_counts c
         where c.hour < t - interval '9 days' order by c.hour limit in_limit);
    delete from past_attempts where attempt_id in (
        select attempt_id from past_attempts
         where ended_at < t - in_recent order by ended_at limit in_limit);
    return moved + forgotten;
end $$;
