//! Proving that the trail is whole: every chain is walked from its first entry, every hash computed anew, and what is
//! found is compared with the head of the chain and with the checkpoints that were signed while it grew.
//!
//! Entries are read a page at a time, in one snapshot a tenant; of a checkpoint no more is kept than its place and hash.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use uuid::Uuid;

use super::checkpoints::{self, PublicKey};
use super::queries;
use crate::db::id::write_id;
use crate::db::{Database, directory};
use crate::error::{Error, Result};
use crate::events::trail::{GENESIS, Hash, hex, link};

/// Entries that are looked at at once.
const PAGE: i64 = 1000;
/// How far away from its place an entry is looked for.
const NEIGHBOURHOOD: i64 = 1000;

/// What is wrong with a trail, and from which entry on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub tenant: Uuid,
    pub sequence: i64,
    pub fault: Fault,
}

/// What can be wrong with a trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Entries are not there, up to this one.
    Missing { to: i64 },
    /// The entry does not tell what it told when it was chained.
    Altered,
    /// The entry was chained at another place.
    Moved { from: i64 },
    /// The entry does not follow the one before it.
    Unlinked,
    /// There are entries that the head of the chain does not know.
    Unknown,
    /// The hash of the last entry is not the one that the tenant's counter has.
    Head,
    /// A checkpoint was signed for another entry at this place.
    Rewritten { at: String },
    /// A checkpoint was signed for an entry that is there no more.
    Truncated { last: i64, at: String },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sequence = self.sequence;
        write!(f, "{}: ", write_id("tenant", self.tenant))?;
        match &self.fault {
            Fault::Missing { to } if *to == sequence => write!(f, "entry {sequence} is missing"),
            Fault::Missing { to } => write!(f, "entries {sequence} to {to} are missing"),
            Fault::Altered => write!(f, "entry {sequence} has been altered"),
            Fault::Moved { from } => {
                write!(
                    f,
                    "entry {sequence} is out of order: it was entry {from} when it was written"
                )
            }
            Fault::Unlinked => {
                write!(
                    f,
                    "entry {sequence} does not follow the entry before it: one of them has been replaced"
                )
            }
            Fault::Unknown => write!(
                f,
                "entry {sequence} is beyond the end that the tenant's counter knows"
            ),
            Fault::Head => write!(
                f,
                "entry {sequence} is not the one that the tenant's counter knows as the last"
            ),
            Fault::Rewritten { at } => write!(
                f,
                "entry {sequence} is not the one that the checkpoint of {at} was signed for: the trail has been \
                 rewritten at or before this entry"
            ),
            Fault::Truncated { last, at } => write!(
                f,
                "entry {sequence} is missing: the checkpoint of {at} was signed for it, but the trail ends with {last}"
            ),
        }
    }
}

/// The genuine checkpoints of a file, by tenant and place in the chain.
#[derive(Default)]
pub struct Signed {
    of: HashMap<Uuid, BTreeMap<i64, (Hash, String)>>,
    /// Lines that no known key has signed.
    pub refused: Vec<usize>,
}

impl Signed {
    /// Reads a file of checkpoints, keeping those that were signed with one of the keys.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(path: &Path, keys: &[PublicKey]) -> std::io::Result<Self> {
        let mut signed = Self::default();
        checkpoints::read(path, |checkpoint, line| {
            let genuine = checkpoint.is_signed_with(keys);
            match (checkpoint.tenant(), unhex(&checkpoint.hash)) {
                (Some(tenant), Some(hash)) if genuine => {
                    let of = signed.of.entry(tenant).or_default();
                    // The earliest word on an entry is the one to go by.
                    of.entry(checkpoint.sequence).or_insert((hash, checkpoint.at));
                }
                _ => signed.refused.push(line),
            }
        })?;
        Ok(signed)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.of.values().map(BTreeMap::len).sum()
    }
}

