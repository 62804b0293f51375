REVOKE SELECT (tenant_id, user_id), DELETE ON pending_sign_ins FROM dealstream_directory;
DROP POLICY directory_removes ON pending_sign_ins;
DROP POLICY directory ON pending_sign_ins;
DROP INDEX provider_proofs_expires_at_idx;
DROP INDEX provider_visits_expires_at_idx;
