REVOKE SELECT ON __diesel_schema_migrations FROM dealstream_app;
