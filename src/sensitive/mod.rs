//! Highly sensitive fields: under which keys they are sealed, and that nobody reads one unnoticed.
//!
//! Every tenant has data keys of its own, kept sealed by the master key ([`Vault`]). A field is sealed by AES-256-GCM under
//! the current data key and bound to tenant, table, column, row and key, so that a ciphertext cannot be moved to where
//! somebody may read it. A second key makes blind indexes: equal values can be found by HMAC. Both are replaced in time;
//! older ones open, and find, what has been kept under them until it is kept under the new.
//! Before a value is given out, the audit trail has it who looked at what ([`disclosure`]).

pub mod disclosure;
mod queries;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use quick_cache::sync::Cache;
use uuid::Uuid;
use zeroize::Zeroizing;

pub use disclosure::Disclosures;

use self::queries::Conn;
use crate::crypto::Vault;
use crate::crypto::field::{self, Key};
use crate::db::sealed::DATA_KEY;
use crate::db::session::Transaction;
use crate::db::{Database, directory};
use crate::error::{Error, Result};

/// Keys that are kept in memory at most.
const CACHED: usize = 4096;

/// What keys are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Sealing values.
    Seal,
    /// Finding equal values.
    Index,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Seal => "SEAL",
            Self::Index => "INDEX",
        }
    }
}

/// Where a value is: what it is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub tenant: Uuid,
    pub table: &'static str,
    pub column: &'static str,
    pub row: Uuid,
}

impl Place {
    fn under(&self, key: Uuid) -> String {
        let Self {
            tenant,
            table,
            column,
            row,
        } = self;
        format!("{tenant}/{table}/{column}/{row}/{key}")
    }
}

/// A sealed value, with the key that opens it.
#[derive(Debug, Clone)]
pub struct Sealed {
    pub key_id: Uuid,
    pub sealed: Vec<u8>,
}

/// What a value can be found by, with the key that it was made under.
#[derive(Debug, Clone)]
pub struct Blind {
    pub key_id: Uuid,
    pub hash: Vec<u8>,
}

/// The data keys of all tenants. Those that were needed lately are kept in memory, and wiped when they leave it.
pub struct DataKeys {
    vault: Arc<Vault>,
    cache: Cache<(Uuid, Uuid), Arc<Key>>,
}

impl DataKeys {
    /// Keys that this vault opens.
    pub fn new(vault: Arc<Vault>) -> Arc<Self> {
        Arc::new(Self {
            vault,
            cache: Cache::new(CACHED),
        })
    }

