REVOKE SELECT ON histories FROM dealstream_directory;
DROP POLICY directory ON histories;
