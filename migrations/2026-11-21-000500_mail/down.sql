ALTER TABLE tenants DROP COLUMN min_password_length, DROP COLUMN time_zone;
DROP TABLE invitations;
ALTER TABLE users DROP COLUMN awaits_verification;
ALTER TABLE accounts DROP COLUMN password_is_initial, DROP COLUMN email_verified_at;
DROP TABLE links;
DROP TABLE mails;
