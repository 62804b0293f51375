-- The CRM's records. tenant_id leads every key and index; foreign keys are composite, so that no record can refer to
-- another tenant's.

CREATE TABLE companies (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    domain text,
    industry text,
    email text,
    phone text,
    address jsonb,
    owner_id uuid,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1,
    search text NOT NULL GENERATED ALWAYS AS (lower(name || ' ' || coalesce(domain, '') || ' ' || coalesce(email, ''))) STORED,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT companies_owner_id_fkey FOREIGN KEY (tenant_id, owner_id) REFERENCES users (tenant_id, id)
);
CREATE INDEX companies_created_at_idx ON companies (tenant_id, created_at, id);
CREATE INDEX companies_updated_at_idx ON companies (tenant_id, updated_at, id);
CREATE INDEX companies_name_idx ON companies (tenant_id, name, id);
CREATE INDEX companies_owner_idx ON companies (tenant_id, owner_id);
CREATE INDEX companies_search_idx ON companies USING gin (tenant_id, search gin_trgm_ops);
SELECT protect('companies');

CREATE TABLE contacts (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    email text,
    phone text,
    job_title text,
    company_id uuid,
    lifecycle_stage text NOT NULL
        CONSTRAINT contacts_lifecycle_stage_check CHECK (lifecycle_stage IN ('LEAD', 'PROSPECT', 'CUSTOMER', 'CLOSED')),
    record_status text NOT NULL
        CONSTRAINT contacts_record_status_check CHECK (record_status IN ('ACTIVE', 'INACTIVE', 'ARCHIVED')),
    source text,
    rating integer CONSTRAINT contacts_rating_check CHECK (rating BETWEEN 0 AND 5),
    notes text,
    owner_id uuid,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1,
    search text NOT NULL GENERATED ALWAYS AS (lower(name || ' ' || coalesce(email, '') || ' ' || coalesce(job_title, ''))) STORED,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT contacts_company_id_fkey FOREIGN KEY (tenant_id, company_id) REFERENCES companies (tenant_id, id),
    CONSTRAINT contacts_owner_id_fkey FOREIGN KEY (tenant_id, owner_id) REFERENCES users (tenant_id, id)
);
CREATE INDEX contacts_created_at_idx ON contacts (tenant_id, created_at, id);
CREATE INDEX contacts_updated_at_idx ON contacts (tenant_id, updated_at, id);
CREATE INDEX contacts_name_idx ON contacts (tenant_id, name, id);
CREATE INDEX contacts_company_idx ON contacts (tenant_id, company_id, created_at, id);
CREATE INDEX contacts_owner_idx ON contacts (tenant_id, owner_id);
CREATE INDEX contacts_email_idx ON contacts (tenant_id, email);
CREATE INDEX contacts_search_idx ON contacts USING gin (tenant_id, search gin_trgm_ops);
SELECT protect('contacts');

CREATE TABLE pipelines (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    is_default boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT pipelines_name_key UNIQUE (tenant_id, name)
);
CREATE INDEX pipelines_created_at_idx ON pipelines (tenant_id, created_at, id);
CREATE UNIQUE INDEX pipelines_default_key ON pipelines (tenant_id) WHERE is_default;
SELECT protect('pipelines');

CREATE TABLE pipeline_stages (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    pipeline_id uuid NOT NULL,
    name text NOT NULL,
    position integer NOT NULL,
    kind text NOT NULL CONSTRAINT pipeline_stages_kind_check CHECK (kind IN ('OPEN', 'WON', 'LOST')),
    win_probability integer NOT NULL
        CONSTRAINT pipeline_stages_win_probability_check CHECK (win_probability BETWEEN 0 AND 100),
    rotting_after_days integer
        CONSTRAINT pipeline_stages_rotting_after_days_check CHECK (rotting_after_days BETWEEN 1 AND 3650),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, id),
    -- What deals refer to, so that a deal's stage is always one of its pipeline.
    CONSTRAINT pipeline_stages_pipeline_key UNIQUE (tenant_id, pipeline_id, id),
    CONSTRAINT pipeline_stages_name_key UNIQUE (tenant_id, pipeline_id, name),
    -- Deferred, so that stages can change places within a transaction.
    CONSTRAINT pipeline_stages_position_key UNIQUE (tenant_id, pipeline_id, position) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT pipeline_stages_pipeline_id_fkey
        FOREIGN KEY (tenant_id, pipeline_id) REFERENCES pipelines (tenant_id, id) ON DELETE CASCADE
);
SELECT protect('pipeline_stages');

