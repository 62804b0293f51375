-- What was found under another key than the current one is not found any more: finish the rotation first.
ALTER TABLE company_secrets DROP COLUMN index_key_id;
