//! Changing companies.

use std::sync::Arc;

use async_graphql::{Context, InputObject, MaybeUndefined, Object, SimpleObject};

use super::model::PostalAddress;
use super::{Company, queries};
use crate::auth::Permission;
use crate::db::id::Id;
use crate::db::reach::Resource;
use crate::error::{ProblemCode, Result};
use crate::graphql::detail::Detail;
use crate::graphql::input::{Check, Patch};
use crate::graphql::{Can, Outcome, Shown, mutate, reach};
use crate::identity::User;

/// A company to be added.
#[derive(Debug, InputObject)]
pub struct CreateCompanyInput {
    /// The name; 200 characters at most.
    name: String,
    /// The internet domain, for example `acme.example`.
    domain: Option<String>,
    /// The industry that the company works in.
    industry: Option<String>,
    /// The general e-mail address.
    email: Option<String>,
    /// The telephone number.
    phone: Option<String>,
    /// The postal address.
    address: Option<PostalAddressInput>,
    /// The user who looks after the company.
    owner_id: Option<Id<User>>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// Changes of a company. What is left out stays as it is; null takes a value away that may be missing.
#[derive(Debug, InputObject)]
pub struct UpdateCompanyInput {
    /// The company to change.
    company_id: Id<Company>,
    /// The name; 200 characters at most.
    name: MaybeUndefined<String>,
    /// The internet domain.
    domain: MaybeUndefined<String>,
    /// The industry that the company works in.
    industry: MaybeUndefined<String>,
    /// The general e-mail address.
    email: MaybeUndefined<String>,
    /// The telephone number.
    phone: MaybeUndefined<String>,
    /// The postal address, as a whole.
    address: MaybeUndefined<PostalAddressInput>,
    /// The user who looks after the company.
    owner_id: MaybeUndefined<Id<User>>,
    /// The version that you know. When the company has changed since, nothing is done and `CONFLICT` tells what differs.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// A company to be deleted.
#[derive(Debug, InputObject)]
pub struct DeleteCompanyInput {
    /// The company to delete.
    company_id: Id<Company>,
    /// The version that you know. When the company has changed since, nothing is done.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// Where letters go.
#[derive(Debug, InputObject)]
pub struct PostalAddressInput {
    /// Street and number, in as many lines as it takes.
    street: Option<String>,
    /// The city or town.
    city: Option<String>,
    /// The state, province or region.
    region: Option<String>,
    /// The postal code.
    postal_code: Option<String>,
    /// The country, as two letters of ISO 3166, for example `DE`.
    country_code: Option<String>,
}

/// The answer to `createCompany`.
#[derive(SimpleObject)]
pub struct CreateCompanyPayload {
    /// The new company; null when there are `userErrors`.
    company: Option<Shown<queries::CompanyById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `updateCompany`.
#[derive(SimpleObject)]
pub struct UpdateCompanyPayload {
    /// The company as it is now; null when there are `userErrors`.
    company: Option<Shown<queries::CompanyById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `deleteCompany`.
#[derive(SimpleObject)]
pub struct DeleteCompanyPayload {
    /// The id of the company that is no more; null when there are `userErrors`.
    deleted_company_id: Option<Id<Company>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

impl PostalAddressInput {
    fn checked(self, check: &mut Check) -> PostalAddress {
        let country_code = check.optional_line("address.countryCode", self.country_code);
        if country_code
            .as_ref()
            .is_some_and(|code| code.len() != 2 || !code.bytes().all(|b| b.is_ascii_uppercase()))
        {
            check.problem(
                "address.countryCode",
                ProblemCode::Invalid,
                "A country is two letters, for example DE.",
            );
        }
        PostalAddress {
            street: check.optional_text("address.street", self.street),
            city: check.optional_line("address.city", self.city),
            region: check.optional_line("address.region", self.region),
            postal_code: check.optional_line("address.postalCode", self.postal_code),
            country_code,
        }
    }
}

/// Mutations of companies.
#[derive(Default)]
pub struct CompanyMutation;

#[Object]
impl CompanyMutation {
    /// Adds a company.
    #[graphql(guard = "Can(Permission::CompaniesWrite)")]
    async fn create_company(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to add.")] input: CreateCompanyInput,
    ) -> Result<CreateCompanyPayload> {
        let key = input.idempotency_key.clone();
        let (company, outcome) = mutate(ctx, "createCompany", key, async |work| {
            let mut check = Check::default();
            let company = Company {
                id: Id::generate(),
                name: check.line("name", &input.name),
                domain: check.optional_domain("domain", input.domain),
                industry: check.optional_line("industry", input.industry),
                email: check.optional_email("email", input.email).map(Detail::from),
                phone: check.optional_line("phone", input.phone).map(Detail::from),
                address: input.address.map(|address| address.checked(&mut check)),
                owner_id: reach::owner(work, Resource::Companies, input.owner_id),
                created_at: work.now(),
                updated_at: work.now(),
                version: 1,
            };
            check.done()?;
            queries::insert(work, &company).await?;
            work.record(company.id, "CREATED", &company)?;
            Ok(Arc::new(company))
        })
        .await?;
        Ok(CreateCompanyPayload {
            company: company.map(Shown),
            outcome,
        })
    }

