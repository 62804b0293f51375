-- Signing in by way of other providers. All of this belongs to people and not to tenants, so that only the directory sees it.

-- By whom else an account's person is known: an issuer, and their lasting name there. The address is what it was when they
-- were linked; it is shown and never searched for.
CREATE TABLE linked_identities (
    issuer text NOT NULL,
    subject text NOT NULL,
    account_id uuid NOT NULL,
    provider text NOT NULL,
    email text NOT NULL,
    linked_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    PRIMARY KEY (issuer, subject),
    CONSTRAINT linked_identities_account_id_fkey FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    -- One person is one at each issuer: who gets another's old address there does not become them here.
    CONSTRAINT linked_identities_issuer_key UNIQUE (account_id, issuer)
);
GRANT SELECT, INSERT, DELETE ON linked_identities TO dealstream_directory;
GRANT UPDATE (last_used_at) ON linked_identities TO dealstream_directory;

-- Who has been sent to a provider and is expected back, once, for some minutes.
CREATE TABLE provider_visits (
    -- SHA-256 of the state, which comes back in the address.
    state_hash bytea PRIMARY KEY,
    -- SHA-256 of what the browser keeps in a cookie: nobody else comes back in its place.
    browser_hash bytea NOT NULL,
    provider text NOT NULL,
    -- The nonce and the verifier for the provider, sealed under the master keys.
    sealed bytea NOT NULL,
    -- SHA-256 of what the page that sent them keeps.
    challenge bytea NOT NULL,
    return_to text NOT NULL,
    expires_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, DELETE ON provider_visits TO dealstream_directory;

-- Who has come back and was recognised. The page that sent them turns this into a session, once, within a minute or so.
CREATE TABLE provider_proofs (
    code_hash bytea PRIMARY KEY,
    challenge bytea NOT NULL,
    provider text NOT NULL,
    issuer text NOT NULL,
    subject text NOT NULL,
    email text NOT NULL,
    account_id uuid NOT NULL,
    -- SHA-256 of the hash of the account's password: with another password this is void.
    password_state bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT provider_proofs_account_id_fkey FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
GRANT SELECT, INSERT, DELETE ON provider_proofs TO dealstream_directory;
