-- The second factor of an account: codes by time (RFC 6238), with recovery codes. It belongs to the person, not to a
-- tenant, so that only the directory sees it.
CREATE TABLE second_factors (
    account_id uuid PRIMARY KEY,
    -- Sealed under the master keys.
    secret bytea NOT NULL,
    created_at timestamptz NOT NULL,
    -- Until the person has shown a code of it, it counts for nothing.
    confirmed_at timestamptz,
    -- The step of time of the last code that was taken: none is taken twice.
    last_step bigint NOT NULL DEFAULT 0,
    -- Wrong codes since the last right one, and when the last of them came.
    failures integer NOT NULL DEFAULT 0,
    failed_at timestamptz,
    CONSTRAINT second_factors_account_id_fkey FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
GRANT SELECT, INSERT, DELETE ON second_factors TO dealstream_directory;
GRANT UPDATE (secret, created_at, confirmed_at, last_step, failures, failed_at) ON second_factors TO dealstream_directory;

-- What is left of the codes that help out once each.
CREATE TABLE recovery_codes (
    account_id uuid NOT NULL,
    -- SHA-256: the codes have a hundred random bits.
    hash bytea NOT NULL,
    PRIMARY KEY (account_id, hash),
    CONSTRAINT recovery_codes_account_id_fkey FOREIGN KEY (account_id) REFERENCES second_factors (account_id)
        ON DELETE CASCADE
);
GRANT SELECT, INSERT, DELETE ON recovery_codes TO dealstream_directory;

-- Whether a person has signed in to this tenant with a second factor, and has it still. What they have elsewhere is
-- not this tenant's to know.
ALTER TABLE users ADD COLUMN has_second_factor boolean NOT NULL DEFAULT false;
-- Who gives it up has it nowhere any more.
CREATE POLICY directory_marks ON users FOR UPDATE TO dealstream_directory USING (true) WITH CHECK (true);
GRANT UPDATE (has_second_factor) ON users TO dealstream_directory;

-- Whether one needs a second factor to get in here.
ALTER TABLE tenants ADD COLUMN mfa_required boolean NOT NULL DEFAULT false;

-- Whether a session was begun with a second factor: one that was not ends where one is wanted.
ALTER TABLE sessions ADD COLUMN by_second_factor boolean NOT NULL DEFAULT false;

-- Who has shown the first factor, and has some minutes to show the second.
CREATE TABLE pending_sign_ins (
    tenant_id uuid NOT NULL,
    -- SHA-256 of the token.
    hash bytea NOT NULL,
    user_id uuid NOT NULL,
    -- SHA-256 of the hash of the password that the person had then: with another password it is void.
    password_state bytea NOT NULL,
    -- Whether there is no second factor yet, and one has to be set up first.
    enrols boolean NOT NULL,
    tries integer NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, hash),
    CONSTRAINT pending_sign_ins_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
        ON DELETE CASCADE
);
SELECT protect('pending_sign_ins');
