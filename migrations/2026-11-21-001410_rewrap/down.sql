REVOKE SELECT (tenant_id, id, sealed), UPDATE (sealed) ON data_keys FROM dealstream_directory;
DROP POLICY directory_rewraps ON data_keys;
DROP POLICY directory ON data_keys;
REVOKE UPDATE (sealed) ON mails, links, provider_visits FROM dealstream_directory;
