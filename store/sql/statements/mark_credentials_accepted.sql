-- Ends the rejection of a tenant's credentials, if they have this version.
-- $1 tenant id; $2 version
update voice_settings set
       credentials_rejected_until = null, version = nextval('voice_settings_version')
 where tenant_id = $1 and version = $2 and credentials_rejected_until is not null
