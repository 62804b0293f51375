DROP TABLE idempotency_keys, events, histories, users, accounts, tenants;
DROP FUNCTION protect(regclass);