CREATE TABLE deals (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    pipeline_id uuid NOT NULL,
    stage_id uuid NOT NULL,
    name text NOT NULL,
    -- In minor units of the currency. bigint, because comparisons of numeric cannot use an index under row-level security.
    amount bigint NOT NULL CONSTRAINT deals_amount_check CHECK (amount BETWEEN 0 AND 1000000000000000),
    currency_code text NOT NULL,
    status text NOT NULL CONSTRAINT deals_status_check CHECK (status IN ('OPEN', 'WON', 'LOST')),
    win_probability integer NOT NULL CONSTRAINT deals_win_probability_check CHECK (win_probability BETWEEN 0 AND 100),
    contact_id uuid,
    company_id uuid,
    owner_id uuid,
    expected_close_date date,
    stage_entered_at timestamptz NOT NULL,
    closed_at timestamptz,
    lost_reason text,
    next_step text,
    description text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT deals_closed_at_check CHECK ((status = 'OPEN') = (closed_at IS NULL)),
    CONSTRAINT deals_lost_reason_check CHECK ((status = 'LOST') = (lost_reason IS NOT NULL)),
    CONSTRAINT deals_stage_id_fkey
        FOREIGN KEY (tenant_id, pipeline_id, stage_id) REFERENCES pipeline_stages (tenant_id, pipeline_id, id),
    CONSTRAINT deals_contact_id_fkey FOREIGN KEY (tenant_id, contact_id) REFERENCES contacts (tenant_id, id),
    CONSTRAINT deals_company_id_fkey FOREIGN KEY (tenant_id, company_id) REFERENCES companies (tenant_id, id),
    CONSTRAINT deals_owner_id_fkey FOREIGN KEY (tenant_id, owner_id) REFERENCES users (tenant_id, id)
);
CREATE INDEX deals_created_at_idx ON deals (tenant_id, created_at, id);
CREATE INDEX deals_updated_at_idx ON deals (tenant_id, updated_at, id);
CREATE INDEX deals_name_idx ON deals (tenant_id, name, id);
CREATE INDEX deals_amount_idx ON deals (tenant_id, amount, id);
-- The board reads its columns and its sums from this index alone.
CREATE INDEX deals_stage_idx ON deals (tenant_id, stage_id, created_at, id) INCLUDE (currency_code, amount, win_probability);
CREATE INDEX deals_contact_idx ON deals (tenant_id, contact_id, created_at, id);
CREATE INDEX deals_company_idx ON deals (tenant_id, company_id, created_at, id);
CREATE INDEX deals_owner_idx ON deals (tenant_id, owner_id, created_at, id);
SELECT protect('deals');

