-- Roles of the tenant's own, teams, and how far a role reaches: which records of a kind a session sees.

-- A third role for requests, for those whose rights do not reach every record: it may do what dealstream_app may, and
-- the policies below confine it. Sessions that reach everything are not touched by them.
DO $$
DECLARE
    name constant text := 'dealstream_scoped';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS', name);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role % is missing and this login may not create it: let a superuser run CREATE ROLE % NOLOGIN; GRANT dealstream_app TO %; GRANT % TO %',
                    name, name, name, name, session_user;
        END;
    END IF;
    IF NOT pg_has_role(name, 'dealstream_app', 'MEMBER') THEN
        BEGIN
            EXECUTE format('GRANT dealstream_app TO %I', name);
        EXCEPTION
            -- Another database of this cluster may be doing the same at this moment.
            WHEN unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role % is not a member of dealstream_app: let a superuser run GRANT dealstream_app TO %',
                    name, name;
        END;
    END IF;
    IF NOT pg_has_role(session_user, name, 'MEMBER') THEN
        BEGIN
            EXECUTE format('GRANT %I TO %I', name, session_user);
        EXCEPTION
            WHEN unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'this login is not a member of the role %: let a superuser run GRANT % TO %',
                    name, name, session_user;
        END;
    END IF;
END
$$;

CREATE TABLE custom_roles (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    description text,
    -- By their names. What this release does not know grants nothing.
    permissions text[] NOT NULL,
    companies_scope text NOT NULL
        CONSTRAINT custom_roles_companies_scope_check CHECK (companies_scope IN ('OWN', 'TEAM', 'ALL')),
    contacts_scope text NOT NULL
        CONSTRAINT custom_roles_contacts_scope_check CHECK (contacts_scope IN ('OWN', 'TEAM', 'ALL')),
    deals_scope text NOT NULL
        CONSTRAINT custom_roles_deals_scope_check CHECK (deals_scope IN ('OWN', 'TEAM', 'ALL')),
    interactions_scope text NOT NULL
        CONSTRAINT custom_roles_interactions_scope_check CHECK (interactions_scope IN ('OWN', 'TEAM', 'ALL')),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT custom_roles_name_key UNIQUE (tenant_id, name)
);
SELECT protect('custom_roles');

-- Who has a role of the tenant's own has no other: the word for it permits nothing by itself.
ALTER TABLE users ADD COLUMN custom_role_id uuid;
ALTER TABLE users DROP CONSTRAINT users_role_check;
ALTER TABLE users
    ADD CONSTRAINT users_role_check CHECK (role IN ('ADMIN', 'MANAGER', 'SALES', 'MARKETING', 'VIEWER', 'CUSTOM')),
    ADD CONSTRAINT users_custom_role_check CHECK ((role = 'CUSTOM') = (custom_role_id IS NOT NULL)),
    ADD CONSTRAINT users_custom_role_id_fkey
        FOREIGN KEY (tenant_id, custom_role_id) REFERENCES custom_roles (tenant_id, id);
CREATE INDEX users_custom_role_idx ON users (tenant_id, custom_role_id) WHERE custom_role_id IS NOT NULL;

CREATE TABLE teams (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT teams_name_key UNIQUE (tenant_id, name)
);
SELECT protect('teams');

