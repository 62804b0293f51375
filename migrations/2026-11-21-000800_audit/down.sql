DROP TABLE audit_entries;
DROP FUNCTION audit_chain(bytea, bigint, bytea[]);
DROP FUNCTION refuse_to_change();
ALTER TABLE histories DROP COLUMN audit_sequence, DROP COLUMN audit_hash, DROP COLUMN audit_previous;
