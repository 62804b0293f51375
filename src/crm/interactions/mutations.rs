//! Changing interactions.

use std::sync::Arc;

use async_graphql::{Context, InputObject, MaybeUndefined, Object, SimpleObject};

use super::{Interaction, InteractionDirection, InteractionKind, queries};
use crate::auth::Permission;
use crate::crm::companies::Company;
use crate::crm::contacts::Contact;
use crate::crm::deals::Deal;
use crate::db::id::Id;
use crate::db::reach::Resource;
use crate::error::{Error, ProblemCode, Result};
use crate::graphql::input::{Check, Patch};
use crate::graphql::scalar::DateTime;
use crate::graphql::{Can, Outcome, Shown, mutate, reach};

/// An interaction to be recorded or planned. It belongs to a contact, a company or a deal, or to several of them: at
/// least one of `contactId`, `companyId` and `dealId` is needed.
#[derive(Debug, InputObject)]
pub struct CreateInteractionInput {
    /// What sort of interaction it is.
    kind: InteractionKind,
    /// Who began it.
    direction: Option<InteractionDirection>,
    /// The means by which it takes place, for example `Video conference`.
    channel: Option<String>,
    /// What it is about; 200 characters at most.
    subject: String,
    /// What was said or written; 20,000 characters at most.
    content: Option<String>,
    /// What came of it; 20,000 characters at most.
    outcome: Option<String>,
    /// What is to be done next; 200 characters at most.
    next_action: Option<String>,
    /// The time that it is planned for. An interaction that is planned for the future is not completed yet.
    scheduled_at: Option<DateTime>,
    /// When it happened: by default the planned time, or else now.
    occurred_at: Option<DateTime>,
    /// When it was completed: by default when it happened, unless it is planned for the future.
    completed_at: Option<DateTime>,
    /// The person that it is with.
    contact_id: Option<Id<Contact>>,
    /// The company that it is with.
    company_id: Option<Id<Company>>,
    /// The deal that it is about.
    deal_id: Option<Id<Deal>>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// Changes of an interaction. What is left out stays as it is; null takes a value away that may be missing.
#[derive(Debug, InputObject)]
pub struct UpdateInteractionInput {
    /// The interaction to change.
    interaction_id: Id<Interaction>,
    /// What sort of interaction it is.
    kind: MaybeUndefined<InteractionKind>,
    /// Who began it.
    direction: MaybeUndefined<InteractionDirection>,
    /// The means by which it takes place.
    channel: MaybeUndefined<String>,
    /// What it is about; 200 characters at most.
    subject: MaybeUndefined<String>,
    /// What was said or written; 20,000 characters at most.
    content: MaybeUndefined<String>,
    /// What came of it; 20,000 characters at most.
    outcome: MaybeUndefined<String>,
    /// What is to be done next; 200 characters at most.
    next_action: MaybeUndefined<String>,
    /// The time that it is planned for. While it is only planned, `occurredAt` follows.
    scheduled_at: MaybeUndefined<DateTime>,
    /// When it happened.
    occurred_at: MaybeUndefined<DateTime>,
    /// When it was completed. Null makes it an interaction that is still to come.
    completed_at: MaybeUndefined<DateTime>,
    /// The person that it is with.
    contact_id: MaybeUndefined<Id<Contact>>,
    /// The company that it is with.
    company_id: MaybeUndefined<Id<Company>>,
    /// The deal that it is about.
    deal_id: MaybeUndefined<Id<Deal>>,
    /// The version that you know. When the interaction has changed since, nothing is done and `CONFLICT` tells what
    /// differs.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// An interaction that is done.
#[derive(Debug, InputObject)]
pub struct CompleteInteractionInput {
    /// The interaction to complete.
    interaction_id: Id<Interaction>,
    /// What came of it; 20,000 characters at most. Left out, it stays as it is.
    outcome: Option<String>,
    /// What is to be done next; 200 characters at most. Left out, it stays as it is.
    next_action: Option<String>,
    /// When it was completed: by default now.
    completed_at: Option<DateTime>,
    /// The version that you know. When the interaction has changed since, nothing is done and `CONFLICT` tells what
    /// differs.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// An interaction to be deleted.
#[derive(Debug, InputObject)]
pub struct DeleteInteractionInput {
    /// The interaction to delete.
    interaction_id: Id<Interaction>,
    /// The version that you know. When the interaction has changed since, nothing is done.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// The answer to `createInteraction`.
#[derive(SimpleObject)]
pub struct CreateInteractionPayload {
    /// The new interaction; null when there are `userErrors`.
    interaction: Option<Shown<queries::InteractionById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `updateInteraction`.
#[derive(SimpleObject)]
pub struct UpdateInteractionPayload {
    /// The interaction as it is now; null when there are `userErrors`.
    interaction: Option<Shown<queries::InteractionById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `completeInteraction`.
#[derive(SimpleObject)]
pub struct CompleteInteractionPayload {
    /// The interaction as it is now; null when there are `userErrors`.
    interaction: Option<Shown<queries::InteractionById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `deleteInteraction`.
#[derive(SimpleObject)]
pub struct DeleteInteractionPayload {
    /// The id of the interaction that is no more; null when there are `userErrors`.
    deleted_interaction_id: Option<Id<Interaction>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

fn check_about_something(check: &mut Check, interaction: &Interaction) {
    if !interaction.is_about_something() {
        let message = "An interaction needs a contact, a company or a deal that it belongs to.";
        // No single field is at fault, so the problem is the whole input's.
        check.problem("", ProblemCode::Required, message);
    }
}

/// Mutations of interactions.
#[derive(Default)]
pub struct InteractionMutation;

#[Object]
impl InteractionMutation {
    /// Records an interaction that has happened, or plans one that is to come.
    #[graphql(guard = "Can(Permission::InteractionsWrite)")]
    async fn create_interaction(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to add.")] input: CreateInteractionInput,
    ) -> Result<CreateInteractionPayload> {
        let key = input.idempotency_key.clone();
        let (interaction, outcome) = mutate(ctx, "createInteraction", key, async |work| {
            let mut check = Check::default();
            let scheduled_at = check.moment("scheduledAt", input.scheduled_at);
            let occurred_at = check.moment("occurredAt", input.occurred_at);
            let occurred_at = occurred_at.or(scheduled_at).unwrap_or(work.now());
            let completed_at = check.moment("completedAt", input.completed_at);
            let is_to_come = scheduled_at.is_some_and(|scheduled_at| scheduled_at > work.now());
            let interaction = Interaction {
                id: Id::generate(),
                kind: input.kind,
                direction: input.direction,
                channel: check.optional_line("channel", input.channel),
                subject: check.line("subject", &input.subject),
                content: check.optional_text("content", input.content),
                outcome: check.optional_text("outcome", input.outcome),
                next_action: check.optional_line("nextAction", input.next_action),
                scheduled_at,
                occurred_at,
                completed_at: completed_at.or((!is_to_come).then_some(occurred_at)),
                contact_id: input.contact_id,
                company_id: input.company_id,
                deal_id: input.deal_id,
                created_by_id: work.actor_id().map(Id::from_uuid),
                created_at: work.now(),
                updated_at: work.now(),
                version: 1,
            };
            check_about_something(&mut check, &interaction);
            check.done()?;
            let references = [
                (
                    "contactId",
                    Resource::Contacts,
                    interaction.contact_id.map(Id::uuid),
                ),
                (
                    "companyId",
                    Resource::Companies,
                    interaction.company_id.map(Id::uuid),
                ),
                ("dealId", Resource::Deals, interaction.deal_id.map(Id::uuid)),
            ];
            reach::check_references(work, &references).await?;
            queries::insert(work, &interaction).await?;
            work.record(interaction.id, "CREATED", &interaction)?;
            Ok(Arc::new(interaction))
        })
        .await?;
        Ok(CreateInteractionPayload {
            interaction: interaction.map(Shown),
            outcome,
        })
    }

