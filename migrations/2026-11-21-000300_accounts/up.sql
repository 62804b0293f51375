-- A person has another id in every tenant, so that nobody can tell from an id whether they are somewhere else too.
ALTER TABLE users ADD COLUMN account_id uuid;
-- Until now they were the same. The policies bind the owner as well, who sees no tenant here.
ALTER TABLE users NO FORCE ROW LEVEL SECURITY;
UPDATE users SET account_id = id;
ALTER TABLE users FORCE ROW LEVEL SECURITY;
ALTER TABLE users ALTER COLUMN account_id SET NOT NULL;
DROP INDEX users_id_idx;
CREATE INDEX users_account_id_idx ON users (account_id);

-- Passwords can be changed, and an account goes when its last tenant does without it.
GRANT UPDATE (password_hash), DELETE ON accounts TO dealstream_directory;

-- A changed password ends a person's other sessions, in every tenant.
ALTER TABLE revocations ADD COLUMN kept_session_id uuid;
CREATE POLICY directory_adds ON revocations FOR INSERT TO dealstream_directory WITH CHECK (true);
GRANT INSERT ON revocations TO dealstream_directory;
