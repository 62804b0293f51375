-- A forgotten password takes the API keys with it that a person has made, in every tenant.
CREATE POLICY directory_removes ON api_keys FOR DELETE TO dealstream_directory USING (true);
GRANT SELECT (user_id), DELETE ON api_keys TO dealstream_directory;
