-- A login that may serve and not migrate can see that nothing is missing.
GRANT SELECT ON __diesel_schema_migrations TO dealstream_app;
