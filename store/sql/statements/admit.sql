-- Calls admit(); see functions/admit.sql.
-- $1 epoch; $2 skip; $3 begin ahead, $4 rescue, $5 hold ahead, in seconds
-- One element per request, in parallel:
--   $6 tenant ids; $7 delivery ids; $8 identity keys; $9 identity MACs; $10 user MACs;
--   $11 requested_at; $12 expires_at; $13 masked numbers; $14 contexts; $15 traceparent;
--   $16 tracestate; $17 sealing keys; $18 sealed; $19 locales; $20 account SIDs; $21 pace keys;
--   $22 paused; $23 settings' versions; $24 place_by; $25 heard_after_ms; $26 attempt ids;
--   $27 lines; $28 first status, $29 its routing key, $30 its body; $31 second status, $32 its
--   routing key, $33 its body
select ord, verdict, slot_at, slot_epoch, begun, admitted_at, wake_at, wait_ms, identity_key,
       identity_mac, has_older_requests, held
  from admit(
    $1, $2, $3::double precision * interval '1 second', $4::double precision * interval '1 second',
    $5::double precision * interval '1 second', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
    $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)