    /// Changes an interaction. To complete one, use `completeInteraction`.
    #[graphql(guard = "Can(Permission::InteractionsWrite)")]
    async fn update_interaction(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: UpdateInteractionInput,
    ) -> Result<UpdateInteractionPayload> {
        let key = input.idempotency_key.clone();
        let (interaction, outcome) = mutate(ctx, "updateInteraction", key, async |work| {
            let mut interaction =
                queries::find_for_update(work, input.interaction_id, "interactionId").await?;
            let (mut check, mut patch) = (Check::default(), Patch::default());
            let (was_planned, was_completed) = (interaction.is_planned(), interaction.completed_at.is_some());
            patch.set("kind", &mut interaction.kind, check.given("kind", input.kind));
            patch.set_or_clear("direction", &mut interaction.direction, input.direction);
            let channel = check.patch("channel", input.channel, Check::optional_line);
            patch.set_or_clear("channel", &mut interaction.channel, channel);
            let subject = check.given_line("subject", input.subject);
            patch.set("subject", &mut interaction.subject, subject);
            let content = check.patch("content", input.content, Check::optional_text);
            patch.set_or_clear("content", &mut interaction.content, content);
            let outcome = check.patch("outcome", input.outcome, Check::optional_text);
            patch.set_or_clear("outcome", &mut interaction.outcome, outcome);
            let next_action = check.patch("nextAction", input.next_action, Check::optional_line);
            patch.set_or_clear("nextAction", &mut interaction.next_action, next_action);
            let scheduled_at = check.patch("scheduledAt", input.scheduled_at, Check::moment);
            let planned_at = scheduled_at.value().copied().filter(|_| was_planned);
            patch.set_or_clear("scheduledAt", &mut interaction.scheduled_at, scheduled_at);
            let occurred_at = check.given("occurredAt", input.occurred_at);
            let occurred_at = check.moment("occurredAt", occurred_at).or(planned_at);
            patch.set("occurredAt", &mut interaction.occurred_at, occurred_at);
            let completed_at = check.patch("completedAt", input.completed_at, Check::moment);
            patch.set_or_clear("completedAt", &mut interaction.completed_at, completed_at);
            let references = [
                (
                    "contactId",
                    Resource::Contacts,
                    input.contact_id.value().map(|id| id.uuid()),
                ),
                (
                    "companyId",
                    Resource::Companies,
                    input.company_id.value().map(|id| id.uuid()),
                ),
                (
                    "dealId",
                    Resource::Deals,
                    input.deal_id.value().map(|id| id.uuid()),
                ),
            ];
            patch.set_or_clear("contactId", &mut interaction.contact_id, input.contact_id);
            patch.set_or_clear("companyId", &mut interaction.company_id, input.company_id);
            patch.set_or_clear("dealId", &mut interaction.deal_id, input.deal_id);
            check_about_something(&mut check, &interaction);
            patch.expect_version(input.expected_version, interaction.version)?;
            check.done()?;
            if !patch.is_empty() {
                interaction.version += 1;
                interaction.updated_at = work.now();
                reach::check_references(work, &references).await?;
                queries::update(work, &interaction).await?;
                // Who waits for completions need not know by which mutation they come.
                let completes = interaction.completed_at.is_some() && !was_completed;
                let kind = if completes { "COMPLETED" } else { "UPDATED" };
                work.record(interaction.id, kind, &patch.change(&interaction))?;
            }
            Ok(Arc::new(interaction))
        })
        .await?;
        Ok(UpdateInteractionPayload {
            interaction: interaction.map(Shown),
            outcome,
        })
    }

