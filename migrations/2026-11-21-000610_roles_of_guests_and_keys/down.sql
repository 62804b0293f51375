REVOKE SELECT ON custom_roles FROM dealstream_directory;
DROP POLICY directory ON custom_roles;
ALTER TABLE invitations NO FORCE ROW LEVEL SECURITY;
DELETE FROM invitations WHERE role = 'CUSTOM';
ALTER TABLE invitations FORCE ROW LEVEL SECURITY;
ALTER TABLE invitations DROP CONSTRAINT invitations_role_check,
    ADD CONSTRAINT invitations_role_check CHECK (role IN ('ADMIN', 'MANAGER', 'SALES', 'MARKETING', 'VIEWER'));
ALTER TABLE invitations DROP COLUMN custom_role_id;
