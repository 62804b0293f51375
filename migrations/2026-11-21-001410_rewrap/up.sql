-- A new master key takes over what older ones have sealed, wherever it is.
GRANT UPDATE (sealed) ON mails, links, provider_visits TO dealstream_directory;
-- Of tenants' keys, too: all at once, and only as they are sealed.
CREATE POLICY directory ON data_keys FOR SELECT TO dealstream_directory USING (true);
CREATE POLICY directory_rewraps ON data_keys FOR UPDATE TO dealstream_directory USING (true) WITH CHECK (true);
GRANT SELECT (tenant_id, id, sealed), UPDATE (sealed) ON data_keys TO dealstream_directory;
