DROP TABLE pending_sign_ins;
ALTER TABLE sessions DROP COLUMN by_second_factor;
ALTER TABLE tenants DROP COLUMN mfa_required;
REVOKE UPDATE (has_second_factor) ON users FROM dealstream_directory;
DROP POLICY directory_marks ON users;
ALTER TABLE users DROP COLUMN has_second_factor;
DROP TABLE recovery_codes;
DROP TABLE second_factors;
