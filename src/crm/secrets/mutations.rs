//! Changing the sensitive fields of companies.

use std::sync::Arc;

use async_graphql::{Context, InputObject, MaybeUndefined, Object, SimpleObject};
use serde_json::json;

use super::SecretField;
use super::model::{Account, is_bic, is_iban, is_tax_id, normal_iban, normal_tax_id};
use super::queries;
use crate::auth::Permission;
use crate::crm::companies::{Company, CompanyById};
use crate::db::id::Id;
use crate::error::{Error, ProblemCode, Result};
use crate::events::Work;
use crate::graphql::input::{Check, Patch};
use crate::graphql::{Can, Outcome, Shown, mutate};
use crate::sensitive::DataKeys;

/// Changes of a company's sensitive fields. What is left out stays as it is; null takes a value away.
#[derive(InputObject)]
pub struct UpdateSensitiveCompanyFieldsInput {
    /// The company to change.
    company_id: Id<Company>,
    /// The tax id: 4 to 20 letters and digits; spaces, dots, hyphens and strokes are dropped.
    #[graphql(secret)]
    tax_id: MaybeUndefined<String>,
    /// The bank account, as a whole.
    #[graphql(secret)]
    bank_account: MaybeUndefined<BankAccountInput>,
    /// The version that you know. When the company has changed since, nothing is done.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key is answered the same, and done once. It is remembered
    /// for seven days. The sensitive values are not compared.
    idempotency_key: Option<String>,
}

/// A bank account.
#[derive(InputObject)]
pub struct BankAccountInput {
    /// Who holds the account.
    #[graphql(secret)]
    holder: String,
    /// The number of the account, as an IBAN.
    #[graphql(secret)]
    iban: String,
    /// The bank, as a BIC of 8 or 11 letters and digits.
    #[graphql(secret)]
    bic: Option<String>,
}

/// The answer to `updateSensitiveCompanyFields`.
#[derive(SimpleObject)]
pub struct UpdateSensitiveCompanyFieldsPayload {
    /// The company as it is now; null when there are `userErrors`.
    company: Option<Shown<CompanyById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// A field to be changed: to a value, or to nothing.
struct Change {
    field: SecretField,
    plain: Option<Vec<u8>>,
}

fn checked(
    check: &mut Check,
    tax_id: MaybeUndefined<String>,
    account: MaybeUndefined<BankAccountInput>,
) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut change = |field, plain: Option<Vec<u8>>| changes.push(Change { field, plain });
    match tax_id {
        MaybeUndefined::Undefined => {}
        MaybeUndefined::Null => change(SecretField::TaxId, None),
        MaybeUndefined::Value(text) => {
            let id = normal_tax_id(text.trim());
            if !is_tax_id(&id) {
                let message = "A tax id has 4 to 20 letters and digits, a digit among them.";
                check.problem("taxId", ProblemCode::Invalid, message);
            }
            change(SecretField::TaxId, Some(id.into_bytes()));
        }
    }
    match account {
        MaybeUndefined::Undefined => {}
        MaybeUndefined::Null => change(SecretField::BankAccount, None),
        MaybeUndefined::Value(BankAccountInput { holder, iban, bic }) => {
            let account = Account {
                holder: check.line("bankAccount.holder", &holder),
                iban: normal_iban(iban.trim()),
                bic: bic
                    .map(|bic| bic.trim().to_ascii_uppercase())
                    .filter(|bic| !bic.is_empty()),
            };
            if !is_iban(&account.iban) {
                check.problem(
                    "bankAccount.iban",
                    ProblemCode::Invalid,
                    "This is not an IBAN, or a digit of it is wrong.",
                );
            }
            if account.bic.as_deref().is_some_and(|bic| !is_bic(bic)) {
                check.problem(
                    "bankAccount.bic",
                    ProblemCode::Invalid,
                    "A BIC has 8 or 11 letters and digits.",
                );
            }
            let plain = serde_json::to_vec(&account).map_err(Error::internal)?;
            change(SecretField::BankAccount, Some(plain));
        }
    }
    Ok(changes)
}

async fn apply(work: &Work, keys: &DataKeys, company: Id<Company>, change: &Change) -> Result<()> {
    match &change.plain {
        Some(plain) => queries::keep(work, keys, company, change.field, plain, work.now()).await,
        None => queries::delete(work, company, change.field).await,
    }
}

/// Mutations of sensitive fields.
#[derive(Default)]
pub struct SecretsMutation;

#[Object]
impl SecretsMutation {
    /// Changes the tax id and the bank account of a company. They are kept encrypted, each by itself; the history and the
    /// audit trail tell that they were changed, and never to what.
    #[graphql(guard = "Can(Permission::SensitiveWrite)")]
    async fn update_sensitive_company_fields(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: UpdateSensitiveCompanyFieldsInput,
    ) -> Result<UpdateSensitiveCompanyFieldsPayload> {
        let UpdateSensitiveCompanyFieldsInput {
            company_id,
            tax_id,
            bank_account,
            expected_version,
            idempotency_key,
        } = input;
        let keys = ctx.data_unchecked::<Arc<DataKeys>>();
        let mut check = Check::default();
        let changes = checked(&mut check, tax_id, bank_account);
        let operation = "updateSensitiveCompanyFields";
        let (company, outcome) = mutate(ctx, operation, idempotency_key, async |work| {
            let changes = changes?;
            let company = queries::touch(work, company_id, work.now()).await?;
            Patch::default().expect_version(expected_version, company.version - 1)?;
            check.done()?;
            for change in &changes {
                apply(work, keys, company_id, change).await?;
            }
            work.record(company_id, "UPDATED", &Patch::default().change(&company))?;
            let fields: Vec<_> = changes.iter().map(|change| change.field.name()).collect();
            work.note(company_id, "SENSITIVE_CHANGED", &json!({ "fields": fields }));
            Ok(Arc::new(company))
        })
        .await?;
        Ok(UpdateSensitiveCompanyFieldsPayload {
            company: company.map(Shown),
            outcome,
        })
    }
}
