-- The latest entries of the audit log.
-- $1 tenant id (null: all entries); $2 before this id (null: from the latest on); $3 limit
select id, at, actor, tenant_id, action, detail from audit_log
 where ($1::text is null or tenant_id = $1) and ($2::bigint is null or id < $2)
 order by id desc limit $3
