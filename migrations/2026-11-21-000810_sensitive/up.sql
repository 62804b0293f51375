-- Highly sensitive fields, sealed one by one under keys of each tenant.

-- A tenant's keys, each sealed by the master key. Of those that seal fields one is current; the one that makes values
-- findable stays, because with another every value would be found under another name.
CREATE TABLE data_keys (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    purpose text NOT NULL CONSTRAINT data_keys_purpose_check CHECK (purpose IN ('SEAL', 'INDEX')),
    is_current boolean NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT data_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id)
);
CREATE UNIQUE INDEX data_keys_current_key ON data_keys (tenant_id, purpose) WHERE is_current;
SELECT protect('data_keys');

-- The sealed fields of companies: apart from them, so that no list, history or search ever touches them.
CREATE TABLE company_secrets (
    tenant_id uuid NOT NULL,
    company_id uuid NOT NULL,
    field text NOT NULL CONSTRAINT company_secrets_field_check CHECK (field IN ('tax_id', 'bank_account')),
    key_id uuid NOT NULL,
    -- Nonce, ciphertext and tag of AES-256-GCM.
    sealed bytea NOT NULL,
    -- HMAC-SHA-256 of the normalised value, where it can be searched for.
    blind_index bytea,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, company_id, field),
    CONSTRAINT company_secrets_company_id_fkey
        FOREIGN KEY (tenant_id, company_id) REFERENCES companies (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT company_secrets_key_id_fkey FOREIGN KEY (tenant_id, key_id) REFERENCES data_keys (tenant_id, id)
);
CREATE INDEX company_secrets_key_idx ON company_secrets (tenant_id, key_id);
CREATE INDEX company_secrets_blind_idx ON company_secrets (tenant_id, field, blind_index) WHERE blind_index IS NOT NULL;
SELECT protect('company_secrets');
