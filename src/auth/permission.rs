//! The whole policy: which role may do what.

use async_graphql::Enum;

use crate::db::text_enum::text_enum;

text_enum! {
    /// What a user may do in a tenant. See `viewer { permissions }` for what each role permits.
    #[derive(Enum)]
    pub enum Role {
        /// Everything, the tenant's settings and users included.
        Admin = "ADMIN",
        /// All records, pipelines included.
        Manager = "MANAGER",
        /// Companies, contacts, deals and interactions.
        Sales = "SALES",
        /// Companies, contacts and interactions; deals to read.
        Marketing = "MARKETING",
        /// Everything to read, nothing to change; contact details are masked.
        Viewer = "VIEWER",
        /// What a role of the tenant's own permits, and nothing else.
        Custom = "CUSTOM",
    }
}

text_enum! {
    /// The right to do one thing with one kind of record.
    #[derive(Enum)]
    pub enum Permission {
        /// See the tenant's name and settings, and follow their changes.
        TenantRead = "TENANT_READ",
        /// Change the tenant's name and settings.
        TenantWrite = "TENANT_WRITE",
        /// See the tenant's users and follow their changes.
        UsersRead = "USERS_READ",
        /// Change the tenant's users and their roles.
        UsersWrite = "USERS_WRITE",
        /// See companies and follow their changes.
        CompaniesRead = "COMPANIES_READ",
        /// Create and change companies.
        CompaniesWrite = "COMPANIES_WRITE",
        /// Delete companies.
        CompaniesDelete = "COMPANIES_DELETE",
        /// See contacts and follow their changes.
        ContactsRead = "CONTACTS_READ",
        /// Create and change contacts.
        ContactsWrite = "CONTACTS_WRITE",
        /// Delete contacts.
        ContactsDelete = "CONTACTS_DELETE",
        /// See pipelines and their stages, and follow their changes.
        PipelinesRead = "PIPELINES_READ",
        /// Create, change and delete pipelines and their stages.
        PipelinesWrite = "PIPELINES_WRITE",
        /// See deals and follow their changes.
        DealsRead = "DEALS_READ",
        /// Create, change and move deals.
        DealsWrite = "DEALS_WRITE",
        /// Delete deals.
        DealsDelete = "DEALS_DELETE",
        /// See interactions and follow their changes.
        InteractionsRead = "INTERACTIONS_READ",
        /// Record, change and complete interactions.
        InteractionsWrite = "INTERACTIONS_WRITE",
        /// Delete interactions.
        InteractionsDelete = "INTERACTIONS_DELETE",
        /// See e-mail addresses, telephone numbers and postal addresses of contacts and companies, which are masked
        /// otherwise.
        ContactDetailsRead = "CONTACT_DETAILS_READ",
        /// See highly sensitive fields, such as tax ids and bank details.
        SensitiveRead = "SENSITIVE_READ",
        /// Change highly sensitive fields.
        SensitiveWrite = "SENSITIVE_WRITE",
        /// Create, change and delete the tenant's own roles.
        RolesWrite = "ROLES_WRITE",
        /// Create, change and delete teams, and say who leads them and who is in them.
        TeamsWrite = "TEAMS_WRITE",
        /// See, create and revoke keys with which other programs use this API.
        ApiKeysWrite = "API_KEYS_WRITE",
        /// Find out whether an access token is valid, whose it is and what it permits: for other services that users send
        /// their tokens to.
        TokensRead = "TOKENS_READ",
        /// See who did what, when and from where, about every record of the tenant; and old and new values where all
        /// records of that kind may be read.
        AuditRead = "AUDIT_READ",
    }
}

impl Permission {
    /// The name that clients see, for example `DEALS_WRITE`.
    pub fn name(self) -> &'static str {
        self.as_str()
    }
}

impl Role {
    /// The roles that every tenant has.
    pub const BUILT_IN: [Self; 5] = [
        Self::Admin,
        Self::Manager,
        Self::Sales,
        Self::Marketing,
        Self::Viewer,
    ];

    /// Whether this role permits it. One line a role; what is not named is not permitted.
    pub fn permits(self, permission: Permission) -> bool {
        use Permission as P;
        // What is an admin's alone, unless a role of the tenant's own has it.
        let reserved = matches!(
            permission,
            P::TenantWrite
                | P::UsersWrite
                | P::RolesWrite
                | P::TeamsWrite
                | P::ApiKeysWrite
                | P::AuditRead
                | P::TokensRead
                | P::SensitiveRead
                | P::SensitiveWrite
        );
        let reads = !reserved && permission.name().ends_with("_READ");
        match self {
            Self::Admin => true,
            Self::Manager => !reserved,
            Self::Sales => {
                reads
                    || matches!(
                        permission,
                        P::CompaniesWrite | P::ContactsWrite | P::DealsWrite | P::InteractionsWrite
                    )
                    || matches!(permission, P::DealsDelete | P::InteractionsDelete)
            }
            Self::Marketing => {
                reads
                    || matches!(
                        permission,
                        P::CompaniesWrite | P::ContactsWrite | P::InteractionsWrite
                    )
            }
            Self::Viewer => reads && permission != P::ContactDetailsRead,
            // By itself it is but a word.
            Self::Custom => false,
        }
    }

    /// Everything this role permits, in the order of the policy.
    pub fn permissions(self) -> Vec<Permission> {
        Permission::ALL
            .iter()
            .copied()
            .filter(|permission| self.permits(*permission))
            .collect()
    }
}
