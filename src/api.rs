//! The schema's roots: every feature merged, a line each.

pub mod changes;

use std::sync::Arc;

use async_graphql::{Context, Interface, MergedObject, MergedSubscription, Object, SDLExportOptions};

use self::changes::ChangesSubscription;
use crate::audit::AuditQuery;
use crate::auth::provider::Providers;
use crate::auth::token::Tokens;
use crate::auth::{Limiter, Permission, Revocations};
use crate::config::SignUp;
use crate::crm::companies::{Company, CompanyById, CompanyMutation, CompanyQuery, CompanySubscription};
use crate::crm::contacts::{Contact, ContactById, ContactMutation, ContactQuery, ContactSubscription};
use crate::crm::deals::{
    Deal, DealById, DealMutation, DealQuery, DealStageChange, DealSubscription, StageChangeById,
};
use crate::crm::interactions::{
    Interaction, InteractionById, InteractionMutation, InteractionQuery, InteractionSubscription,
};
use crate::crm::pipelines::{
    Pipeline, PipelineById, PipelineMutation, PipelineQuery, PipelineStage, StageById,
};
use crate::crm::secrets::{SecretsMutation, SecretsQuery};
use crate::crypto::Vault;
use crate::db::id::{Kind, read_id};
use crate::error::{Error, Result};
use crate::founding::FoundingMutation;
use crate::graphql::apart::Apart;
use crate::graphql::connection::Cursor;
use crate::graphql::limits::{self, CheckedBefore, Documents, Judge, Limits};
use crate::graphql::scalar::{CurrencyCode, Date, DateTime, Decimal, OwnScalar};
use crate::graphql::{Batch, ContextExt, Eager};
use crate::identity::api_keys::{ApiKey, ApiKeyMutation, ApiKeyQuery};
use crate::identity::invitations::{Invitation, InvitationById, InvitationMutation, InvitationQuery};
use crate::identity::memberships::MembershipMutation;
use crate::identity::mfa::MfaMutation;
use crate::identity::providers::{ProviderMutation, ProviderQuery};
use crate::identity::recovery::RecoveryMutation;
use crate::identity::sessions::{Session, SessionMutation, SessionQuery};
use crate::identity::{
    CustomRole, CustomRoleById, IdentityMutation, IdentityQuery, RoleMutation, RoleQuery, Team, TeamById,
    TeamMutation, TeamQuery, Tenant, TenantById, User, UserById,
};
use crate::mail::Mail;
use crate::sensitive::DataKeys;

/// The schema of Dealstream.
pub type Schema = async_graphql::Schema<Query, Mutation, Subscription>;

/// What can be asked.
#[derive(MergedObject, Default)]
pub struct Query(
    IdentityQuery,
    RoleQuery,
    TeamQuery,
    ApiKeyQuery,
    InvitationQuery,
    SessionQuery,
    ProviderQuery,
    CompanyQuery,
    ContactQuery,
    PipelineQuery,
    DealQuery,
    InteractionQuery,
    AuditQuery,
    SecretsQuery,
    NodeQuery,
);

/// The root of all mutations.
pub type Mutation = Apart<Mutations>;

/// What can be changed. Of several mutations in a request each is made by itself, one after the other. One that fails is
/// null and has an entry in `errors`; it neither takes back those before it nor keeps those after it from being made,
/// unless it is answered `UNAVAILABLE`: then they are, too. One that is asked for twice under one name is made once.
#[derive(MergedObject, Default)]
#[graphql(name = "Mutation")]
pub struct Mutations(
    FoundingMutation,
    IdentityMutation,
    RoleMutation,
    TeamMutation,
    ApiKeyMutation,
    InvitationMutation,
    SessionMutation,
    MembershipMutation,
    RecoveryMutation,
    MfaMutation,
    ProviderMutation,
    CompanyMutation,
    ContactMutation,
    PipelineMutation,
    DealMutation,
    InteractionMutation,
    SecretsMutation,
);

