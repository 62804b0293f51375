DROP TABLE sessions;
ALTER TABLE tenants DROP COLUMN session_days, DROP COLUMN idle_minutes;
