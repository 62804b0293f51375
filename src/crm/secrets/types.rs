//! The sensitive fields of companies in the schema.

use std::sync::Arc;

use async_graphql::parser::types::OperationType;
use async_graphql::{Context, Object, SimpleObject};
use serde_json::json;
use zeroize::Zeroizing;

use super::SecretField;
use super::model::{Account, normal_tax_id};
use super::queries::{self, SecretsByCompany};
use crate::auth::Permission;
use crate::crm::companies::{Company, CompanyById};
use crate::db::id::Id;
use crate::error::{Error, Result};
use crate::graphql::filter::sought;
use crate::graphql::{Can, ContextExt};
use crate::identity::Tenant;
use crate::sensitive::DataKeys;

/// A bank account.
#[derive(SimpleObject)]
pub struct BankAccount {
    /// Who holds the account.
    holder: String,
    /// The number of the account, as an IBAN without spaces.
    iban: String,
    /// The bank, as a BIC.
    bic: Option<String>,
}

/// The tax id of a company, for who may see it.
pub async fn tax_id(ctx: &Context<'_>, company: Id<Company>) -> Option<Result<String>> {
    let revealed = Box::pin(reveal(ctx, company, SecretField::TaxId));
    let revealed = revealed.await.transpose()?;
    Some(revealed.and_then(|plain| String::from_utf8(plain.to_vec()).map_err(|_| unreadable())))
}

/// The bank account of a company, for who may see it.
pub async fn bank_account(ctx: &Context<'_>, company: Id<Company>) -> Option<Result<BankAccount>> {
    let revealed = Box::pin(reveal(ctx, company, SecretField::BankAccount));
    let revealed = revealed.await.transpose()?;
    let account = revealed.and_then(|plain| serde_json::from_slice(&plain).map_err(|_| unreadable()));
    Some(account.map(|Account { holder, iban, bic }| BankAccount { holder, iban, bic }))
}

fn unreadable() -> Error {
    // What a parser says of it might repeat a part of the value.
    Error::internal("a sensitive field has another form than it was kept in")
}

/// Opens a field, when the audit trail has it that the viewer is shown it.
///
/// To be boxed: the executor makes room for an object's largest resolver whenever it resolves any of its fields.
async fn reveal(
    ctx: &Context<'_>,
    company: Id<Company>,
    field: SecretField,
) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let session = ctx.session();
    let viewer = session.viewer()?;
    viewer.require(Permission::SensitiveRead)?;
    if ctx.query_env.operation.node.ty == OperationType::Subscription {
        // What is sent is made once for many, and nobody could say who saw it.
        let message = "A subscription does not send sensitive fields: ask for them when you need them.";
        return Err(Error::BadInput(message.to_owned()));
    }
    let secrets = ctx.load::<SecretsByCompany>(company).await?;
    let Some(secret) = secrets
        .as_ref()
        .and_then(|all| all.iter().find(|secret| secret.field == field))
    else {
        return Ok(None);
    };
    let disclosures = session.disclosures();
    let (turn, due) = disclosures.turn(company.uuid(), field.name()).await;
    if !due.is_empty() {
        let mut work = session.work_aside().await?;
        for (record, fields) in &due {
            let record = Id::<Company>::from_uuid(*record);
            work.note(record, "SENSITIVE_READ", &json!({ "fields": fields }));
        }
        work.finish().await?;
        disclosures.recorded(due);
    }
    drop(turn);
    let reading = ctx.reading()?;
    let keys = ctx.data_unchecked::<Arc<DataKeys>>();
    let place = field.place(viewer.tenant_id, company);
    Ok(Some(
        keys.open(reading.conn().await?, place, &secret.value()).await?,
    ))
}

/// Finding companies by sensitive fields, at the root of the schema.
#[derive(Default)]
pub struct SecretsQuery;

#[Object]
impl SecretsQuery {
    /// The companies that have this very tax id, by name; 100 at most. Spaces, dots, hyphens and strokes make no
    /// difference. The audit trail records that you have looked, and not for what.
    #[graphql(guard = "Can(Permission::SensitiveRead).and(Can(Permission::CompaniesRead))")]
    async fn companies_by_tax_id(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The tax id to find.", secret)] tax_id: String,
    ) -> Result<Vec<Arc<Company>>> {
        let session = ctx.session();
        let viewer = session.viewer()?;
        let keys = ctx.data_unchecked::<Arc<DataKeys>>();
        let field = SecretField::TaxId;
        let value = normal_tax_id(&sought(tax_id)?);
        let reading = ctx.reading()?;
        let conn = reading.conn().await?;
        let blind = Box::pin(keys.sought(conn, viewer.tenant_id, field.as_str(), &value)).await?;
        let ids = queries::found(conn, field, &blind).await?;
        let mut work = session.work_aside().await?;
        let detail = json!({ "field": field.name(), "found": ids.len() });
        work.note(
            Id::<Tenant>::from_uuid(viewer.tenant_id),
            "SENSITIVE_SEARCHED",
            &detail,
        );
        Box::pin(work.finish()).await?;
        let found =
            futures::future::try_join_all(ids.into_iter().map(|id| ctx.load::<CompanyById>(id))).await?;
        Ok(found.into_iter().flatten().collect())
    }
}
