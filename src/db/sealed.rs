//! All that the master keys have sealed, column by column, so that a new one can take over everything and an operator can
//! see when an older one is no longer needed.
//!
//! Who seals a value asks its column what to bind it to ([`Column::of`]). [`ALL`] is held against the database's catalogue
//! by a test: bytes that are in no list there, neither here nor among the hashes, are bytes that a new master key would
//! leave behind.

use std::fmt::Display;

use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Binary, Integer, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::Database;
use super::directory::{conn_transaction, writing_transaction};
use crate::crypto::{MasterKey, Vault};
use crate::error::{Error, Result};

/// Values that are sealed anew in one transaction, which keeps them from being changed for so long.
const BATCH: usize = 200;

/// How often everything is gone through at most: again for what others had locked, or have sealed meanwhile.
const PASSES: usize = 3;

/// A column of sealed bytes, of no tenant or of all: for the directory's role alone.
#[derive(Debug)]
pub struct Column {
    table: &'static str,
    column: &'static str,
    /// The primary key, with the types of its parts.
    key: &'static [(&'static str, &'static str)],
    /// What a value is bound to begins with this …
    context: &'static str,
    /// … and goes on with what tells its row apart, said in SQL.
    row: &'static str,
}

/// The keys that sign access tokens, by algorithm and id.
pub const SIGNING_KEY: Column = Column {
    table: "signing_keys",
    column: "sealed",
    key: &[("kid", "text")],
    context: "signing_keys/",
    row: "algorithm || '/' || kid",
};

/// Tenants' own keys, by tenant and id.
pub const DATA_KEY: Column = Column {
    table: "data_keys",
    column: "sealed",
    key: &[("tenant_id", "uuid"), ("id", "uuid")],
    context: "data_keys/",
    row: "tenant_id || '/' || id",
};

/// The secrets of authenticator apps, by account.
pub const SECOND_FACTOR: Column = Column {
    table: "second_factors",
    column: "secret",
    key: &[("account_id", "uuid")],
    context: "second_factors.secret/",
    row: "account_id::text",
};

/// Mail that is on its way, by id.
pub const MAIL: Column = Column {
    table: "mails",
    column: "sealed",
    key: &[("id", "uuid")],
    context: "mails.sealed:",
    row: "id::text",
};

/// What belongs to a link that was mailed, by the hash of its token in hexadecimal digits.
pub const LINK: Column = Column {
    table: "links",
    column: "sealed",
    key: &[("token_hash", "bytea")],
    context: "links.sealed:",
    row: "encode(token_hash, 'hex')",
};

/// What is expected of who comes back from a provider, by the hash of the state in base64url.
pub const PROVIDER_VISIT: Column = Column {
    table: "provider_visits",
    column: "sealed",
    key: &[("state_hash", "bytea")],
    context: "provider_visits.sealed/",
    row: "translate(encode(state_hash, 'base64'), '+/=', '-_')",
};

/// Every column that a vault seals values for.
pub const ALL: [&Column; 6] = [
    &SIGNING_KEY,
    &DATA_KEY,
    &SECOND_FACTOR,
    &MAIL,
    &LINK,
    &PROVIDER_VISIT,
];

/// What has been done for a new master key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Values that the current master key seals now, and did not before.
    pub values: usize,
    /// Values that cannot be opened, and stay as they are.
    pub unreadable: usize,
}

/// How many values of a column a master key has sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The name of the master key; nothing when the bytes are none that a vault has sealed.
    pub master_key: Option<String>,
    pub table: &'static str,
    pub values: i64,
}

#[derive(QueryableByName)]
struct Old {
    #[diesel(sql_type = Text)]
    told_by: String,
    #[diesel(sql_type = Array<Text>)]
    key: Vec<String>,
    #[diesel(sql_type = Binary)]
    sealed: Vec<u8>,
}

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = Nullable<Binary>)]
    name: Option<Vec<u8>>,
    #[diesel(sql_type = BigInt)]
    count: i64,
}

impl Column {
    /// What the value of a row is bound to.
    pub fn of(&self, row: impl Display) -> String {
        format!("{}{row}", self.context)
    }

