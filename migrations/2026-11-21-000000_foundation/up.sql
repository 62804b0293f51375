-- The foundation: roles, the protection of tenant tables, tenants and their users, the history of changes.

CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE EXTENSION IF NOT EXISTS btree_gin;

-- Roles belong to the whole cluster: another database, or another instance at this moment, may have made them already.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['dealstream_app', 'dealstream_directory'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS', name);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'the role % is missing and this login may not create it: let a superuser run CREATE ROLE % NOLOGIN; GRANT % TO %',
                        name, name, name, session_user;
            END;
        END IF;
        IF NOT pg_has_role(session_user, name, 'MEMBER') THEN
            BEGIN
                EXECUTE format('GRANT %I TO %I', name, session_user);
            EXCEPTION
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'this login is not a member of the role %: let a superuser run GRANT % TO %',
                        name, name, session_user;
            END;
        END IF;
    END LOOP;
END
$$;

-- Puts a table under the tenant boundary. Every migration that makes a table with tenant_id ends by calling it.
-- The policy is a plain comparison, without a function or a sub-select, so that its index condition is cheap and the
-- schema can be distributed by tenant. FORCE makes it hold for the owner too.
CREATE FUNCTION protect(target regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    current_tenant constant text := $e$nullif(current_setting('app.tenant_id', true), '')::uuid$e$;
BEGIN
    EXECUTE format('ALTER TABLE %s ALTER COLUMN tenant_id SET DEFAULT %s', target, current_tenant);
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
    EXECUTE format('CREATE POLICY tenant ON %s USING (tenant_id = %s) WITH CHECK (tenant_id = %s)',
        target, current_tenant, current_tenant);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO dealstream_app', target);
END
$$;
REVOKE EXECUTE ON FUNCTION protect(regclass) FROM PUBLIC;

CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    currency_code text NOT NULL DEFAULT 'USD',
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1
);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenants
    USING (id = nullif(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (id = nullif(current_setting('app.tenant_id', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON tenants TO dealstream_app;

-- What a person signs in with, across tenants. Only the directory role sees it.
CREATE TABLE accounts (
    id uuid PRIMARY KEY,
    email text NOT NULL CONSTRAINT accounts_email_key UNIQUE,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL
);
GRANT SELECT, INSERT ON accounts TO dealstream_directory;

-- A person in a tenant: the same id as the account, with the name and the role that hold in this tenant.
CREATE TABLE users (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    email text NOT NULL,
    role text NOT NULL CONSTRAINT users_role_check CHECK (role IN ('ADMIN', 'MANAGER', 'SALES', 'MARKETING', 'VIEWER')),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT users_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id),
    CONSTRAINT users_email_key UNIQUE (tenant_id, email)
);
CREATE INDEX users_id_idx ON users (id);
SELECT protect('users');

-- Sign-in must find a person's tenants before one of them is chosen.
CREATE POLICY directory ON users FOR SELECT TO dealstream_directory USING (true);
CREATE POLICY directory ON tenants FOR SELECT TO dealstream_directory USING (true);
GRANT SELECT ON users, tenants TO dealstream_directory;

-- The history of changes: dense and in the order of commits within each tenant. The counter row is bumped by the last
-- statement of a transaction, so that it is locked for a moment only.
CREATE TABLE histories (
    tenant_id uuid PRIMARY KEY,
    epoch bigint NOT NULL,
    position bigint NOT NULL DEFAULT 0,
    -- Events up to this position have been trimmed.
    trimmed bigint NOT NULL DEFAULT 0,
    CONSTRAINT histories_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id)
);
SELECT protect('histories');

CREATE TABLE events (
    tenant_id uuid NOT NULL,
    position bigint NOT NULL,
    id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    actor_id uuid,
    entity text NOT NULL,
    record_id uuid NOT NULL,
    kind text NOT NULL,
    change jsonb NOT NULL,
    PRIMARY KEY (tenant_id, position)
);
SELECT protect('events');

-- What a mutation answered under an idempotency key, so that a retry is answered the same.
CREATE TABLE idempotency_keys (
    tenant_id uuid NOT NULL,
    actor_id uuid NOT NULL,
    key text NOT NULL,
    operation text NOT NULL,
    input_hash bytea NOT NULL,
    answer jsonb NOT NULL,
    epoch bigint NOT NULL,
    position bigint NOT NULL,
    created_at timestamptz NOT NULL,
    -- By its name a race for the same key is known from other faults.
    CONSTRAINT idempotency_keys_key_key PRIMARY KEY (tenant_id, actor_id, key)
);
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (tenant_id, created_at);
SELECT protect('idempotency_keys');
