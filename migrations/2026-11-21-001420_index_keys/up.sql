-- Under which key a blind index was made, so that this key can be changed as the others are: until all values are found
-- under the new one, they are looked for under each. Without a name for it, it was made by a server that knew of one only.
ALTER TABLE company_secrets ADD COLUMN index_key_id uuid,
    ADD CONSTRAINT company_secrets_index_key_id_fkey
        FOREIGN KEY (tenant_id, index_key_id) REFERENCES data_keys (tenant_id, id);
CREATE INDEX company_secrets_index_key_idx ON company_secrets (tenant_id, index_key_id);
