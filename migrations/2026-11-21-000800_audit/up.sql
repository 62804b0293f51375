-- The audit trail: who did what, when and from where, chained by hashes within each tenant. It outlives the history.

-- The head of each tenant's chain is in the row that every change locks anyway.
ALTER TABLE histories
    ADD COLUMN audit_sequence bigint NOT NULL DEFAULT 0,
    ADD COLUMN audit_hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    -- The head before the last append: from it the appending statement computes the hashes of its entries.
    ADD COLUMN audit_previous bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex');

CREATE TABLE audit_entries (
    tenant_id uuid NOT NULL,
    sequence bigint NOT NULL,
    id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    -- What acted: a user, an API key, the server itself.
    actor_kind text NOT NULL,
    actor_id uuid,
    entity text NOT NULL,
    record_id uuid NOT NULL,
    kind text NOT NULL,
    -- JSON, kept as the very text that was hashed.
    detail text NOT NULL,
    ip text,
    user_agent text,
    request_id text,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (tenant_id, sequence)
);
CREATE INDEX audit_entries_occurred_at_idx ON audit_entries (tenant_id, occurred_at, id);
CREATE INDEX audit_entries_record_idx ON audit_entries (tenant_id, record_id, occurred_at, id);
CREATE INDEX audit_entries_actor_idx ON audit_entries (tenant_id, actor_id, occurred_at, id);
SELECT protect('audit_entries');

-- Entries are added and read, and nothing else: by the rights of the role that serves requests, and for everybody, who
-- would first have to do away with the triggers.
REVOKE UPDATE, DELETE ON audit_entries FROM dealstream_app;
CREATE FUNCTION refuse_to_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is only ever added to', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_entries_unchanging BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change();

-- The hashes of entries that follow an entry: each is of the hash before it, the place in the chain and the digest of
-- the entry itself.
CREATE FUNCTION audit_chain(previous bytea, sequence bigint, digests bytea[]) RETURNS bytea[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    digest bytea;
    hashes bytea[] := '{}';
BEGIN
    FOREACH digest IN ARRAY digests LOOP
        sequence := sequence + 1;
        previous := pg_catalog.sha256(previous || pg_catalog.int8send(sequence) || digest);
        hashes := pg_catalog.array_append(hashes, previous);
    END LOOP;
    RETURN hashes;
END
$$;