    /// Its table and its name there.
    pub fn name(&self) -> (&'static str, &'static str) {
        (self.table, self.column)
    }

    fn keys(&self) -> String {
        self.key_parts(|_, name, _| name.to_owned()).join(", ")
    }

    fn key_parts(&self, part: impl Fn(usize, &str, &str) -> String) -> Vec<String> {
        let numbered = self.key.iter().enumerate();
        numbered
            .map(|(number, (name, kind))| part(number, name, kind))
            .collect()
    }

    /// Some of the values, in the order of their keys after one, that do not begin as what the current master key has
    /// sealed. They are locked; what somebody else has locked is passed over, so that nobody waits for each other.
    async fn old(&self, conn: &AsyncPgConnection, head: &[u8], after: Option<&[String]>) -> Result<Vec<Old>> {
        let Self {
            table, column, row, ..
        } = self;
        let keys = self.keys();
        let texts = self.key_parts(|_, name, _| format!("{name}::text")).join(", ");
        let values = self.key_parts(|number, _, kind| format!("($2::text[])[{}]::{kind}", number + 1));
        let later = after.map_or_else(String::new, |_| format!("AND ({keys}) > ({})", values.join(", ")));
        let some = format!(
            "SELECT {row} AS told_by, ARRAY[{texts}] AS key, {column} AS sealed FROM {table}
              WHERE substring({column} FROM 1 FOR octet_length($1)) <> $1 {later}
              ORDER BY {keys} LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED"
        );
        let some = diesel::sql_query(some)
            .bind::<Binary, _>(head)
            .bind::<Array<Text>, _>(after.unwrap_or_default())
            .bind::<BigInt, _>(i64::try_from(BATCH).map_err(Error::internal)?);
        Ok(some.load(&mut &*conn).await?)
    }

    /// Puts values in the place of others, which are locked.
    async fn replace(&self, conn: &AsyncPgConnection, rows: &[(Vec<String>, Vec<u8>)]) -> Result<()> {
        let Self { table, column, .. } = self;
        let arrays = self
            .key_parts(|number, _, _| format!(", ${}", number + 2))
            .concat();
        let names = self.key_parts(|number, _, _| format!(", k{number}")).concat();
        let same = self.key_parts(|number, name, kind| format!("{table}.{name} = anew.k{number}::{kind}"));
        let replace = format!(
            "UPDATE {table} SET {column} = anew.sealed FROM unnest($1{arrays}) AS anew (sealed{names}) WHERE {}",
            same.join(" AND ")
        );
        let sealed: Vec<&[u8]> = rows.iter().map(|(_, sealed)| sealed.as_slice()).collect();
        let mut replace = diesel::sql_query(replace)
            .into_boxed()
            .bind::<Array<Binary>, _>(sealed);
        for number in 0..self.key.len() {
            let part: Vec<&str> = rows.iter().map(|(key, _)| key[number].as_str()).collect();
            replace = replace.bind::<Array<Text>, _>(part);
        }
        replace.execute(&mut &*conn).await?;
        Ok(())
    }

    /// Goes on after a key: seals some values by the current master key. Answers the last key there was.
    async fn go_on(
        &self,
        db: &Database,
        vault: &Vault,
        after: Option<&[String]>,
        done: &mut Rewrapped,
    ) -> Result<Option<Vec<String>>> {
        let mut conn = db.connection().await?;
        let (last, values, unreadable) = writing_transaction(&mut conn, async |conn| {
            let mut old = self.old(conn, &vault.head(), after).await?;
            let last = (old.len() == BATCH).then(|| old[BATCH - 1].key.clone());
            let mut anew = Vec::with_capacity(old.len());
            let found = old.len();
            for Old { told_by, key, sealed } in old.drain(..) {
                let context = self.of(told_by);
                match vault.open(&context, &sealed) {
                    Ok(plain) => anew.push((key, vault.seal(&context, &plain)?)),
                    Err(error) => {
                        tracing::warn!(
                            table = self.table,
                            ?key,
                            ?error,
                            "a sealed value cannot be opened"
                        );
                    }
                }
            }
            if !anew.is_empty() {
                self.replace(conn, &anew).await?;
            }
            Ok((last, anew.len(), found - anew.len()))
        })
        .await?;
        done.values += values;
        done.unreadable += unreadable;
        Ok(last)
    }

