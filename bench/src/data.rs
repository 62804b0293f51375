//! What requests are made of: the ids, cursors and words of the data set, and a fixed sequence of choices.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::Result;
use crate::wire::Wire;

/// Stored cursors of a tenant at most, a hundred deals apart.
const CURSORS: usize = 100;
/// Records of a kind that a tenant's requests choose from at most.
const CHOICE: i64 = 20_000;

/// A tenant and what its requests can be about.
pub struct Tenant {
    pub id: Uuid,
    pub user: Uuid,
    pub token: String,
    pub currency: String,
    pub contacts: Vec<Uuid>,
    pub pipelines: Vec<Uuid>,
    pub words: Vec<String>,
    pub places: Vec<Place>,
    pub movers: Vec<Mover>,
}

/// A place in the list of deals, as the server's cursor and as what it stands for.
pub struct Place {
    pub cursor: String,
    pub created_at: chrono::DateTime<chrono::Utc>,
    pub id: Uuid,
}

/// An open deal and the open stages of its pipeline.
pub struct Mover {
    pub id: Uuid,
    pub pipeline: Uuid,
    pub stages: Vec<Uuid>,
    /// The index of the stage that it is in.
    at: AtomicUsize,
}

impl Mover {
    /// The stage to move to next. A deal belongs to one worker at a time, so that every move is one.
    pub fn next(&self) -> Uuid {
        let next = (self.at.load(Ordering::Relaxed) + 1) % self.stages.len();
        self.at.store(next, Ordering::Relaxed);
        self.stages[next]
    }
}

/// A sequence of choices that is the same at every run (SplitMix64).
pub struct Choices(u64);

impl Choices {
    /// The sequence with this number.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % limit.max(1) as u64).unwrap_or_default()
    }

    /// One of these.
    pub fn of<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The id of a record as clients know it (TypeID).
pub fn id(prefix: &str, uuid: Uuid) -> String {
    let value = uuid.as_u128();
    let mut id = format!("{prefix}_");
    id.extend((0..26).map(|place| char::from(DIGITS[(value >> (5 * (25 - place)) & 31) as usize])));
    id
}

/// Signs in to every tenant and reads what there is to ask for.
pub async fn load(wire: &mut Wire, db: &Client, password: &str) -> Result<Vec<Tenant>> {
    // Nobody refreshes the tokens, and a run may take longer than a session waits for that.
    db.batch_execute("UPDATE tenants SET idle_minutes = 600").await?;
    // A person may belong to several tenants; the sign-in names the one that is meant.
    let found = db
        .query(
            "SELECT DISTINCT ON (t.id) t.id, u.id, u.email, t.currency_code
               FROM tenants t JOIN users u ON u.tenant_id = t.id AND u.role = 'ADMIN'
              WHERE EXISTS (SELECT FROM deals d WHERE d.tenant_id = t.id)
              ORDER BY t.id, u.id",
            &[],
        )
        .await?;
    let mut tenants = Vec::new();
    for row in found {
        let (tenant, user): (Uuid, Uuid) = (row.get(0), row.get(1));
        let input =
            json!({ "email": row.get::<_, &str>(2), "password": password, "tenantId": id("tenant", tenant) });
        let document =
            "mutation($input: SignInInput!) { signIn(input: $input) { accessToken userErrors { message } } }";
        let data = wire.query("", document, json!({ "input": input })).await?;
        let token = data["signIn"]["accessToken"]
            .as_str()
            .ok_or_else(|| format!("signing in failed: {data}"))?
            .to_owned();
        let places = places(wire, db, tenant, &token).await?;
        tenants.push(Tenant {
            id: tenant,
            user,
            token,
            currency: row.get(3),
            contacts: ids(db, "contacts", tenant).await?,
            pipelines: ids(db, "pipelines", tenant).await?,
            words: words(db, tenant).await?,
            places,
            movers: movers(db, tenant).await?,
        });
    }
    let complete = |tenant: &Tenant| {
        let counts = [
            tenant.contacts.len(),
            tenant.pipelines.len(),
            tenant.words.len(),
            tenant.places.len(),
        ];
        counts.iter().all(|count| *count > 0) && tenant.movers.len() >= 64
    };
    if tenants.is_empty() || !tenants.iter().all(complete) {
        return Err(
            "the data set is too small: every tenant needs contacts, pipelines and 64 open deals".into(),
        );
    }
    Ok(tenants)
}