    /// Seals a value under the tenant's current key, which is made when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn seal(&self, tx: &Transaction, place: Place, plain: &[u8]) -> Result<Sealed> {
        let (key_id, key) = self.current(tx, Purpose::Seal).await?;
        let sealed = field::seal(&key, &place.under(key_id), plain)?;
        Ok(Sealed { key_id, sealed })
    }

    /// Opens a value.
    ///
    /// # Errors
    /// [`Error::Internal`] when it was altered or belongs elsewhere, or when its key cannot be opened.
    pub async fn open(&self, conn: &Conn, place: Place, value: &Sealed) -> Result<Zeroizing<Vec<u8>>> {
        let key = match self.cache.get(&(place.tenant, value.key_id)) {
            Some(key) => key,
            None => {
                let found = queries::find(conn, value.key_id).await?;
                let row = found.ok_or_else(|| Error::internal("a data key is missing"))?;
                self.unseal(place.tenant, &row)?
            }
        };
        field::open(&key, &place.under(value.key_id), &value.sealed)
    }

    /// The blind indexes of a value, for finding it: more than one while the key is being changed, and none when the
    /// tenant has never had one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sought(&self, conn: &Conn, tenant: Uuid, kind: &str, value: &str) -> Result<Vec<Vec<u8>>> {
        let rows = queries::all_of(conn, Purpose::Index).await?;
        let blind = |row: &_| Ok(field::blind(&*self.unseal(tenant, row)?, kind, value));
        rows.iter().map(blind).collect()
    }

    /// The blind index of a value that is being kept.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn blind(&self, tx: &Transaction, kind: &str, value: &str) -> Result<Blind> {
        let (key_id, key) = self.current(tx, Purpose::Index).await?;
        let hash = field::blind(&key, kind, value);
        Ok(Blind { key_id, hash })
    }

    /// Puts new keys in the place of the current ones, or of those of them that were made before a moment; the older go on
    /// opening and finding what was kept under them. Of those who want it at the same time one does it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renew(&self, tx: &Transaction, made_before: Option<DateTime<Utc>>) -> Result<()> {
        for purpose in [Purpose::Seal, Purpose::Index] {
            if queries::retire(tx, purpose, made_before).await? {
                self.make(tx, purpose).await?;
            }
        }
        Ok(())
    }

    /// Whether any key of a tenant is retired and still there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_behind(&self, db: &Database, tenant: Uuid) -> Result<bool> {
        let snapshot = db.snapshot(tenant);
        let all = queries::all(snapshot.conn().await?).await?;
        Ok(all.iter().any(|row| !row.is_current))
    }

    /// Whether a tenant has any keys: who has never kept a sensitive value has none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_any(&self, db: &Database, tenant: Uuid) -> Result<bool> {
        let snapshot = db.snapshot(tenant);
        Ok(!queries::all(snapshot.conn().await?).await?.is_empty())
    }

    /// Forgets a key that is not current and that nothing is kept under any more.
    ///
    /// # Errors
    /// When the database fails; also while a key is still in use.
    pub async fn forget(&self, tx: &Transaction, unused: Uuid) -> Result<()> {
        queries::forget(tx, unused).await?;
        self.cache.remove(&(tx.tenant(), unused));
        Ok(())
    }

    /// The keys of a tenant that are to be done without: all but the current ones.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retired(&self, conn: &Conn) -> Result<Vec<Uuid>> {
        let all = queries::all(conn).await?;
        let retired = all.into_iter().filter(|row| !row.is_current);
        Ok(retired.map(|row| row.id).collect())
    }

    async fn current(&self, tx: &Transaction, purpose: Purpose) -> Result<(Uuid, Arc<Key>)> {
        match queries::current_to_seal(tx, purpose).await? {
            Some(row) => Ok((row.id, self.unseal(tx.tenant(), &row)?)),
            None => self.make(tx, purpose).await,
        }
    }

    async fn make(&self, tx: &Transaction, purpose: Purpose) -> Result<(Uuid, Arc<Key>)> {
        let (id, key) = (Uuid::now_v7(), field::new_key());
        let sealed = self.vault.seal(&context(tx.tenant(), id), &key[..])?;
        queries::insert(tx, id, purpose, &sealed).await?;
        // Another may have made one at the same moment.
        let row = queries::current_to_seal(tx, purpose).await?;
        let row = row.ok_or_else(|| Error::internal("a data key that was made is not there"))?;
        Ok((row.id, self.unseal(tx.tenant(), &row)?))
    }

    fn unseal(&self, tenant: Uuid, row: &queries::DataKey) -> Result<Arc<Key>> {
        if let Some(key) = self.cache.get(&(tenant, row.id)) {
            return Ok(key);
        }
        let bytes = self.vault.open(&context(tenant, row.id), &row.sealed)?;
        let key = <[u8; 32]>::try_from(bytes.as_slice())
            .map_err(|_| Error::internal("a data key of another length"))?;
        let key = Arc::new(Zeroizing::new(key));
        self.cache.insert((tenant, row.id), key.clone());
        Ok(key)
    }
}

fn context(tenant: Uuid, key: Uuid) -> String {
    DATA_KEY.of(format_args!("{tenant}/{key}"))
}

/// The tenants that a command is about: one, or all.
///
/// # Errors
/// When the database fails.
pub async fn tenants(db: &Database, tenant: Option<Uuid>) -> Result<Vec<Uuid>> {
    match tenant {
        Some(tenant) => Ok(vec![tenant]),
        None => {
            let all = directory::histories(db).await?;
            Ok(all.into_iter().map(|history| history.tenant_id).collect())
        }
    }
}