/// What can be followed.
#[derive(MergedSubscription, Default)]
pub struct Subscription(
    CompanySubscription,
    ContactSubscription,
    DealSubscription,
    InteractionSubscription,
    ChangesSubscription,
);

/// A record with an id that is unique over all kinds of records.
#[derive(Interface)]
#[graphql(field(
    name = "id",
    ty = "async_graphql::ID",
    desc = "The record's id; its prefix tells the kind."
))]
pub enum Node {
    Tenant(Arc<Tenant>),
    User(Arc<User>),
    Invitation(Arc<Invitation>),
    CustomRole(Arc<CustomRole>),
    Team(Arc<Team>),
    Company(Arc<Company>),
    Contact(Arc<Contact>),
    Pipeline(Arc<Pipeline>),
    PipelineStage(Arc<PipelineStage>),
    Deal(Arc<Deal>),
    DealStageChange(Arc<DealStageChange>),
    Interaction(Arc<Interaction>),
}

/// Finds the record that an id names, if the viewer may see its kind.
async fn find_node(ctx: &Context<'_>, id: &str) -> Option<Result<Node>> {
    async fn find<B>(ctx: &Context<'_>, permission: Permission, uuid: uuid::Uuid) -> Option<Result<Node>>
    where
        B: Batch,
        B::Key: From<uuid::Uuid>,
        B::Value: Into<Node>,
    {
        let found = ctx.find::<B>(permission, uuid.into()).await?;
        Some(found.map(|Eager(record)| record.into()))
    }
    if let Err(error) = ctx.viewer() {
        return Some(Err(error));
    }
    let (prefix, uuid) = read_id(id).unwrap_or_default();
    match prefix {
        Tenant::PREFIX => find::<TenantById>(ctx, Permission::TenantRead, uuid).await,
        User::PREFIX => find::<UserById>(ctx, Permission::UsersRead, uuid).await,
        Invitation::PREFIX => find::<InvitationById>(ctx, Permission::UsersWrite, uuid).await,
        CustomRole::PREFIX => find::<CustomRoleById>(ctx, Permission::UsersRead, uuid).await,
        Team::PREFIX => find::<TeamById>(ctx, Permission::UsersRead, uuid).await,
        Company::PREFIX => find::<CompanyById>(ctx, Permission::CompaniesRead, uuid).await,
        Contact::PREFIX => find::<ContactById>(ctx, Permission::ContactsRead, uuid).await,
        Pipeline::PREFIX => find::<PipelineById>(ctx, Permission::PipelinesRead, uuid).await,
        PipelineStage::PREFIX => find::<StageById>(ctx, Permission::PipelinesRead, uuid).await,
        Deal::PREFIX => find::<DealById>(ctx, Permission::DealsRead, uuid).await,
        DealStageChange::PREFIX => find::<StageChangeById>(ctx, Permission::DealsRead, uuid).await,
        Interaction::PREFIX => find::<InteractionById>(ctx, Permission::InteractionsRead, uuid).await,
        _ => Some(Err(Error::BadInput("This is not an id of a record.".to_owned()))),
    }
}

/// Records of any kind at the root of the schema.
#[derive(Default)]
pub struct NodeQuery;

/// Ids in one `nodes` at most.
const MAX_NODES: usize = 100;

#[Object]
impl NodeQuery {
    /// A record of any kind by its id; null when there is none.
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the record.")] id: async_graphql::ID,
    ) -> Option<Result<Node>> {
        find_node(ctx, &id).await
    }

    /// Records of any kind by their ids, 100 at most, in the order of the ids; null where there is none.
    async fn nodes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The ids of the records.")] ids: Vec<async_graphql::ID>,
    ) -> Result<Vec<Option<Result<Node>>>> {
        ctx.viewer()?;
        if ids.len() > MAX_NODES {
            return Err(Error::BadInput(format!(
                "At most {MAX_NODES} ids can be looked up at once."
            )));
        }
        Ok(futures::future::join_all(ids.iter().map(|id| find_node(ctx, id))).await)
    }
}

