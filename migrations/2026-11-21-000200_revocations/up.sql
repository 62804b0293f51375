-- Access tokens are checked without the database, so what ends them before their time is written down here: every
-- instance keeps in memory what is younger than a token can be.
CREATE TABLE revocations (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    -- The session that has ended; without it, all of the user's sessions that had begun by then.
    session_id uuid,
    -- By the clock of the database, which all instances share.
    revoked_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
-- What is new, whichever the tenant.
CREATE INDEX revocations_revoked_at_idx ON revocations (revoked_at);
SELECT protect('revocations');

-- Instances must hear of all tenants' revocations.
CREATE POLICY directory ON revocations FOR SELECT TO dealstream_directory USING (true);
GRANT SELECT ON revocations TO dealstream_directory;