pub(super) fn unhex(text: &str) -> Option<Hash> {
    let mut bytes = GENESIS;
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// What a walk through the trails has come to.
#[derive(Debug, Default)]
pub struct Report {
    pub tenants: usize,
    pub entries: i64,
    /// The first fault of each trail that has any.
    pub findings: Vec<Finding>,
}

/// Walks through the trail of a tenant, or of each.
///
/// # Errors
/// When the database fails.
pub async fn verify(db: &Database, tenant: Option<Uuid>, signed: &Signed) -> Result<Report> {
    let mut tenants = match tenant {
        Some(tenant) => vec![tenant],
        None => {
            let all = directory::histories(db).await?;
            all.into_iter().map(|history| history.tenant_id).collect()
        }
    };
    if tenant.is_none() {
        // Of a tenant that has been removed altogether only the checkpoints know.
        let gone: Vec<Uuid> = signed
            .of
            .keys()
            .filter(|id| !tenants.contains(id))
            .copied()
            .collect();
        tenants.extend(gone);
    }
    let mut report = Report {
        tenants: tenants.len(),
        ..Report::default()
    };
    let none = BTreeMap::new();
    for tenant in tenants {
        let checkpoints = signed.of.get(&tenant).unwrap_or(&none);
        let walked = walk(db, tenant, (0, GENESIS), checkpoints).await?;
        report.entries += walked.at;
        report
            .findings
            .extend(walked.fault.map(|(sequence, fault)| Finding {
                tenant,
                sequence,
                fault,
            }));
    }
    Ok(report)
}

/// How far a walk has come.
pub(super) struct Walked {
    /// The last entry that was found to be good, and its hash.
    pub at: i64,
    pub hash: Hash,
    /// What is wrong with the next.
    pub fault: Option<(i64, Fault)>,
}

/// Walks through one trail, up to its first fault, from an entry that is known to be good on: what follows it must lead
/// back to it.
pub(super) async fn walk(
    db: &Database,
    tenant: Uuid,
    from: (i64, Hash),
    checkpoints: &BTreeMap<i64, (Hash, String)>,
) -> Result<Walked> {
    let snapshot = db.snapshot(tenant);
    let conn = snapshot.conn().await?;
    let head = queries::head(conn).await?;
    if head.is_none() && checkpoints.is_empty() {
        return Err(Error::NotFound("tenant"));
    }
    let (length, last_hash) = head.unwrap_or((0, GENESIS.to_vec()));
    let (mut at, mut previous) = from;
    let broken = |at, hash, fault| {
        Ok(Walked {
            at,
            hash,
            fault: Some(fault),
        })
    };
    if length < at {
        return broken(at, previous, (length + 1, Fault::Missing { to: at }));
    }
    loop {
        let page = queries::after(conn, at, PAGE).await?;
        if page.is_empty() {
            break;
        }
        for entry in page {
            let sequence = at + 1;
            if entry.sequence != sequence {
                let to = entry.sequence - 1;
                return broken(at, previous, (sequence, Fault::Missing { to }));
            }
            let digest = entry.digest(tenant);
            let fault = if link(&previous, sequence, &digest).as_slice() == entry.hash {
                None
            } else if entry.belongs_at(sequence, &digest) {
                Some(Fault::Unlinked)
            } else {
                let near = (sequence - NEIGHBOURHOOD).max(1)..=sequence + NEIGHBOURHOOD;
                let place = near.into_iter().find(|place| entry.belongs_at(*place, &digest));
                Some(place.map_or(Fault::Altered, |from| Fault::Moved { from }))
            };
            // The hash before is told beside the hash that contains it: both must be right.
            let fault = fault.or_else(|| (entry.previous_hash != previous).then_some(Fault::Altered));
            let fault = fault.or_else(|| {
                let (hash, at) = checkpoints.get(&sequence)?;
                (hash.as_slice() != entry.hash).then(|| Fault::Rewritten { at: at.clone() })
            });
            let fault = fault.or_else(|| (sequence > length).then_some(Fault::Unknown));
            if let Some(fault) = fault {
                return broken(at, previous, (sequence, fault));
            }
            previous = link(&previous, sequence, &digest);
            at = sequence;
        }
    }
    let fault = if let Some((sequence, (_, signed))) = checkpoints.range(at + 1..).next() {
        let signed = signed.clone();
        Some((*sequence, Fault::Truncated { last: at, at: signed }))
    } else if at < length {
        Some((at + 1, Fault::Missing { to: length }))
    } else if last_hash != previous {
        Some((at, Fault::Head))
    } else {
        None
    };
    tracing::debug!(tenant = %tenant, entries = at, head = %hex(&previous), "a trail was walked");
    Ok(Walked {
        at,
        hash: previous,
        fault,
    })
}