async fn ids(db: &Client, table: &str, tenant: Uuid) -> Result<Vec<Uuid>> {
    let sql = format!("SELECT id FROM {table} WHERE tenant_id = $1 ORDER BY id LIMIT $2");
    let rows = db.query(&sql, &[&tenant, &CHOICE]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What people type into a search box: last names, and beginnings of whole names.
async fn words(db: &Client, tenant: Uuid) -> Result<Vec<String>> {
    let sql = "SELECT name FROM contacts WHERE tenant_id = $1 ORDER BY md5(id::text) LIMIT 500";
    let rows = db.query(sql, &[&tenant]).await?;
    let word = |(index, row): (usize, &tokio_postgres::Row)| {
        let name = row.get::<_, &str>(0);
        let (first, last) = name.rsplit_once(' ')?;
        let word = if index % 2 == 0 {
            last.to_owned()
        } else {
            format!("{first} {}", last.chars().take(3).collect::<String>())
        };
        // Signs that patterns or JSON give a meaning are another test's matter.
        let plain = |sign: char| sign.is_alphanumeric() || matches!(sign, ' ' | '-');
        (word.chars().count() >= 3 && word.chars().all(plain)).then_some(word)
    };
    Ok(rows.iter().enumerate().filter_map(word).collect())
}

/// Walks the list of deals as a client does, and keeps a cursor of every page.
async fn places(wire: &mut Wire, db: &Client, tenant: Uuid, token: &str) -> Result<Vec<Place>> {
    let document = "query($after: Cursor) { deals(first: 100, after: $after) { edges { cursor } pageInfo { hasNextPage } } }";
    let mut cursors = Vec::new();
    let mut after = Value::Null;
    while cursors.len() < CURSORS {
        let mut data = wire.query(token, document, json!({ "after": after })).await?;
        let more = data["deals"]["pageInfo"]["hasNextPage"] == true;
        let Some(last) = data["deals"]["edges"].as_array_mut().and_then(Vec::pop) else {
            break;
        };
        // Twenty more must follow, for the page to be a full one.
        if !more {
            break;
        }
        after = last["cursor"].clone();
        cursors.push(after.as_str().unwrap_or_default().to_owned());
    }
    let sql = "SELECT created_at, id FROM (
                   SELECT created_at, id, row_number() OVER (ORDER BY created_at DESC, id DESC) AS number
                     FROM deals WHERE tenant_id = $1) AS numbered
                WHERE number % 100 = 0 ORDER BY number LIMIT $2";
    let rows = db.query(sql, &[&tenant, &(cursors.len() as i64)]).await?;
    Ok(cursors
        .into_iter()
        .zip(rows)
        .map(|(cursor, row)| Place {
            cursor,
            created_at: row.get(0),
            id: row.get(1),
        })
        .collect())
}

/// Open deals that have somewhere to go.
pub async fn movers(db: &Client, tenant: Uuid) -> Result<Vec<Mover>> {
    let sql = "SELECT d.id, d.stage_id, s.stages, d.pipeline_id FROM deals d
                 JOIN (SELECT pipeline_id, array_agg(id ORDER BY position) AS stages FROM pipeline_stages
                        WHERE tenant_id = $1 AND kind = 'OPEN' GROUP BY pipeline_id HAVING count(*) > 1) s
                   ON s.pipeline_id = d.pipeline_id
                WHERE d.tenant_id = $1 AND d.status = 'OPEN' ORDER BY d.id LIMIT $2";
    let rows = db.query(sql, &[&tenant, &CHOICE]).await?;
    let mover = |row: &tokio_postgres::Row| {
        let (stage, stages): (Uuid, Vec<Uuid>) = (row.get(1), row.get(2));
        let at = stages.iter().position(|one| *one == stage)?;
        Some(Mover {
            id: row.get(0),
            pipeline: row.get(3),
            stages,
            at: at.into(),
        })
    };
    Ok(rows.iter().filter_map(mover).collect())
}