    /// Completes an interaction that was still to come. If it was only planned, it counts as having happened when it was
    /// completed. Refused with `NOT_ALLOWED` when it is completed already.
    #[graphql(guard = "Can(Permission::InteractionsWrite)")]
    async fn complete_interaction(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which interaction to complete.")] input: CompleteInteractionInput,
    ) -> Result<CompleteInteractionPayload> {
        let key = input.idempotency_key.clone();
        let (interaction, outcome) = mutate(ctx, "completeInteraction", key, async |work| {
            let mut interaction =
                queries::find_for_update(work, input.interaction_id, "interactionId").await?;
            if interaction.completed_at.is_some() {
                let message = "The interaction is completed already.";
                return Err(Error::invalid("interactionId", ProblemCode::NotAllowed, message));
            }
            let (mut check, mut patch) = (Check::default(), Patch::default());
            let outcome = check.optional_text("outcome", input.outcome);
            patch.set("outcome", &mut interaction.outcome, outcome.map(Some));
            let next_action = check.optional_line("nextAction", input.next_action);
            patch.set("nextAction", &mut interaction.next_action, next_action.map(Some));
            let completed_at = check
                .moment("completedAt", input.completed_at)
                .unwrap_or(work.now());
            let happened_at = interaction.is_planned().then_some(completed_at);
            patch.set("occurredAt", &mut interaction.occurred_at, happened_at);
            patch.set(
                "completedAt",
                &mut interaction.completed_at,
                Some(Some(completed_at)),
            );
            patch.expect_version(input.expected_version, interaction.version)?;
            check.done()?;
            interaction.version += 1;
            interaction.updated_at = work.now();
            queries::update(work, &interaction).await?;
            work.record(interaction.id, "COMPLETED", &patch.change(&interaction))?;
            Ok(Arc::new(interaction))
        })
        .await?;
        Ok(CompleteInteractionPayload {
            interaction: interaction.map(Shown),
            outcome,
        })
    }

    /// Deletes an interaction.
    #[graphql(guard = "Can(Permission::InteractionsDelete)")]
    async fn delete_interaction(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to delete.")] input: DeleteInteractionInput,
    ) -> Result<DeleteInteractionPayload> {
        let key = input.idempotency_key.clone();
        let (deleted_interaction_id, outcome) = mutate(ctx, "deleteInteraction", key, async |work| {
            let interaction = queries::find_for_update(work, input.interaction_id, "interactionId").await?;
            Patch::default().expect_version(input.expected_version, interaction.version)?;
            queries::delete(work, interaction.id).await?;
            work.record(interaction.id, "DELETED", &interaction)?;
            Ok(interaction.id)
        })
        .await?;
        Ok(DeleteInteractionPayload {
            deleted_interaction_id,
            outcome,
        })
    }
}
