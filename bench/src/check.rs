//! Nothing is measured that does not answer rightly: what the server says is held against what plain SQL says.

use serde_json::Value;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::Result;
use crate::data::{Choices, Tenant, id};
use crate::sql::Db;
use crate::wire::Wire;
use crate::work::{About, Workload};

/// Requests of each workload that are compared.
const SAMPLES: usize = 25;

// Ids stand as `kind:uuid` in what these answer; `rewrite` makes them the ids that clients know. Amounts are written with
// two digits: the data set has no currency of another kind.

const BY_ID: &str = "
    SELECT jsonb_build_object('contact', jsonb_build_object(
        'id', 'contact:' || c.id, 'name', c.name, 'email', c.email, 'jobTitle', c.job_title,
        'company', CASE WHEN k.id IS NOT NULL
                        THEN jsonb_build_object('id', 'company:' || k.id, 'name', k.name, 'domain', k.domain) END))
      FROM contacts c LEFT JOIN companies k ON k.tenant_id = c.tenant_id AND k.id = c.company_id
     WHERE c.tenant_id = $1 AND c.id = $2";

/// `{}` is for what the nested page shows besides.
const PAGE: &str = "
    SELECT jsonb_agg(jsonb_build_object(
        'id', 'deal:' || d.id, 'name', d.name,
        'amount', jsonb_build_object('amount', round(d.amount / 100.0, 2)::text, 'currencyCode', d.currency_code),
        'stage', (SELECT jsonb_build_object('id', 'stage:' || s.id, 'name', s.name) FROM pipeline_stages s
                   WHERE s.tenant_id = $1 AND s.id = d.stage_id),
        'contact', (SELECT jsonb_build_object('id', 'contact:' || c.id, 'name', c.name{contact}) FROM contacts c
                     WHERE c.tenant_id = $1 AND c.id = d.contact_id){deal})
        ORDER BY d.created_at DESC, d.id DESC)
      FROM (SELECT * FROM deals WHERE tenant_id = $1 AND (created_at, id) < ($2, $3)
             ORDER BY created_at DESC, id DESC LIMIT 20) AS d";

const CONTACT: &str = ", 'email', c.email, 'company',
    (SELECT jsonb_build_object('id', 'company:' || k.id, 'name', k.name) FROM companies k
      WHERE k.tenant_id = $1 AND k.id = c.company_id)";

const INTERACTIONS: &str = ", 'interactions', jsonb_build_object('nodes', coalesce(
    (SELECT jsonb_agg(jsonb_build_object('id', 'interaction:' || i.id, 'kind', i.kind, 'subject', i.subject,
                'occurredAt', to_char(i.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))
                ORDER BY i.occurred_at DESC, i.id DESC)
       FROM (SELECT * FROM interactions WHERE tenant_id = $1 AND deal_id = d.id
              ORDER BY occurred_at DESC, id DESC LIMIT 5) AS i), '[]'))";

const BOARD: &str = "
    SELECT jsonb_build_object('pipeline', jsonb_build_object('id', 'pipeline:' || p.id, 'name', p.name, 'stages',
        (SELECT jsonb_agg(jsonb_build_object('id', 'stage:' || s.id, 'name', s.name, 'dealCount', t.deals,
            'totalAmount', jsonb_build_object('amount', round(t.amount / 100.0, 2)::text, 'currencyCode', n.currency_code),
            'weightedAmount', jsonb_build_object('amount', round(round(t.weighted / 100.0) / 100.0, 2)::text,
                                                 'currencyCode', n.currency_code),
            'deals', jsonb_build_object('nodes', coalesce(
                (SELECT jsonb_agg(jsonb_build_object('id', 'deal:' || d.id, 'name', d.name, 'amount',
                            jsonb_build_object('amount', round(d.amount / 100.0, 2)::text, 'currencyCode', d.currency_code))
                            ORDER BY d.created_at DESC, d.id DESC)
                   FROM (SELECT * FROM deals WHERE tenant_id = $1 AND stage_id = s.id
                          ORDER BY created_at DESC, id DESC LIMIT 10) AS d), '[]'))) ORDER BY s.position)
           FROM pipeline_stages s CROSS JOIN LATERAL (
                SELECT count(*) AS deals,
                       coalesce(sum(amount) FILTER (WHERE currency_code = n.currency_code), 0) AS amount,
                       coalesce(sum(amount * win_probability) FILTER (WHERE currency_code = n.currency_code), 0) AS weighted
                  FROM deals WHERE tenant_id = $1 AND stage_id = s.id) AS t
          WHERE s.tenant_id = $1 AND s.pipeline_id = p.id)))
      FROM pipelines p JOIN tenants n ON n.id = p.tenant_id WHERE p.tenant_id = $1 AND p.id = $2";

const SEARCH: &str = "
    SELECT jsonb_build_object('contacts', jsonb_build_object(
        'totalCount', (SELECT count(*) FROM contacts WHERE tenant_id = $1 AND search LIKE $2),
        'nodes', coalesce((SELECT jsonb_agg(jsonb_build_object('id', 'contact:' || id, 'name', name, 'email', email)
                                  ORDER BY created_at DESC, id DESC)
                             FROM (SELECT * FROM contacts WHERE tenant_id = $1 AND search LIKE $2
                                    ORDER BY created_at DESC, id DESC LIMIT 20) AS found), '[]')))";

