-- Calls start_attempts(); see functions/start_attempts.sql.
-- $1 epoch; $2 skip; $3 begin ahead, $4 slot late, $5 rescue, in seconds
-- One element per delivery, in parallel:
--   $6 tenant ids; $7 delivery ids; $8 revisions; $9 attempt ids; $10 lines; $11 pace keys;
--   $12 account SIDs
select ord, verdict, slot_at, slot_epoch, revision
  from start_attempts(
    $1, $2, $3::double precision * interval '1 second', $4::double precision * interval '1 second',
    $5::double precision * interval '1 second', $6, $7, $8, $9, $10, $11, $12)
