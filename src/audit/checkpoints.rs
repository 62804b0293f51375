//! Checkpoints: the heads of the chains, signed and kept outside the database.
//!
//! Whoever can rewrite the database can rewrite a chain and compute all its hashes anew. What they cannot do is sign:
//! from time to time, at the end of the server and by command, the head of every chain that has grown is signed with
//! Ed25519 and appended to a file, and told to the log (target `audit.checkpoint`), from where it can be shipped to a
//! place that nobody here can write to. A chain that no longer leads through a checkpoint has been rewritten or cut off.
//! What happened since the last checkpoint is only as safe as the database.
//!
//! What is signed has been walked through, from the last checkpoint on: a signature says that the chain led to this head
//! from all that was signed before. A chain that does not is not signed any more, and that is told as an incident. With a
//! new master key every chain is signed once more, so that what was proved until then does not rest on the older one.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::SecondsFormat;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::verify::{Finding, unhex, walk};
use crate::crypto::Vault;
use crate::db::id::{read_id, write_id};
use crate::db::{Database, directory};
use crate::error::{Error, Result};
use crate::events::trail::{GENESIS, Hash, hex};
use crate::events::work::now;

/// What the vault derives the signing key for.
const PURPOSE: &str = "audit checkpoint";

/// The head of a chain at a moment, signed: a line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// When it was signed, by RFC 3339.
    pub at: String,
    pub tenant: String,
    /// How many entries the chain has.
    pub sequence: i64,
    /// The hash of the last of them, in hexadecimal digits.
    pub hash: String,
    /// The public key, in URL-safe base64.
    pub key: String,
    /// Ed25519 over [`Checkpoint::message`], in URL-safe base64.
    pub signature: String,
}

impl Checkpoint {
    /// What is signed: these lines, without an end of line after the last.
    fn message(&self) -> String {
        let Self {
            at,
            tenant,
            sequence,
            hash,
            ..
        } = self;
        format!("dealstream audit checkpoint 1\n{at}\n{tenant}\n{sequence}\n{hash}")
    }

    /// Whether it was signed with one of these keys.
    pub fn is_signed_with(&self, keys: &[PublicKey]) -> bool {
        let Ok(key) = self.key.parse::<PublicKey>() else {
            return false;
        };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(&self.signature) else {
            return false;
        };
        let signed = UnparsedPublicKey::new(&ED25519, key.0).verify(self.message().as_bytes(), &signature);
        keys.contains(&key) && signed.is_ok()
    }

    /// The tenant whose chain it is of.
    pub fn tenant(&self) -> Option<Uuid> {
        read_id(&self.tenant)
            .filter(|(kind, _)| *kind == "tenant")
            .map(|(_, id)| id)
    }
}

/// A key that checkpoints are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl std::str::FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(Self)
            .ok_or_else(|| "a public key is 32 bytes in URL-safe base64".to_owned())
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// The public keys that belong to the master keys of a vault: the current one first, and those of older ones, which have
/// signed before.
///
/// # Errors
/// Only for faults of ours.
pub fn public_keys(vault: &Vault) -> Result<Vec<PublicKey>> {
    vault
        .derive_of_each(PURPOSE)
        .map(|seed| public_key(&pair(&*seed)?))
        .collect()
}

fn pair(seed: &[u8]) -> Result<Ed25519KeyPair> {
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::internal("a seed that is none"))
}

fn public_key(pair: &Ed25519KeyPair) -> Result<PublicKey> {
    let bytes = pair.public_key().as_ref().try_into();
    bytes.map(PublicKey).map_err(Error::internal)
}

/// Signs the heads of chains, and keeps them in a file.
pub struct Checkpoints {
    pair: Ed25519KeyPair,
    key: PublicKey,
    /// Those that may have signed before, too.
    keys: Vec<PublicKey>,
    path: PathBuf,
    /// The head of each chain when it was signed last; nothing before the file has been looked at. Held by the one round
    /// that runs at a time.
    told: Mutex<Option<Heads>>,
}

/// Heads of chains.
type Heads = HashMap<Uuid, Head>;

/// The head of a chain as it was signed.
#[derive(Debug, Clone, Copy)]
struct Head {
    /// How long the chain is.
    sequence: i64,
    /// The hash of its last entry.
    hash: Hash,
    /// Whether the key of the current master key has signed it, and not one of an older.
    is_current: bool,
}

impl Checkpoints {
    /// Signs with the key that the vault derives, and appends to this file.
    ///
    /// # Errors
    /// Only for faults of ours.
    pub fn new(vault: &Vault, path: PathBuf) -> Result<Arc<Self>> {
        let pair = pair(&*vault.derive(PURPOSE))?;
        Ok(Arc::new(Self {
            key: public_key(&pair)?,
            pair,
            keys: public_keys(vault)?,
            path,
            told: Mutex::default(),
        }))
    }

