//! The command line's part about the audit trail.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::Checkpoints;
use super::checkpoints::{PublicKey, public_keys};
use super::verify::{Report, Signed, verify};
use crate::crypto::Vault;
use crate::db::Database;
use crate::db::id::read_id;
use crate::error::{Error, Result};

/// What can be done with the audit trail.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Prove that nobody has altered, removed or moved an entry; otherwise name the first, and exit with 1
    Verify {
        /// Only the trail of this tenant, by its id
        #[arg(long, value_name = "ID")]
        tenant: Option<String>,
        /// The checkpoints to go by, when they are not where the server writes them
        #[arg(long, value_name = "FILE")]
        checkpoints: Option<PathBuf>,
        /// A public key of checkpoints, when the master key is not at hand
        #[arg(long, value_name = "KEY")]
        key: Vec<PublicKey>,
    },
    /// Sign the trails as they are now, as the server does from time to time
    Checkpoint,
    /// Print the public keys that checkpoints are checked with, the current one first
    Key,
}

/// Runs a command and answers what it has to say. `vault` may be missing where its keys are not known, and `file` is where
/// the server writes checkpoints.
///
/// # Errors
/// A sentence for the operator: also when something is wrong with a trail.
pub async fn run(
    command: Command,
    db: &Database,
    vault: Option<&Vault>,
    file: &Path,
) -> Result<String, String> {
    let told = |error: Error| {
        tracing::error!(?error, "the audit trail cannot be worked on");
        error.message()
    };
    let needed =
        || vault.ok_or("the keys are not known: give JWT_SECRET, and DEALSTREAM_MASTER_KEYS if it is set");
    match command {
        Command::Verify {
            tenant,
            checkpoints,
            mut key,
        } => {
            let tenant = tenant.as_deref().map(tenant_id).transpose()?;
            if let Some(vault) = vault {
                key.extend(public_keys(vault).map_err(told)?);
            }
            let signed = signed(checkpoints.as_deref(), file, &key)?;
            let report = verify(db, tenant, signed.as_ref().unwrap_or(&Signed::default())).await;
            verdict(report.map_err(told)?, signed.as_ref())
        }
        Command::Checkpoint => {
            let checkpoints = Checkpoints::new(needed()?, file.to_owned()).map_err(told)?;
            let count = checkpoints.round(db).await.map_err(told)?;
            Ok(format!("Checkpoints: {count} new in {}.", file.display()))
        }
        Command::Key => {
            let keys = public_keys(needed()?).map_err(told)?;
            let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            Ok(keys.join("\n"))
        }
    }
}

fn tenant_id(text: &str) -> Result<Uuid, String> {
    match read_id(text) {
        Some(("tenant", tenant)) => Ok(tenant),
        _ => Err(format!(
            "{text} is not the id of a tenant, which begins with `tenant_`"
        )),
    }
}

/// The checkpoints of the file that was named, which must be there, or of the server's, which need not.
fn signed(named: Option<&Path>, file: &Path, keys: &[PublicKey]) -> Result<Option<Signed>, String> {
    if keys.is_empty() {
        return match named {
            Some(_) => {
                Err("no key is known to check the checkpoints with: give --key, or JWT_SECRET".to_owned())
            }
            None => Ok(None),
        };
    }
    let path = named.unwrap_or(file);
    match Signed::read(path, keys) {
        Ok(signed) => Ok(Some(signed)),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

fn verdict(report: Report, signed: Option<&Signed>) -> Result<String, String> {
    let Report {
        tenants,
        entries,
        findings,
    } = report;
    let refused = signed.map_or(&[][..], |signed| &signed.refused);
    let mut lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    if !refused.is_empty() {
        let first: Vec<String> = refused.iter().take(10).map(ToString::to_string).collect();
        let lines_of = format!("lines {}", first.join(", "));
        lines.push(format!(
            "{} of the checkpoints are not signed with a known key, among them {lines_of}; \
             give the public keys of master keys that are no longer there with --key",
            refused.len()
        ));
    }
    if !lines.is_empty() {
        lines.insert(0, "the audit trail is not what was written:".to_owned());
        return Err(lines.join("\n  "));
    }
    let against = match signed.map(Signed::count) {
        Some(count) if count > 0 => format!("They lead through all {count} checkpoints."),
        _ => "There are no checkpoints: that the end was not cut off, or everything written anew, is not proved."
            .to_owned(),
    };
    Ok(format!(
        "Audit trails: {tenants}, entries: {entries}, all as they were written. {against}"
    ))
}
