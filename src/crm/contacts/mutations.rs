//! Changing contacts.

use std::sync::Arc;

use async_graphql::{Context, InputObject, MaybeUndefined, Object, SimpleObject};

use super::model::RATING;
use super::{Contact, LifecycleStage, RecordStatus, queries};
use crate::auth::Permission;
use crate::crm::companies::Company;
use crate::db::id::Id;
use crate::db::reach::Resource;
use crate::error::Result;
use crate::graphql::detail::Detail;
use crate::graphql::input::{Check, Patch};
use crate::graphql::{Can, Outcome, Shown, mutate, reach};
use crate::identity::User;

/// A contact to be added.
#[derive(Debug, InputObject)]
pub struct CreateContactInput {
    /// The full name; 200 characters at most.
    name: String,
    /// The e-mail address.
    email: Option<String>,
    /// The telephone number.
    phone: Option<String>,
    /// What the contact does at the company.
    job_title: Option<String>,
    /// The company that the contact works at.
    company_id: Option<Id<Company>>,
    /// How far the contact has come on the way to being a customer.
    #[graphql(default_with = "LifecycleStage::Lead")]
    lifecycle_stage: LifecycleStage,
    /// Whether the contact is worked with.
    #[graphql(default_with = "RecordStatus::Active")]
    record_status: RecordStatus,
    /// Where the contact came from, for example `Trade fair`.
    source: Option<String>,
    /// How promising the contact is, from 0 to 5.
    rating: Option<i32>,
    /// What else there is to know; 20,000 characters at most.
    notes: Option<String>,
    /// The user who looks after the contact.
    owner_id: Option<Id<User>>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// Changes of a contact. What is left out stays as it is; null takes a value away that may be missing.
#[derive(Debug, InputObject)]
pub struct UpdateContactInput {
    /// The contact to change.
    contact_id: Id<Contact>,
    /// The full name; 200 characters at most.
    name: MaybeUndefined<String>,
    /// The e-mail address.
    email: MaybeUndefined<String>,
    /// The telephone number.
    phone: MaybeUndefined<String>,
    /// What the contact does at the company.
    job_title: MaybeUndefined<String>,
    /// The company that the contact works at.
    company_id: MaybeUndefined<Id<Company>>,
    /// How far the contact has come on the way to being a customer.
    lifecycle_stage: MaybeUndefined<LifecycleStage>,
    /// Whether the contact is worked with.
    record_status: MaybeUndefined<RecordStatus>,
    /// Where the contact came from.
    source: MaybeUndefined<String>,
    /// How promising the contact is, from 0 to 5.
    rating: MaybeUndefined<i32>,
    /// What else there is to know; 20,000 characters at most.
    notes: MaybeUndefined<String>,
    /// The user who looks after the contact.
    owner_id: MaybeUndefined<Id<User>>,
    /// The version that you know. When the contact has changed since, nothing is done and `CONFLICT` tells what differs.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// A contact to be deleted.
#[derive(Debug, InputObject)]
pub struct DeleteContactInput {
    /// The contact to delete.
    contact_id: Id<Contact>,
    /// The version that you know. When the contact has changed since, nothing is done.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// The answer to `createContact`.
#[derive(SimpleObject)]
pub struct CreateContactPayload {
    /// The new contact; null when there are `userErrors`.
    contact: Option<Shown<queries::ContactById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `updateContact`.
#[derive(SimpleObject)]
pub struct UpdateContactPayload {
    /// The contact as it is now; null when there are `userErrors`.
    contact: Option<Shown<queries::ContactById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `deleteContact`.
#[derive(SimpleObject)]
pub struct DeleteContactPayload {
    /// The id of the contact that is no more; null when there are `userErrors`.
    deleted_contact_id: Option<Id<Contact>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// Mutations of contacts.
#[derive(Default)]
pub struct ContactMutation;

#[Object]
impl ContactMutation {
    /// Adds a contact.
    #[graphql(guard = "Can(Permission::ContactsWrite)")]
    async fn create_contact(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to add.")] input: CreateContactInput,
    ) -> Result<CreateContactPayload> {
        let key = input.idempotency_key.clone();
        let (contact, outcome) = mutate(ctx, "createContact", key, async |work| {
            let mut check = Check::default();
            check.range("rating", input.rating, RATING);
            let contact = Contact {
                id: Id::generate(),
                name: check.line("name", &input.name),
                email: check.optional_email("email", input.email).map(Detail::from),
                phone: check.optional_line("phone", input.phone).map(Detail::from),
                job_title: check.optional_line("jobTitle", input.job_title),
                company_id: input.company_id,
                lifecycle_stage: input.lifecycle_stage,
                record_status: input.record_status,
                source: check.optional_line("source", input.source),
                rating: input.rating,
                notes: check.optional_text("notes", input.notes),
                owner_id: reach::owner(work, Resource::Contacts, input.owner_id),
                created_at: work.now(),
                updated_at: work.now(),
                version: 1,
            };
            check.done()?;
            let company = ("companyId", Resource::Companies, contact.company_id.map(Id::uuid));
            reach::check_references(work, &[company]).await?;
            queries::insert(work, &contact).await?;
            work.record(contact.id, "CREATED", &contact)?;
            Ok(Arc::new(contact))
        })
        .await?;
        Ok(CreateContactPayload {
            contact: contact.map(Shown),
            outcome,
        })
    }

