-- Marks a tenant's credentials as rejected, if they have this version and weren't marked.
-- $1 tenant id; $2 version; $3 seconds until they are probed
update voice_settings set
       credentials_rejected_until = clock_timestamp() + $3::double precision * interval '1 second',
       version = nextval('voice_settings_version')
 where tenant_id = $1 and version = $2 and credentials_rejected_until is null
