-- Offers voice to a tenant's users, or stops offering it, if the settings have this version.
-- $1 tenant id; $2 offered; $3 version
update voice_settings set
       offered = $2, version = nextval('voice_settings_version'), updated_at = clock_timestamp()
 where tenant_id = $1 and version = $3