    /// The key that the checkpoints are to be checked with.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Signs every chain that has grown since the last time, so often until `shutdown`.
    pub async fn go(self: Arc<Self>, db: Database, every: Duration, shutdown: CancellationToken) {
        while shutdown
            .run_until_cancelled(tokio::time::sleep(every))
            .await
            .is_some()
        {
            if let Err(error) = self.round(&db).await {
                tracing::warn!(
                    ?error,
                    "the audit trail's checkpoints cannot be written; trying on"
                );
            }
        }
    }

    /// Signs every chain that has grown since the last time, and is whole since; also those that were signed with the key of
    /// an older master key. Answers how many there were.
    ///
    /// # Errors
    /// When the database fails, or the file cannot be written to.
    pub async fn round(self: &Arc<Self>, db: &Database) -> Result<usize> {
        let mut told = self.told.lock().await;
        let told = match &mut *told {
            Some(told) => told,
            nothing => {
                let this = self.clone();
                nothing.insert(aside(move || this.known()).await?)
            }
        };
        let mut grown = Vec::new();
        for head in directory::audit_heads(db).await? {
            let known = told.get(&head.tenant_id).copied().unwrap_or(Head {
                sequence: 0,
                hash: GENESIS,
                is_current: false,
            });
            if known.is_current && known.sequence == head.sequence && known.hash == *head.hash {
                continue;
            }
            let walked = walk(db, head.tenant_id, (known.sequence, known.hash), &BTreeMap::new()).await?;
            match walked.fault {
                None => {
                    let signed = Head {
                        sequence: walked.at,
                        hash: walked.hash,
                        is_current: true,
                    };
                    grown.push((head.tenant_id, signed));
                }
                Some((sequence, fault)) => {
                    let tenant = head.tenant_id;
                    let finding = Finding {
                        tenant,
                        sequence,
                        fault,
                    };
                    tracing::error!(target: "security.incident", %finding, "an audit trail has been tampered with; it is not signed any more");
                }
            }
        }
        if grown.is_empty() {
            return Ok(0);
        }
        let (this, heads) = (self.clone(), grown.clone());
        aside(move || this.sign(&heads)).await?;
        told.extend(grown.iter().copied());
        Ok(grown.len())
    }

    fn sign(&self, grown: &[(Uuid, Head)]) -> Result<()> {
        let at = now().to_rfc3339_opts(SecondsFormat::Micros, true);
        let mut lines = String::new();
        for (tenant, Head { sequence, hash, .. }) in grown {
            let mut checkpoint = Checkpoint {
                at: at.clone(),
                tenant: write_id("tenant", *tenant),
                sequence: *sequence,
                hash: hex(hash),
                key: self.key.to_string(),
                signature: String::new(),
            };
            let signature = self.pair.sign(checkpoint.message().as_bytes());
            checkpoint.signature = URL_SAFE_NO_PAD.encode(signature);
            lines += &serde_json::to_string(&checkpoint).map_err(Error::internal)?;
            lines.push('\n');
            let Checkpoint {
                tenant,
                sequence,
                hash,
                signature,
                ..
            } = &checkpoint;
            tracing::info!(target: "audit.checkpoint", %at, %tenant, sequence, %hash, key = %self.key, %signature, "checkpoint");
        }
        self.append(&lines).map_err(|error| {
            Error::internal(format!("{} cannot be written to: {error}", self.path.display()))
        })
    }

    fn append(&self, lines: &str) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)?;
        file.write_all(lines.as_bytes())?;
        file.sync_data()
    }

    /// The head of each chain when the file was last written to.
    fn known(&self) -> Result<Heads> {
        let mut known = Heads::new();
        let read = read(&self.path, |checkpoint, _| {
            let genuine = checkpoint.is_signed_with(&self.keys);
            if let (Some(tenant), Some(hash), true) = (checkpoint.tenant(), unhex(&checkpoint.hash), genuine)
            {
                let head = Head {
                    sequence: checkpoint.sequence,
                    hash,
                    is_current: checkpoint.is_signed_with(std::slice::from_ref(&self.key)),
                };
                known.insert(tenant, head);
            }
        });
        match read {
            Ok(()) => Ok(known),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(known),
            Err(error) => Err(Error::internal(format!(
                "{} cannot be read: {error}",
                self.path.display()
            ))),
        }
    }
}

/// Files are waited for elsewhere.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}

/// Goes through a file of checkpoints line by line; what is no checkpoint is told as one without a signature.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path, mut each: impl FnMut(Checkpoint, usize)) -> std::io::Result<()> {
    for (number, line) in BufReader::new(File::open(path)?).lines().enumerate() {
        let line = line?;
        if line.is_empty() {
            continue;
        }
        let unreadable = || Checkpoint {
            at: String::new(),
            tenant: String::new(),
            sequence: 0,
            hash: String::new(),
            key: String::new(),
            signature: String::new(),
        };
        each(
            serde_json::from_str(&line).unwrap_or_else(|_| unreadable()),
            number + 1,
        );
    }
    Ok(())
}
