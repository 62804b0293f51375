//! The same work done by PostgreSQL alone, over connections like the server's.

use chrono::{DateTime, Utc};
use futures::try_join;
use serde_json::json;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row, Statement};
use uuid::Uuid;

use crate::Result;
use crate::data::Tenant;
use crate::work::{About, Workload};

/// How PostgreSQL is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As the server asks: its statements, in a transaction of the runtime role with the tenant set, under row-level
    /// security.
    Served,
    /// As one would by hand: as superuser without row-level security, the tenant in every condition, only the columns
    /// that the answer shows, one statement a level, the board as one statement; no transaction around reads.
    Plain,
}

/// A connection with its prepared statements.
pub struct Db {
    client: Client,
    way: Way,
    contacts: Statement,
    companies: Statement,
    stages: Statement,
    deals: Statement,
    interactions: Statement,
    pipelines: Statement,
    stages_of: Statement,
    totals: Statement,
    currency: Statement,
    deals_of: Statement,
    board: Statement,
    search: Statement,
    lock: Statement,
    stage: Statement,
    update: Statement,
    exit: Statement,
    enter: Statement,
    append: Statement,
}

type Value<'a> = &'a (dyn ToSql + Sync);

/// Connects; `url` is for a superuser.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Ends with the client; what goes wrong is told by the query that it went wrong for.
    tokio::spawn(connection);
    Ok(client)
}

/// The columns that the server reads of a table's rows: all but those that none of the workloads shows.
async fn columns(client: &Client, table: &str, unasked: &[&str]) -> Result<String> {
    let sql = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
                WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
                  AND attname NOT IN ('tenant_id', 'search') AND attname <> ALL ($2)";
    Ok(client.query_one(sql, &[&table, &unasked]).await?.get(0))
}

