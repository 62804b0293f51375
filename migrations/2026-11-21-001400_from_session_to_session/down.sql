REVOKE SELECT (expires_at, by_second_factor) ON sessions FROM dealstream_directory;
