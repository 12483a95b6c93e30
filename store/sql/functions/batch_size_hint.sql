-- batch_size_hint()
--
-- Returns one row, for which the planner estimates 40. A statement joins it to its input arrays,
-- for which the planner would estimate 10: it would then compare each row with each, which takes
-- longer than all the rest once a batch is large.
--
-- Reads and locks nothing. Must stay in plpgsql: a function in SQL would be inlined, and the
-- estimate lost.
create or replace function batch_size_hint() returns setof integer
language plpgsql immutable rows 40 as $$
begin
    return next 1;
end $$;