    /// How many values each master key has sealed.
    async fn count(&self, conn: &AsyncPgConnection) -> Result<Vec<Kept>> {
        let Self { table, column, .. } = self;
        // Behind the version and its own length is the name: see the vault.
        let count = format!(
            "SELECT CASE WHEN octet_length({column}) > 2 AND get_byte({column}, 0) = $1
                         THEN substring({column} FROM 3 FOR get_byte({column}, 1)) END AS name, count(*) AS count
               FROM {table} WHERE {column} IS NOT NULL GROUP BY 1"
        );
        let count = diesel::sql_query(count).bind::<Integer, _>(i32::from(Vault::VERSION));
        let counted: Vec<Counted> = count.load(&mut &*conn).await?;
        let kept = counted.into_iter().map(|Counted { name, count }| Kept {
            master_key: name
                .filter(|name| MasterKey::is_name(name))
                .and_then(|name| String::from_utf8(name).ok()),
            table,
            values: count,
        });
        Ok(kept.collect())
    }
}

/// Seals everything by the current master key that an older one has sealed, in batches, each of which is done once it is
/// done: whoever is interrupted begins again, and finds the rest. Beside running servers, and beside itself: a value that
/// somebody is changing is left to them, and looked at again at the end. What cannot be opened stays and is counted. Tells
/// `report` of each batch: the table, and how many values.
///
/// # Errors
/// When the database fails; what has been done stays done.
pub async fn rewrap(db: &Database, vault: &Vault, report: impl Fn(&'static str, usize)) -> Result<Rewrapped> {
    let mut all = Rewrapped::default();
    for _ in 0..PASSES {
        let mut pass = Rewrapped::default();
        for column in ALL {
            let mut after = None;
            loop {
                let before = pass.values;
                after = column.go_on(db, vault, after.as_deref(), &mut pass).await?;
                if pass.values > before {
                    report(column.table, pass.values - before);
                }
                if after.is_none() {
                    break;
                }
            }
        }
        all.values += pass.values;
        all.unreadable = pass.unreadable;
        if pass.values == 0 {
            break;
        }
    }
    Ok(all)
}

/// How many values of each column each master key has sealed.
///
/// # Errors
/// When the database fails.
pub async fn kept(db: &Database) -> Result<Vec<Kept>> {
    let mut conn = db.connection().await?;
    conn_transaction(&mut conn, async |conn| {
        let mut all = Vec::new();
        for column in ALL {
            all.extend(column.count(conn).await?);
        }
        Ok(all)
    })
    .await
}

/// Tells an operator of each master key how much it has sealed: those of the ring, and those that are missing in it.
pub fn told(vault: &Vault, kept: &[Kept]) -> String {
    let ring: Vec<&str> = vault.names().collect();
    let mut names: Vec<Option<&str>> = ring.iter().copied().map(Some).collect();
    for Kept { master_key, .. } in kept {
        if !names.contains(&master_key.as_deref()) {
            names.push(master_key.as_deref());
        }
    }
    let line = |name: Option<&str>| {
        let of_it = kept.iter().filter(|kept| kept.master_key.as_deref() == name);
        let values: i64 = of_it.clone().map(|kept| kept.values).sum();
        let tables: Vec<String> = of_it
            .map(|kept| format!("{} {}", kept.table, kept.values))
            .collect();
        let tables = match tables.is_empty() {
            true => String::new(),
            false => format!(" ({})", tables.join(", ")),
        };
        match name {
            None => format!("not sealed by any master key: {values}{tables}"),
            Some(name) => {
                let state = match ring.iter().position(|known| *known == name) {
                    Some(0) => "seals",
                    Some(_) => "opens",
                    None => "is not in the ring",
                };
                format!("master key {name}  {state}, values sealed by it: {values}{tables}")
            }
        }
    };
    names.into_iter().map(line).collect::<Vec<_>>().join("\n")
}
