-- One statement a second asks for all tenants that are followed whether their history has moved on.
CREATE POLICY directory ON histories FOR SELECT TO dealstream_directory USING (true);
GRANT SELECT ON histories TO dealstream_directory;
