REVOKE SELECT (user_id), DELETE ON api_keys FROM dealstream_directory;
DROP POLICY directory_removes ON api_keys;