impl Db {
    /// A connection of its own.
    pub async fn open(url: &str, way: Way) -> Result<Self> {
        let client = connect(url).await?;
        let setup = match way {
            Way::Served => {
                "SET ROLE dealstream_app; SET plan_cache_mode = force_generic_plan; SET timezone = 'UTC'"
            }
            Way::Plain => "SET plan_cache_mode = force_generic_plan; SET timezone = 'UTC'",
        };
        let plain = way == Way::Plain;
        // In the plain way the tenant is one value more, after the others.
        let tenant = |number: usize| match way {
            Way::Served => String::new(),
            Way::Plain => format!(" AND tenant_id = ${number}"),
        };
        let some = |table, unasked| columns(&client, table, unasked);
        let (contact, company, stage, deal, interaction, pipeline, whole_deal) = if plain {
            let names = [
                "id, name, email, job_title, company_id",
                "id, name, domain",
                "id, name, pipeline_id, kind, win_probability",
                "id, name, amount, currency_code, stage_id, contact_id, created_at",
                "id, kind, subject, occurred_at, deal_id",
                "id, name",
            ];
            let [a, b, c, d, e, f] = names.map(str::to_owned);
            let whole = d.clone();
            (a, b, c, d, e, f, whole)
        } else {
            try_join!(
                some("contacts", &["source", "rating", "notes", "owner_id"]),
                some("companies", &["email", "phone", "address", "owner_id"]),
                some("pipeline_stages", &[]),
                some(
                    "deals",
                    &[
                        "expected_close_date",
                        "closed_at",
                        "lost_reason",
                        "next_step",
                        "description"
                    ]
                ),
                some(
                    "interactions",
                    &[
                        "direction",
                        "channel",
                        "content",
                        "outcome",
                        "next_action",
                        "scheduled_at",
                        "completed_at",
                    ]
                ),
                some("pipelines", &[]),
                some("deals", &[])
            )?
        };
        client.batch_execute(setup).await?;
        let column = if plain { "tenant_id, " } else { "" };
        let own = |number: usize| {
            if plain {
                format!("${number}, ")
            } else {
                String::new()
            }
        };
        let where_own = |number: usize| {
            if plain {
                format!(" WHERE tenant_id = ${number}")
            } else {
                String::new()
            }
        };
        let prepare = |sql: String| {
            let client = &client;
            async move {
                client
                    .prepare(&sql)
                    .await
                    .map_err(|error| format!("{error:?} in: {sql}"))
            }
        };
        let by_id = |columns: &str, table: &str| {
            format!("SELECT {columns} FROM {table} WHERE id = any($1){}", tenant(2))
        };
        let children = |columns: &str, table: &str, parent: &str, order: &str| {
            format!(
                "SELECT child.* FROM unnest($1::uuid[]) AS parent (id) CROSS JOIN LATERAL
                     (SELECT {columns} FROM {table} WHERE {parent} = parent.id{} ORDER BY {order} DESC, id DESC LIMIT $2)
                     AS child",
                tenant(3)
            )
        };
        let written = if plain {
            "stage_id = $1, status = $2, win_probability = $3, stage_entered_at = $4, closed_at = $5, lost_reason = $6, \
             updated_at = $4, version = version + 1 WHERE id = $7 AND tenant_id = $8"
        } else {
            "stage_id = $1, name = name, amount = amount, currency_code = currency_code, status = $2, win_probability = $3, \
             contact_id = contact_id, company_id = company_id, owner_id = owner_id, \
             expected_close_date = expected_close_date, stage_entered_at = $4, closed_at = $5, lost_reason = $6, \
             next_step = next_step, description = description, updated_at = $4, version = version + 1 WHERE id = $7"
        };
        Ok(Self {
            way,
            contacts: prepare(by_id(&contact, "contacts")).await?,
            companies: prepare(by_id(&company, "companies")).await?,
            stages: prepare(by_id(&stage, "pipeline_stages")).await?,
            deals: prepare(format!(
                "SELECT {deal} FROM deals WHERE (created_at, id) < ($1, $2){} ORDER BY created_at DESC, id DESC LIMIT $3",
                tenant(4)
            ))
            .await?,
            interactions: prepare(children(&interaction, "interactions", "deal_id", "occurred_at")).await?,
            pipelines: prepare(by_id(&pipeline, "pipelines")).await?,
            stages_of: prepare(format!(
                "SELECT {stage} FROM pipeline_stages WHERE pipeline_id = any($1){} ORDER BY pipeline_id, position",
                tenant(2)
            ))
            .await?,
            totals: prepare(
                "SELECT stage.id AS stage_id, total.*
                   FROM unnest($1::uuid[]) AS stage (id) CROSS JOIN LATERAL (
                        SELECT currency_code, count(*) AS deals, sum(amount), sum(amount * win_probability)
                          FROM deals WHERE stage_id = stage.id GROUP BY currency_code) AS total
                  ORDER BY stage.id, deals DESC, currency_code"
                    .to_owned(),
            )
            .await?,
            currency: prepare("SELECT id, name, currency_code, created_at, updated_at, version FROM tenants WHERE id = any($1)".to_owned()).await?,
            deals_of: prepare(children(&deal, "deals", "stage_id", "created_at")).await?,
            board: prepare(
                "SELECT p.id, p.name, s.id, s.name, t.deals, t.amount, t.weighted, d.id, d.name, d.amount, d.currency_code
                   FROM pipelines p JOIN pipeline_stages s ON s.tenant_id = p.tenant_id AND s.pipeline_id = p.id
                  CROSS JOIN LATERAL (
                        SELECT count(*) AS deals, sum(amount) FILTER (WHERE currency_code = $3) AS amount,
                               sum(amount * win_probability) FILTER (WHERE currency_code = $3) AS weighted
                          FROM deals WHERE tenant_id = $2 AND stage_id = s.id) AS t
                   LEFT JOIN LATERAL (
                        SELECT id, name, amount, currency_code FROM deals WHERE tenant_id = $2 AND stage_id = s.id
                         ORDER BY created_at DESC, id DESC LIMIT 10) AS d ON true
                  WHERE p.tenant_id = $2 AND p.id = $1 ORDER BY s.position"
                    .to_owned(),
            )
            .await?,
            search: prepare(if plain {
                "SELECT id, name, email, created_at, count(*) OVER () FROM contacts
                  WHERE search LIKE lower($1) AND tenant_id = $3 ORDER BY created_at DESC, id DESC LIMIT $2"
                    .to_owned()
            } else {
                format!(
                    "WITH found AS (SELECT place, id, created_at FROM find_contacts(lower($1)))
                     SELECT {contact}, (SELECT count(*) FROM found) FROM contacts
                      WHERE ctid = ANY (ARRAY(SELECT place FROM found ORDER BY created_at DESC, id DESC LIMIT $2))
                      ORDER BY created_at DESC, id DESC"
                )
            })
            .await?,
            lock: prepare(format!("SELECT {whole_deal} FROM deals WHERE id = $1{} FOR UPDATE", tenant(2))).await?,
            stage: prepare(format!(
                "SELECT kind, win_probability, {} FROM pipeline_stages WHERE id = $1{}",
                if plain { "id" } else { &stage },
                tenant(2)
            ))
            .await?,
            update: prepare(format!("UPDATE deals SET {written}")).await?,
            exit: prepare(format!(
                "UPDATE deal_stage_changes SET exited_at = $1 WHERE deal_id = $2 AND exited_at IS NULL{}",
                tenant(3)
            ))
            .await?,
            enter: prepare(format!(
                "INSERT INTO deal_stage_changes ({column}id, deal_id, from_stage_id, to_stage_id, entered_at, changed_by_id)
                 VALUES ({}$1, $2, $3, $4, $5, $6)",
                own(7)
            ))
            .await?,
            append: prepare(format!(
                "WITH counted AS (
                     UPDATE histories SET position = position + 1{} RETURNING epoch, position
                 ), appended AS (
                     INSERT INTO events ({column}position, id, occurred_at, actor_id, entity, record_id, kind, change)
                     SELECT {tenant_value}position, $3, $1, $2, $4, $5, $6, $7 FROM counted
                 ), kept AS (
                     INSERT INTO idempotency_keys
                            ({column}actor_id, key, operation, input_hash, answer, epoch, position, created_at)
                     SELECT {tenant_value}$2, $8, $9, $10, $11, epoch, position, $1 FROM counted
                 )
                 SELECT epoch, position FROM counted",
                where_own(12),
                tenant_value = if plain { "$12::uuid, " } else { "" },
            ))
            .await?,
            client,
        })
    }

    async fn read<const N: usize>(
        &self,
        tenant: &Uuid,
        statement: &Statement,
        values: [Value<'_>; N],
    ) -> Result<Vec<Row>> {
        let mut values = values.to_vec();
        if self.way == Way::Plain {
            values.push(tenant);
        }
        Ok(self.client.query(statement, &values).await?)
    }

    async fn begin(&self, tenant: &Tenant, write: bool) -> Result<()> {
        let begin = match (self.way, write) {
            (Way::Plain, true) => "BEGIN".to_owned(),
            (Way::Plain, false) => return Ok(()),
            (Way::Served, true) => format!("BEGIN; SET LOCAL app.tenant_id = '{}'", tenant.id),
            (Way::Served, false) => format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL app.tenant_id = '{}'",
                tenant.id
            ),
        };
        Ok(self.client.batch_execute(&begin).await?)
    }

    async fn end(&self) -> Result<()> {
        match self.way {
            Way::Plain => Ok(()),
            Way::Served => Ok(self.client.batch_execute("COMMIT").await?),
        }
    }

    /// Does the work of one request, and answers how many records were read or written.
    pub async fn run(&self, workload: Workload, tenant: &Tenant, about: &About<'_>) -> Result<usize> {
        match about {
            About::Contact(contact) => self.by_id(tenant, *contact).await,
            About::Place(place) => {
                let nested = workload == Workload::Nested;
                self.list(tenant, place.created_at, place.id, nested).await
            }
            About::Pipeline(pipeline) => self.board(tenant, *pipeline).await,
            About::Word(word) => self.search(tenant, word).await,
            About::Move { deal, stage, key } => self.move_deal(tenant, *deal, *stage, key).await,
        }
    }

    async fn by_id(&self, tenant: &Tenant, contact: Uuid) -> Result<usize> {
        let ids = vec![contact];
        let ((), contacts) = try_join!(
            self.begin(tenant, false),
            self.read(&tenant.id, &self.contacts, [&ids])
        )?;
        let companies = distinct(contacts.iter().filter_map(|row| row.get("company_id")));
        let companies = match companies.is_empty() {
            true => Vec::new(),
            false => self.read(&tenant.id, &self.companies, [&companies]).await?,
        };
        self.end().await?;
        Ok(contacts.len() + companies.len())
    }

    async fn list(
        &self,
        tenant: &Tenant,
        created_at: DateTime<Utc>,
        id: Uuid,
        nested: bool,
    ) -> Result<usize> {
        let ((), deals) = try_join!(
            self.begin(tenant, false),
            self.read(&tenant.id, &self.deals, [&created_at, &id, &21_i64])
        )?;
        let deals = &deals[..deals.len().min(20)];
        let stages = distinct(deals.iter().map(|row| row.get("stage_id")));
        let contacts = distinct(deals.iter().filter_map(|row| row.get("contact_id")));
        let ids: Vec<Uuid> = deals.iter().map(|row| row.get("id")).collect();
        let interactions = async {
            match nested {
                // One more than is shown tells whether there is another page, as with the deals.
                true => self.read(&tenant.id, &self.interactions, [&ids, &6_i64]).await,
                false => Ok(Vec::new()),
            }
        };
        let (stages, contacts, interactions) = try_join!(
            self.read(&tenant.id, &self.stages, [&stages]),
            self.read(&tenant.id, &self.contacts, [&contacts]),
            interactions
        )?;
        let mut records = deals.len() + stages.len() + contacts.len() + interactions.len();
        let companies = distinct(contacts.iter().filter_map(|row| row.get("company_id")));
        if nested && !companies.is_empty() {
            records += self.read(&tenant.id, &self.companies, [&companies]).await?.len();
        }
        self.end().await?;
        Ok(records)
    }

    async fn board(&self, tenant: &Tenant, pipeline: Uuid) -> Result<usize> {
        if self.way == Way::Plain {
            let rows = self
                .client
                .query(&self.board, &[&pipeline, &tenant.id, &tenant.currency])
                .await?;
            return Ok(rows
                .iter()
                .filter(|row| row.get::<_, Option<Uuid>>(7).is_some())
                .count());
        }
        let (ids, tenants) = (vec![pipeline], vec![tenant.id]);
        let ((), _) = try_join!(
            self.begin(tenant, false),
            self.read(&tenant.id, &self.pipelines, [&ids])
        )?;
        let stages = self.read(&tenant.id, &self.stages_of, [&ids]).await?;
        let stages: Vec<Uuid> = stages.iter().map(|row| row.get("id")).collect();
        let (_, _, deals) = try_join!(
            self.read(&tenant.id, &self.totals, [&stages]),
            self.read(&tenant.id, &self.currency, [&tenants]),
            self.read(&tenant.id, &self.deals_of, [&stages, &11_i64])
        )?;
        self.end().await?;
        let of = |stage: &Uuid| {
            let deals = deals
                .iter()
                .filter(|row| row.get::<_, Uuid>("stage_id") == *stage);
            deals.count().min(10)
        };
        Ok(stages.iter().map(of).sum())
    }

    async fn search(&self, tenant: &Tenant, word: &str) -> Result<usize> {
        let pattern = format!("%{}%", word.to_lowercase());
        let ((), contacts) = try_join!(
            self.begin(tenant, false),
            self.read(&tenant.id, &self.search, [&pattern, &21_i64])
        )?;
        self.end().await?;
        let count = contacts.first().map_or(0, |row| row.get::<_, i64>(row.len() - 1));
        Ok(contacts.len().min(20) + usize::try_from(count)?)
    }

    async fn move_deal(&self, tenant: &Tenant, deal: Uuid, stage: Uuid, key: &str) -> Result<usize> {
        let ((), from, to) = try_join!(
            self.begin(tenant, true),
            self.read(&tenant.id, &self.lock, [&deal]),
            self.read(&tenant.id, &self.stage, [&stage])
        )?;
        let from: Uuid = from.first().ok_or("no deal")?.get("stage_id");
        let to = to.first().ok_or("no stage")?;
        let (status, probability): (&str, i32) = (to.get(0), to.get(1));
        let (now, change, event) = (Utc::now(), Uuid::now_v7(), Uuid::now_v7());
        let moved = json!({
            "pipeline_id": tenant.pipelines[0], "from_stage_id": from, "to_stage_id": stage,
            "stage_change_id": change, "status": status, "version": 2,
        });
        // As large as what the server keeps: the deal and the change as JSON.
        let answer = json!({
            "deal": { "id": deal, "pipeline_id": tenant.pipelines[0], "stage_id": stage, "name": "A deal of some name",
                "amount": 1_234_500, "currency_code": "USD", "status": status, "win_probability": probability,
                "contact_id": deal, "company_id": deal, "owner_id": tenant.user, "expected_close_date": "2026-11-21",
                "stage_entered_at": now.to_rfc3339(), "closed_at": null, "lost_reason": null, "next_step": null,
                "description": null, "created_at": now.to_rfc3339(), "updated_at": now.to_rfc3339(), "version": 2 },
            "stage_change": { "id": change, "deal_id": deal, "from_stage_id": from, "to_stage_id": stage,
                "entered_at": now.to_rfc3339(), "exited_at": null, "changed_by_id": tenant.user, "lost_reason": null },
        });
        let none: (Option<DateTime<Utc>>, Option<&str>) = (None, None);
        let update: [Value<'_>; 7] = [&stage, &status, &probability, &now, &none.0, &none.1, &deal];
        let enter: [Value<'_>; 6] = [&change, &deal, &from, &stage, &now, &tenant.user];
        let hash = [7_u8; 32].as_slice();
        let append: [Value<'_>; 11] = [
            &now,
            &tenant.user,
            &event,
            &"deal",
            &deal,
            &"STAGE_CHANGED",
            &moved,
            &key,
            &"moveDeal",
            &hash,
            &answer,
        ];
        let writes = async {
            try_join!(
                self.read(&tenant.id, &self.update, update),
                self.read(&tenant.id, &self.exit, [&now, &deal]),
                self.read(&tenant.id, &self.enter, enter)
            )
        };
        let append = self.read(&tenant.id, &self.append, append);
        let commit = async { Ok(self.client.batch_execute("COMMIT").await?) };
        let appended = match self.way {
            Way::Plain => {
                let (_, appended, ()) = try_join!(writes, append, commit)?;
                appended
            }
            Way::Served => {
                writes.await?;
                let (appended, ()) = try_join!(append, commit)?;
                appended
            }
        };
        Ok(appended.len())
    }
}

/// Each id once, in the order of the first.
fn distinct(ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
    let mut seen = Vec::new();
    for id in ids {
        if !seen.contains(&id) {
            seen.push(id);
        }
    }
    seen
}