/// The kind of record that an input of type `ID` means, by the names that the schema gives to such inputs: `companyId`,
/// the `id` of `company`, and what is in a `CompanyIdFilter`. `node` and `nodes` take every kind.
pub fn id_kind(of: &str, name: &str) -> Option<&'static str> {
    let named = match of.strip_suffix("IdFilter") {
        Some(kind) => kind,
        None if name == "id" => of,
        None => name.strip_suffix("Id")?,
    };
    Some(match named {
        "tenant" | "Tenant" => Tenant::PREFIX,
        "user" | "User" | "owner" => User::PREFIX,
        "invitation" | "Invitation" => Invitation::PREFIX,
        "role" | "customRole" | "CustomRole" => CustomRole::PREFIX,
        "team" | "Team" => Team::PREFIX,
        "session" => Session::PREFIX,
        "company" | "Company" => Company::PREFIX,
        "contact" | "Contact" => Contact::PREFIX,
        "pipeline" | "Pipeline" => Pipeline::PREFIX,
        "stage" | "Stage" | "pipelineStage" => PipelineStage::PREFIX,
        "deal" | "Deal" => Deal::PREFIX,
        "dealStageChange" => DealStageChange::PREFIX,
        "apiKey" => ApiKey::PREFIX,
        "interaction" | "Interaction" => Interaction::PREFIX,
        _ => return None,
    })
}

/// Who judges what is given as a scalar of ours. As JSON everything is good.
pub fn judge(scalar: &str) -> Option<Judge> {
    Some(match scalar {
        "CurrencyCode" => CurrencyCode::judge,
        "Cursor" => Cursor::judge,
        "Date" => Date::judge,
        "DateTime" => DateTime::judge,
        "Decimal" => Decimal::judge,
        _ => return None,
    })
}

type SchemaBuilder = async_graphql::SchemaBuilder<Query, Mutation, Subscription>;

fn builder() -> SchemaBuilder {
    Schema::build(Query::default(), Mutation::default(), Subscription::default())
        .disable_suggestions()
        .with_sorted_fields()
}

/// What resolvers need besides the session; each is found by its type, as `ctx.data_unchecked::<Arc<…>>()`.
pub struct Services {
    pub vault: Arc<Vault>,
    /// The keys of sensitive fields.
    pub data_keys: Arc<DataKeys>,
    pub tokens: Arc<Tokens>,
    pub revocations: Arc<Revocations>,
    /// Bounds what may be asked how often.
    pub limiter: Arc<Limiter>,
    pub mail: Arc<Mail>,
    pub sign_up: SignUp,
    /// By which people sign in.
    pub providers: Arc<Providers>,
}

/// Builds the schema that executes, and the guard that judges every document before it comes there.
///
/// The schema repeats none of the guard's checks: a document is validated once, when it is first seen.
pub fn build(services: Services, limits: Limits) -> (Schema, Documents) {
    let Services {
        vault,
        data_keys,
        tokens,
        revocations,
        limiter,
        mail,
        sign_up,
        providers,
    } = services;
    let schema = builder()
        .data(vault)
        .data(data_keys)
        .data(tokens)
        .data(revocations)
        .data(limiter)
        .data(mail)
        .data(sign_up)
        .data(providers)
        .extension(CheckedBefore)
        .finish();
    let documents =
        Documents::new(limits, &sdl(), limits::validator(builder())).with_own_inputs(id_kind, judge);
    (schema, documents)
}

/// The schema's text, as committed in `schema.graphql`.
pub fn sdl() -> String {
    let options = SDLExportOptions::new()
        .sorted_fields()
        .sorted_arguments()
        .sorted_enum_items()
        .include_specified_by();
    builder().finish().sdl_with_options(options)
}
