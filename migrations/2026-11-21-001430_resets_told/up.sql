-- When an operator took a person's second factor away, as long as the tenant's trail does not tell of it: set in the
-- transaction that takes it away, and cleared in the one that notes it here.
ALTER TABLE users ADD COLUMN second_factor_reset_at timestamptz;
GRANT UPDATE (second_factor_reset_at) ON users TO dealstream_directory;
