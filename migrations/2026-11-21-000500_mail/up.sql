-- Mail that is on its way, links that were mailed, and invitations into tenants.

-- What is to be mailed, written in the transaction that is the reason for it and sent afterwards. Neither the address nor
-- anything else of it can be read here, and it holds no token: the token of a link is made when it is sent.
CREATE TABLE mails (
    id uuid PRIMARY KEY,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- When it is tried next.
    due_at timestamptz NOT NULL DEFAULT now(),
    attempts integer NOT NULL DEFAULT 0
);
CREATE INDEX mails_due_at_idx ON mails (due_at);
GRANT SELECT, INSERT, DELETE, UPDATE (due_at, attempts) ON mails TO dealstream_directory;

-- Links that were mailed, by the hash of their token. Each can be used once; what it is about, and for whom, stands here
-- and not in the link.
CREATE TABLE links (
    token_hash bytea PRIMARY KEY,
    purpose text NOT NULL CONSTRAINT links_purpose_check
        CHECK (purpose IN ('INVITATION', 'PASSWORD_RESET', 'EMAIL_VERIFICATION', 'SIGN_UP')),
    -- Whose password or address it is about.
    account_id uuid,
    -- The address that it went to.
    email text NOT NULL,
    -- The tenant, and the invitation there.
    invited_to uuid,
    invitation_id uuid,
    -- What a sign-up wants to found.
    sealed bytea,
    expires_at timestamptz NOT NULL
);
CREATE INDEX links_account_id_idx ON links (account_id);
CREATE INDEX links_invitation_id_idx ON links (invitation_id);
CREATE INDEX links_expires_at_idx ON links (expires_at);
GRANT SELECT, INSERT, DELETE ON links TO dealstream_directory;

-- When a person proved that the address is theirs, by a link that was mailed to it.
ALTER TABLE accounts ADD COLUMN email_verified_at timestamptz;
-- Whether the password was chosen by somebody else, who may know it still.
ALTER TABLE accounts ADD COLUMN password_is_initial boolean NOT NULL DEFAULT false;
GRANT UPDATE (email_verified_at, password_is_initial) ON accounts TO dealstream_directory;

-- Whether this tenant may be entered only once the address is verified: it gave the user to an account that it had not
-- made, so whoever made that one might know its password, and not be the person who is meant.
ALTER TABLE users ADD COLUMN awaits_verification boolean NOT NULL DEFAULT false;
ALTER TABLE users NO FORCE ROW LEVEL SECURITY;
UPDATE users SET awaits_verification = true
 WHERE EXISTS (SELECT FROM users earlier
                WHERE earlier.account_id = users.account_id
                  AND (earlier.created_at, earlier.tenant_id) < (users.created_at, users.tenant_id));
ALTER TABLE users FORCE ROW LEVEL SECURITY;

CREATE TABLE invitations (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    email text NOT NULL,
    name text,
    role text NOT NULL CONSTRAINT invitations_role_check CHECK (role IN ('ADMIN', 'MANAGER', 'SALES', 'MARKETING', 'VIEWER')),
    invited_by_id uuid,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT invitations_email_key UNIQUE (tenant_id, email),
    CONSTRAINT invitations_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id),
    CONSTRAINT invitations_invited_by_id_fkey FOREIGN KEY (tenant_id, invited_by_id) REFERENCES users (tenant_id, id)
        ON DELETE SET NULL (invited_by_id)
);
CREATE INDEX invitations_invited_by_id_idx ON invitations (tenant_id, invited_by_id);
SELECT protect('invitations');

-- Who follows a link has no tenant yet.
CREATE POLICY directory ON invitations FOR SELECT TO dealstream_directory USING (true);
GRANT SELECT ON invitations TO dealstream_directory;

-- The tenant's settings.
ALTER TABLE tenants ADD COLUMN time_zone text NOT NULL DEFAULT 'UTC';
ALTER TABLE tenants ADD COLUMN min_password_length integer NOT NULL DEFAULT 10
    CONSTRAINT tenants_min_password_length_check CHECK (min_password_length BETWEEN 10 AND 128);