/// A move in all the places where it must have left its mark.
const MOVED: &str = "
    SELECT d.stage_id = $3 AND d.version = $4 + 1
           AND (SELECT count(*) = 1 AND min(c.to_stage_id::text) = $3::text FROM deal_stage_changes c
                 WHERE c.tenant_id = $1 AND c.deal_id = $2 AND c.exited_at IS NULL)
           AND (SELECT count(*) = 1 FROM idempotency_keys k JOIN events e ON e.tenant_id = $1 AND e.position = k.position
                 WHERE k.tenant_id = $1 AND k.key = $5 AND e.record_id = $2 AND e.kind = 'STAGE_CHANGED'
                   AND e.position <= (SELECT position FROM histories WHERE tenant_id = $1))
      FROM deals d WHERE d.tenant_id = $1 AND d.id = $2";

// Moments are compared to the second.

fn rewrite(value: &mut Value) {
    match value {
        Value::String(text) => {
            let bytes = text.as_bytes();
            if bytes.len() > 20 && bytes[10] == b'T' && bytes[19] == b'.' && text.ends_with('Z') {
                text.replace_range(19..text.len() - 1, "");
            }
            if let Some((kind, uuid)) = text.split_once(':')
                && let Ok(uuid) = Uuid::parse_str(uuid)
            {
                *text = id(kind, uuid);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(rewrite),
        Value::Object(members) => members.values_mut().for_each(rewrite),
        _ => {}
    }
}

/// Compares answers, and the number of records that both ways of asking PostgreSQL read.
pub async fn answers(
    wire: &mut Wire,
    db: &Client,
    ways: [&Db; 2],
    tenants: &[Tenant],
    workload: Workload,
) -> Result<()> {
    let mut choices = Choices::new(1);
    for _ in 0..SAMPLES {
        let (tenant, about) = workload.choose(tenants, &mut choices, (0, 1));
        if let About::Move { .. } = about {
            moved(wire, db, ways, tenants, &mut choices).await?;
            continue;
        }
        let row = match &about {
            About::Contact(contact) => db.query_one(BY_ID, &[&tenant.id, contact]).await?,
            About::Place(place) => {
                let (contact, deal) = match workload {
                    Workload::Nested => (CONTACT, INTERACTIONS),
                    _ => ("", ""),
                };
                let sql = PAGE.replace("{contact}", contact).replace("{deal}", deal);
                db.query_one(&sql, &[&tenant.id, &place.created_at, &place.id])
                    .await?
            }
            About::Pipeline(pipeline) => db.query_one(BOARD, &[&tenant.id, pipeline]).await?,
            About::Word(word) => {
                let pattern = format!("%{}%", word.to_lowercase());
                db.query_one(SEARCH, &[&tenant.id, &pattern]).await?
            }
            About::Move { .. } => continue,
        };
        let mut expected: Value = row.get(0);
        rewrite(&mut expected);
        let mut answer: Value =
            serde_json::from_slice(wire.post(&tenant.token, &workload.body(&about)).await?)?;
        rewrite(&mut answer);
        let told = match &about {
            About::Place(_) => &answer["data"]["deals"]["nodes"],
            _ => &answer["data"],
        };
        if *told != expected {
            return Err(difference(workload, &told.to_string(), &expected.to_string()).into());
        }
        let [served, plain] = [
            ways[0].run(workload, tenant, &about).await?,
            ways[1].run(workload, tenant, &about).await?,
        ];
        if served != plain || served == 0 {
            return Err(format!("{}: {served} and {plain} records are read", workload.name()).into());
        }
    }
    Ok(())
}

/// What the server and SQL say, from shortly before where they part.
fn difference(workload: Workload, told: &str, expected: &str) -> String {
    let parting = told
        .chars()
        .zip(expected.chars())
        .take_while(|(a, b)| a == b)
        .count();
    let near = |text: &str| {
        text.chars()
            .skip(parting.saturating_sub(100))
            .take(300)
            .collect::<String>()
    };
    format!(
        "{}: the server answers\n…{}…\nand SQL\n…{}…",
        workload.name(),
        near(told),
        near(expected)
    )
}

/// Moves a deal in every way, and looks at what each has written.
async fn moved(
    wire: &mut Wire,
    db: &Client,
    ways: [&Db; 2],
    tenants: &[Tenant],
    choices: &mut Choices,
) -> Result<()> {
    for way in [None, Some(ways[0]), Some(ways[1])] {
        let workload = Workload::Move;
        let (tenant, about) = workload.choose(tenants, choices, (0, 1));
        let About::Move { deal, stage, key } = &about else {
            continue;
        };
        let sql = "SELECT version FROM deals WHERE tenant_id = $1 AND id = $2";
        let before: i32 = db.query_one(sql, &[&tenant.id, deal]).await?.get(0);
        match way {
            Some(way) => {
                way.run(workload, tenant, &about).await?;
            }
            None => {
                let body = workload.body(&about);
                let first = wire.post(&tenant.token, &body).await?.to_vec();
                let again = wire.post(&tenant.token, &body).await?;
                if first != again {
                    return Err("a repeated moveDeal is answered differently".into());
                }
            }
        }
        let marked = db
            .query_one(MOVED, &[&tenant.id, deal, stage, &before, key])
            .await?;
        if marked.get::<_, Option<bool>>(0) != Some(true) {
            return Err("a move has not left all of its marks".into());
        }
    }
    Ok(())
}
