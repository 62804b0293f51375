-- Whoever goes from one tenant to another has a session there for no longer than the one that they come from.
GRANT SELECT (expires_at, by_second_factor) ON sessions TO dealstream_directory;
