-- The keys that sign access tokens, shared by all instances. The private part is sealed by the application; the public
-- part is made from it, so that nobody can add a key of their own here and have it trusted.
CREATE TABLE signing_keys (
    -- The thumbprint of the public key (RFC 7638).
    kid text PRIMARY KEY,
    algorithm text NOT NULL CONSTRAINT signing_keys_algorithm_check CHECK (algorithm IN ('RS256', 'EdDSA')),
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL,
    -- Until then it is only published, so that everybody knows it when it is used.
    signs_from timestamptz NOT NULL
);
-- Of no tenant, and not for the role that serves requests.
GRANT SELECT, INSERT, DELETE, UPDATE (sealed) ON signing_keys TO dealstream_directory;
