-- Keys with which other programs use the API on behalf of a user. What is kept of a key is its hash.
CREATE TABLE api_keys (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    -- The beginning of the key, by which people know it again.
    prefix text NOT NULL,
    -- SHA-256 of the key: random enough that nothing slower is needed.
    hash bytea NOT NULL CONSTRAINT api_keys_hash_key UNIQUE,
    -- For whom it acts; it can do nothing that this user cannot.
    user_id uuid NOT NULL,
    -- The names of the permissions that it is for, with spaces between them.
    scope text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    last_used_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT api_keys_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX api_keys_user_id_idx ON api_keys (tenant_id, user_id);
SELECT protect('api_keys');

-- A key tells its tenant, so it is looked up before one is known.
CREATE POLICY directory ON api_keys FOR SELECT TO dealstream_directory USING (true);
GRANT SELECT (tenant_id, id, hash) ON api_keys TO dealstream_directory;