CREATE TABLE deal_stage_changes (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    deal_id uuid NOT NULL,
    from_stage_id uuid,
    to_stage_id uuid NOT NULL,
    entered_at timestamptz NOT NULL,
    exited_at timestamptz,
    changed_by_id uuid,
    lost_reason text,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT deal_stage_changes_exited_at_check CHECK (exited_at >= entered_at),
    CONSTRAINT deal_stage_changes_deal_id_fkey
        FOREIGN KEY (tenant_id, deal_id) REFERENCES deals (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT deal_stage_changes_from_stage_id_fkey
        FOREIGN KEY (tenant_id, from_stage_id) REFERENCES pipeline_stages (tenant_id, id),
    CONSTRAINT deal_stage_changes_to_stage_id_fkey
        FOREIGN KEY (tenant_id, to_stage_id) REFERENCES pipeline_stages (tenant_id, id),
    CONSTRAINT deal_stage_changes_changed_by_id_fkey
        FOREIGN KEY (tenant_id, changed_by_id) REFERENCES users (tenant_id, id)
);
CREATE INDEX deal_stage_changes_deal_idx ON deal_stage_changes (tenant_id, deal_id, entered_at, id);
CREATE UNIQUE INDEX deal_stage_changes_current_key ON deal_stage_changes (tenant_id, deal_id) WHERE exited_at IS NULL;
CREATE INDEX deal_stage_changes_from_stage_idx ON deal_stage_changes (tenant_id, from_stage_id);
CREATE INDEX deal_stage_changes_to_stage_idx ON deal_stage_changes (tenant_id, to_stage_id);
SELECT protect('deal_stage_changes');

CREATE TABLE interactions (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL CONSTRAINT interactions_kind_check CHECK (kind IN ('CALL', 'EMAIL', 'MEETING', 'CHAT', 'NOTE')),
    direction text CONSTRAINT interactions_direction_check CHECK (direction IN ('INBOUND', 'OUTBOUND')),
    channel text,
    subject text NOT NULL,
    content text,
    outcome text,
    next_action text,
    scheduled_at timestamptz,
    -- When it happened; while it is only planned, the planned time.
    occurred_at timestamptz NOT NULL,
    completed_at timestamptz,
    contact_id uuid,
    company_id uuid,
    deal_id uuid,
    created_by_id uuid,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT interactions_subject_of_check CHECK (num_nonnulls(contact_id, company_id, deal_id) > 0),
    CONSTRAINT interactions_contact_id_fkey FOREIGN KEY (tenant_id, contact_id) REFERENCES contacts (tenant_id, id),
    CONSTRAINT interactions_company_id_fkey FOREIGN KEY (tenant_id, company_id) REFERENCES companies (tenant_id, id),
    CONSTRAINT interactions_deal_id_fkey FOREIGN KEY (tenant_id, deal_id) REFERENCES deals (tenant_id, id),
    CONSTRAINT interactions_created_by_id_fkey FOREIGN KEY (tenant_id, created_by_id) REFERENCES users (tenant_id, id)
);
CREATE INDEX interactions_occurred_at_idx ON interactions (tenant_id, occurred_at, id);
CREATE INDEX interactions_created_at_idx ON interactions (tenant_id, created_at, id);
CREATE INDEX interactions_contact_idx ON interactions (tenant_id, contact_id, occurred_at, id);
CREATE INDEX interactions_company_idx ON interactions (tenant_id, company_id, occurred_at, id);
CREATE INDEX interactions_deal_idx ON interactions (tenant_id, deal_id, occurred_at, id);
SELECT protect('interactions');

-- Search. Operators that are not leakproof, such as LIKE, cannot use an index under row-level security, so these
-- functions run as the tables' owner with the tenant taken from the setting, and answer only ids and what lists are
-- sorted by. FORCE ROW LEVEL SECURITY would bind an ordinary owner to the policies just the same, slowly but safely.
-- In PL/pgSQL, which keeps the plan for the session, where a function in SQL is planned anew for each statement.
CREATE FUNCTION search_contacts(pattern text)
    RETURNS TABLE (id uuid, name text, created_at timestamptz, updated_at timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100 AS $$
BEGIN
    RETURN QUERY
    SELECT c.id, c.name, c.created_at, c.updated_at FROM contacts c
     WHERE c.tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid AND c.search LIKE pattern;
END
$$;
CREATE FUNCTION search_companies(pattern text)
    RETURNS TABLE (id uuid, name text, created_at timestamptz, updated_at timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100 AS $$
BEGIN
    RETURN QUERY
    SELECT c.id, c.name, c.created_at, c.updated_at FROM companies c
     WHERE c.tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid AND c.search LIKE pattern;
END
$$;
-- Temporary objects come last, so that no caller can put a table of their own before ours.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION search_contacts(text) SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION search_companies(text) SET search_path = %I, pg_temp', current_schema());
END
$$;
REVOKE EXECUTE ON FUNCTION search_contacts(text), search_companies(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION search_contacts(text), search_companies(text) TO dealstream_app;
