//! Companies in the schema.

use async_graphql::{Context, InputObject, Object, SimpleObject};

use super::model::{CompanyOrderField, PostalAddress};
use super::{Company, CompanyById, queries};
use crate::auth::Permission;
use crate::crm::contacts::{Contact, ContactsByCompany};
use crate::crm::deals::{Deal, DealsByCompany};
use crate::crm::interactions::{Interaction, InteractionsByCompany};
use crate::crm::secrets::{self, BankAccount};
use crate::db::id::Id;
use crate::error::Result;
use crate::graphql::connection::{Cursor, nested, paged};
use crate::graphql::detail::{AddressLine, Detail, DetailFilter};
use crate::graphql::filter::{DateTimeFilter, IdFilter, StringFilter};
use crate::graphql::scalar::DateTime;
use crate::graphql::{Can, Connection, ContextExt, OrderDirection, PageArgs, Record};
use crate::identity::{User, UserById};

/// A business that your people are in touch with.
#[Object]
impl Company {
    /// The company's id, for example `company_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> Id<Company> {
        self.id
    }

    /// The company's name.
    async fn name(&self) -> &str {
        &self.name
    }

    /// The company's internet domain, for example `acme.example`.
    async fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// The industry that the company works in.
    async fn industry(&self) -> Option<&str> {
        self.industry.as_deref()
    }

    /// The company's general e-mail address; as `i•••@acme.example` for who lacks `CONTACT_DETAILS_READ`.
    async fn email(&self) -> Option<&Detail> {
        self.email.as_ref()
    }

    /// The company's telephone number; as `•••• 42` for who lacks `CONTACT_DETAILS_READ`.
    async fn phone(&self) -> Option<&Detail> {
        self.phone.as_ref()
    }

    /// The company's postal address; but for the country, `•••` for who lacks `CONTACT_DETAILS_READ`.
    async fn address(&self) -> Option<Address<'_>> {
        let PostalAddress {
            street,
            city,
            region,
            postal_code,
            country_code,
        } = self.address.as_ref()?;
        Some(Address {
            street: street.as_deref().map(AddressLine),
            city: city.as_deref().map(AddressLine),
            region: region.as_deref().map(AddressLine),
            postal_code: postal_code.as_deref().map(AddressLine),
            country_code: country_code.as_deref(),
        })
    }

    /// The company's tax id, without spaces and punctuation. Needs `SENSITIVE_READ`, and the audit trail records who sees it.
    /// Subscriptions do not send it.
    async fn tax_id(&self, ctx: &Context<'_>) -> Option<Result<String>> {
        secrets::tax_id(ctx, self.id).await
    }

    /// The company's bank account. Needs `SENSITIVE_READ`, and the audit trail records who sees it. Subscriptions do not
    /// send it.
    async fn bank_account(&self, ctx: &Context<'_>) -> Option<Result<BankAccount>> {
        secrets::bank_account(ctx, self.id).await
    }

    /// The user who looks after the company.
    async fn owner(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.owner_id).await
    }

    /// The people who work at the company, newest first.
    async fn contacts(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Contact>> {
        nested::<ContactsByCompany>(ctx, self.id, PageArgs::new(first, after, last, before)).await
    }

    /// The deals with the company, newest first.
    async fn deals(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Deal>> {
        nested::<DealsByCompany>(ctx, self.id, PageArgs::new(first, after, last, before)).await
    }

    /// The interactions with the company, latest first.
    async fn interactions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Interaction>> {
        nested::<InteractionsByCompany>(ctx, self.id, PageArgs::new(first, after, last, before)).await
    }

    /// When the company was added.
    async fn created_at(&self) -> DateTime {
        self.created_at.into()
    }

    /// When the company was last changed.
    async fn updated_at(&self) -> DateTime {
        self.updated_at.into()
    }

    /// Counts the changes of the company. Pass it as `expectedVersion` so as not to overwrite somebody else's change.
    async fn version(&self) -> i32 {
        self.version
    }
}

/// Where letters to a company go.
#[derive(SimpleObject)]
#[graphql(name = "PostalAddress")]
struct Address<'a> {
    /// Street and number, in as many lines as it takes.
    street: Option<AddressLine<'a>>,
    /// The city or town.
    city: Option<AddressLine<'a>>,
    /// The state, province or region.
    region: Option<AddressLine<'a>>,
    /// The postal code.
    postal_code: Option<AddressLine<'a>>,
    /// The country, as two letters of ISO 3166, for example `DE`.
    country_code: Option<&'a str>,
}

/// Which companies to list. All conditions must hold. One that is null is none, as if left out.
#[derive(Debug, Clone, Default, InputObject)]
pub struct CompanyFilter {
    /// By id.
    pub id: Option<IdFilter<Company>>,
    /// By name.
    pub name: Option<StringFilter>,
    /// By internet domain.
    pub domain: Option<StringFilter>,
    /// By industry.
    pub industry: Option<StringFilter>,
    /// By e-mail address. Needs `CONTACT_DETAILS_READ`.
    pub email: Option<DetailFilter>,
    /// By the user who looks after them.
    pub owner_id: Option<IdFilter<User>>,
    /// By when they were added.
    pub created_at: Option<DateTimeFilter>,
    /// By when they were last changed.
    pub updated_at: Option<DateTimeFilter>,
    /// All of these hold too.
    pub and: Option<Vec<CompanyFilter>>,
    /// At least one of these holds too.
    pub or: Option<Vec<CompanyFilter>>,
    /// This does not hold.
    pub not: Option<Box<CompanyFilter>>,
}

/// How to sort companies.
#[derive(Debug, Clone, InputObject)]
pub struct CompanyOrder {
    /// What to sort by.
    field: CompanyOrderField,
    /// Which end comes first.
    #[graphql(default_with = "OrderDirection::Asc")]
    direction: OrderDirection,
}

/// Companies at the root of the schema.
#[derive(Default)]
pub struct CompanyQuery;

#[Object]
impl CompanyQuery {
    /// A company by its id; null when there is none.
    async fn company(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the company.")] id: Id<Company>,
    ) -> Option<Result<Record<Company>>> {
        ctx.find::<CompanyById>(Permission::CompaniesRead, id).await
    }

    /// The tenant's companies, newest first unless ordered otherwise. `search` finds a text anywhere in name, domain
    /// or e-mail address; for who lacks `CONTACT_DETAILS_READ`, in the name.
    #[graphql(guard = "Can(Permission::CompaniesRead)")]
    #[expect(clippy::too_many_arguments, reason = "the schema's arguments")]
    async fn companies(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A text to find, in upper or lower case.")] search: Option<String>,
        #[graphql(desc = "Which companies to list; all of them when left out.")] filter: Option<
            Box<CompanyFilter>,
        >,
        #[graphql(desc = "How to sort them.")] order_by: Option<CompanyOrder>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Company>> {
        let order = order_by
            .map(|by| (by.field, by.direction))
            .unwrap_or((CompanyOrderField::CreatedAt, OrderDirection::Desc));
        let (args, viewer) = (PageArgs::new(first, after, last, before), ctx.viewer()?);
        paged(ctx, args, order, || {
            queries::listed(search.as_deref(), filter.as_deref().cloned(), &viewer.rights)
        })
        .await
    }
}
