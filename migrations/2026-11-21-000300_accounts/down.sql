REVOKE INSERT ON revocations FROM dealstream_directory;
DROP POLICY directory_adds ON revocations;
ALTER TABLE revocations DROP COLUMN kept_session_id;
REVOKE UPDATE (password_hash), DELETE ON accounts FROM dealstream_directory;
DROP INDEX users_account_id_idx;
CREATE INDEX users_id_idx ON users (id);
ALTER TABLE users DROP COLUMN account_id;