    /// Changes a company.
    #[graphql(guard = "Can(Permission::CompaniesWrite)")]
    async fn update_company(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: UpdateCompanyInput,
    ) -> Result<UpdateCompanyPayload> {
        let key = input.idempotency_key.clone();
        let (company, outcome) = mutate(ctx, "updateCompany", key, async |work| {
            let mut company = queries::find_for_update(work, input.company_id, "companyId").await?;
            let (mut check, mut patch) = (Check::default(), Patch::default());
            patch.set("name", &mut company.name, check.given_line("name", input.name));
            let domain = check.patch("domain", input.domain, Check::optional_domain);
            patch.set_or_clear("domain", &mut company.domain, domain);
            let industry = check.patch("industry", input.industry, Check::optional_line);
            patch.set_or_clear("industry", &mut company.industry, industry);
            let email = check.patch("email", input.email, Check::optional_email);
            patch.set_or_clear("email", &mut company.email, email.map_value(Detail::from));
            let phone = check.patch("phone", input.phone, Check::optional_line);
            patch.set_or_clear("phone", &mut company.phone, phone.map_value(Detail::from));
            let address = input.address.map_value(|address| address.checked(&mut check));
            patch.set_or_clear("address", &mut company.address, address);
            patch.set_or_clear("ownerId", &mut company.owner_id, input.owner_id);
            patch.expect_version(input.expected_version, company.version)?;
            check.done()?;
            if !patch.is_empty() {
                company.version += 1;
                company.updated_at = work.now();
                queries::update(work, &company).await?;
                work.record(company.id, "UPDATED", &patch.change(&company))?;
            }
            Ok(Arc::new(company))
        })
        .await?;
        Ok(UpdateCompanyPayload {
            company: company.map(Shown),
            outcome,
        })
    }

    /// Deletes a company. Refused with `IN_USE` while contacts, deals or interactions refer to it.
    #[graphql(guard = "Can(Permission::CompaniesDelete)")]
    async fn delete_company(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to delete.")] input: DeleteCompanyInput,
    ) -> Result<DeleteCompanyPayload> {
        let key = input.idempotency_key.clone();
        let (deleted_company_id, outcome) = mutate(ctx, "deleteCompany", key, async |work| {
            let company = queries::find_for_update(work, input.company_id, "companyId").await?;
            Patch::default().expect_version(input.expected_version, company.version)?;
            queries::delete(work, company.id).await?;
            work.record(company.id, "DELETED", &company)?;
            Ok(company.id)
        })
        .await?;
        Ok(DeleteCompanyPayload {
            deleted_company_id,
            outcome,
        })
    }
}