    /// Changes a contact.
    #[graphql(guard = "Can(Permission::ContactsWrite)")]
    async fn update_contact(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: UpdateContactInput,
    ) -> Result<UpdateContactPayload> {
        let key = input.idempotency_key.clone();
        let (contact, outcome) = mutate(ctx, "updateContact", key, async |work| {
            let mut contact = queries::find_for_update(work, input.contact_id, "contactId").await?;
            let (mut check, mut patch) = (Check::default(), Patch::default());
            patch.set("name", &mut contact.name, check.given_line("name", input.name));
            let email = check.patch("email", input.email, Check::optional_email);
            patch.set_or_clear("email", &mut contact.email, email.map_value(Detail::from));
            let phone = check.patch("phone", input.phone, Check::optional_line);
            patch.set_or_clear("phone", &mut contact.phone, phone.map_value(Detail::from));
            let job_title = check.patch("jobTitle", input.job_title, Check::optional_line);
            patch.set_or_clear("jobTitle", &mut contact.job_title, job_title);
            let company = (
                "companyId",
                Resource::Companies,
                input.company_id.value().map(|id| id.uuid()),
            );
            patch.set_or_clear("companyId", &mut contact.company_id, input.company_id);
            patch.set(
                "lifecycleStage",
                &mut contact.lifecycle_stage,
                check.given("lifecycleStage", input.lifecycle_stage),
            );
            let record_status = check.given("recordStatus", input.record_status);
            patch.set("recordStatus", &mut contact.record_status, record_status);
            let source = check.patch("source", input.source, Check::optional_line);
            patch.set_or_clear("source", &mut contact.source, source);
            check.range("rating", input.rating.value().copied(), RATING);
            patch.set_or_clear("rating", &mut contact.rating, input.rating);
            let notes = check.patch("notes", input.notes, Check::optional_text);
            patch.set_or_clear("notes", &mut contact.notes, notes);
            patch.set_or_clear("ownerId", &mut contact.owner_id, input.owner_id);
            patch.expect_version(input.expected_version, contact.version)?;
            check.done()?;
            if !patch.is_empty() {
                contact.version += 1;
                contact.updated_at = work.now();
                reach::check_references(work, &[company]).await?;
                queries::update(work, &contact).await?;
                work.record(contact.id, "UPDATED", &patch.change(&contact))?;
            }
            Ok(Arc::new(contact))
        })
        .await?;
        Ok(UpdateContactPayload {
            contact: contact.map(Shown),
            outcome,
        })
    }

    /// Deletes a contact. Refused with `IN_USE` while deals or interactions refer to it.
    #[graphql(guard = "Can(Permission::ContactsDelete)")]
    async fn delete_contact(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to delete.")] input: DeleteContactInput,
    ) -> Result<DeleteContactPayload> {
        let key = input.idempotency_key.clone();
        let (deleted_contact_id, outcome) = mutate(ctx, "deleteContact", key, async |work| {
            let contact = queries::find_for_update(work, input.contact_id, "contactId").await?;
            Patch::default().expect_version(input.expected_version, contact.version)?;
            queries::delete(work, contact.id).await?;
            work.record(contact.id, "DELETED", &contact)?;
            Ok(contact.id)
        })
        .await?;
        Ok(DeleteContactPayload {
            deleted_contact_id,
            outcome,
        })
    }
}