CREATE TABLE team_members (
    tenant_id uuid NOT NULL,
    team_id uuid NOT NULL,
    user_id uuid NOT NULL,
    is_lead boolean NOT NULL,
    PRIMARY KEY (tenant_id, team_id, user_id),
    CONSTRAINT team_members_team_id_fkey
        FOREIGN KEY (tenant_id, team_id) REFERENCES teams (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT team_members_user_id_fkey
        FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX team_members_user_idx ON team_members (tenant_id, user_id);
SELECT protect('team_members');

-- What a confined session sees of a kind of record is in the setting app.sees_<kind>: ALL, or the ids of the users whose
-- records it sees. Without the setting it sees nothing. The sub-selects are evaluated once for a statement, not for each
-- row. The owner of the tables may be a member of the role, and is not meant.
CREATE FUNCTION sees_all(kind text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT format('(SELECT current_user <> %L OR current_setting(%L, true) = %L)', 'dealstream_scoped', 'app.sees_' || kind, 'ALL')
$$;
CREATE FUNCTION sees_of(kind text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT format('(SELECT nullif(nullif(current_setting(%L, true), %L), %L)::uuid[])::uuid[]', 'app.sees_' || kind, '', 'ALL')
$$;
DO $$
DECLARE
    kind text;
BEGIN
    FOREACH kind IN ARRAY ARRAY['companies', 'contacts', 'deals'] LOOP
        EXECUTE format('CREATE POLICY reach ON %I AS RESTRICTIVE TO dealstream_scoped USING (%s OR owner_id = ANY (%s))',
            kind, sees_all(kind), sees_of(kind));
    END LOOP;
    -- The way of a deal is seen by whom the deal is.
    EXECUTE format('CREATE POLICY reach ON deal_stage_changes AS RESTRICTIVE TO dealstream_scoped USING (%s OR EXISTS (
            SELECT FROM deals WHERE deals.tenant_id = deal_stage_changes.tenant_id AND deals.id = deal_stage_changes.deal_id))',
        sees_all('deals'));
    -- An interaction is whose who recorded it, and whose what it is about is, as far as that is seen.
    EXECUTE format('CREATE POLICY reach ON interactions AS RESTRICTIVE TO dealstream_scoped USING (%1$s
            OR created_by_id = ANY (%2$s)
            OR EXISTS (SELECT FROM contacts about WHERE about.tenant_id = interactions.tenant_id
                          AND about.id = interactions.contact_id AND about.owner_id = ANY (%2$s))
            OR EXISTS (SELECT FROM companies about WHERE about.tenant_id = interactions.tenant_id
                          AND about.id = interactions.company_id AND about.owner_id = ANY (%2$s))
            OR EXISTS (SELECT FROM deals about WHERE about.tenant_id = interactions.tenant_id
                          AND about.id = interactions.deal_id AND about.owner_id = ANY (%2$s)))',
        sees_all('interactions'), sees_of('interactions'));
END
$$;
DROP FUNCTION sees_all(text), sees_of(text);

-- The functions that search run as the owner, whom no policy confines: they keep to the reach of the role that asks.
CREATE OR REPLACE FUNCTION search_contacts(pattern text)
    RETURNS TABLE (id uuid, name text, created_at timestamptz, updated_at timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100 AS $$
DECLARE
    sees text;
BEGIN
    IF current_setting('role') <> 'dealstream_scoped' THEN
        RETURN QUERY
        SELECT c.id, c.name, c.created_at, c.updated_at FROM contacts c
         WHERE c.tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid AND c.search LIKE pattern;
    ELSE
        sees := nullif(current_setting('app.sees_contacts', true), '');
        RETURN QUERY
        SELECT c.id, c.name, c.created_at, c.updated_at FROM contacts c
         WHERE c.tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid AND c.search LIKE pattern
           AND (sees = 'ALL' OR c.owner_id = ANY (nullif(sees, 'ALL')::uuid[]));
    END IF;
END
$$;
CREATE OR REPLACE FUNCTION search_companies(pattern text)
    RETURNS TABLE (id uuid, name text, created_at timestamptz, updated_at timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100 AS $$
DECLARE
    sees text;
BEGIN
    IF current_setting('role') <> 'dealstream_scoped' THEN
        RETURN QUERY
        SELECT c.id, c.name, c.created_at, c.updated_at FROM companies c
         WHERE c.tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid AND c.search LIKE pattern;
    ELSE
        sees := nullif(current_setting('app.sees_companies', true), '');
        RETURN QUERY
        SELECT c.id, c.name, c.created_at, c.updated_at FROM companies c
         WHERE c.tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid AND c.search LIKE pattern
           AND (sees = 'ALL' OR c.owner_id = ANY (nullif(sees, 'ALL')::uuid[]));
    END IF;
END
$$;
-- Replacing a function takes its settings away.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION search_contacts(text) SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION search_companies(text) SET search_path = %I, pg_temp', current_schema());
END
$$;
