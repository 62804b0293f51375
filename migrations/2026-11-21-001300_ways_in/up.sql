-- Who did not come back in time is forgotten by who goes out next, often.
CREATE INDEX provider_visits_expires_at_idx ON provider_visits (expires_at);
CREATE INDEX provider_proofs_expires_at_idx ON provider_proofs (expires_at);

-- Whoever makes a provider forget them takes half a sign-in from whoever is in the middle of one, in every tenant.
CREATE POLICY directory ON pending_sign_ins FOR SELECT TO dealstream_directory USING (true);
CREATE POLICY directory_removes ON pending_sign_ins FOR DELETE TO dealstream_directory USING (true);
GRANT SELECT (tenant_id, user_id), DELETE ON pending_sign_ins TO dealstream_directory;
