-- How long sessions last in a tenant, and after how long without being refreshed they end.
ALTER TABLE tenants
    ADD COLUMN session_days integer NOT NULL DEFAULT 7
        CONSTRAINT tenants_session_days_check CHECK (session_days BETWEEN 1 AND 90),
    ADD COLUMN idle_minutes integer NOT NULL DEFAULT 30
        CONSTRAINT tenants_idle_minutes_check CHECK (idle_minutes BETWEEN 1 AND 43200);

-- From signing in to signing out. Its refresh tokens are kept as hashes: what is read here signs nobody in.
CREATE TABLE sessions (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    -- Of the part that all refresh tokens of the session have in common.
    family_hash bytea NOT NULL,
    -- Of the refresh token that is good, and of the one before, from which it came.
    token_hash bytea NOT NULL,
    previous_hash bytea,
    created_at timestamptz NOT NULL,
    -- When it began or was last refreshed.
    last_used_at timestamptz NOT NULL,
    -- The tenant's settings may shorten both, and do not make them longer.
    expires_at timestamptz NOT NULL,
    idle_at timestamptz NOT NULL,
    -- Where it was last used from.
    user_agent text,
    address text,
    ended_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT sessions_user_id_fkey
        FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX sessions_user_idx ON sessions (tenant_id, user_id);
CREATE INDEX sessions_family_hash_idx ON sessions (family_hash);
SELECT protect('sessions');

-- A refresh token tells of no tenant; and a changed password ends a person's sessions in every tenant.
CREATE POLICY directory ON sessions FOR SELECT TO dealstream_directory USING (true);
CREATE POLICY directory_ends ON sessions FOR UPDATE TO dealstream_directory USING (true) WITH CHECK (true);
GRANT SELECT (tenant_id, id, user_id, family_hash, ended_at), UPDATE (ended_at) ON sessions TO dealstream_directory;
