-- Who is invited can be given a role of the tenant's own.
ALTER TABLE invitations ADD COLUMN custom_role_id uuid;
ALTER TABLE invitations DROP CONSTRAINT invitations_role_check;
ALTER TABLE invitations
    ADD CONSTRAINT invitations_role_check CHECK (role IN ('ADMIN', 'MANAGER', 'SALES', 'MARKETING', 'VIEWER', 'CUSTOM')),
    ADD CONSTRAINT invitations_custom_role_check CHECK ((role = 'CUSTOM') = (custom_role_id IS NOT NULL)),
    ADD CONSTRAINT invitations_custom_role_id_fkey
        FOREIGN KEY (tenant_id, custom_role_id) REFERENCES custom_roles (tenant_id, id);

-- An API key acts with its user's rights, which are looked up before the tenant is known.
CREATE POLICY directory ON custom_roles FOR SELECT TO dealstream_directory USING (true);
GRANT SELECT ON custom_roles TO dealstream_directory;
