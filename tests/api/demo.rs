//! The demo data: there once, the same each time, and no different from what people would have entered.

use std::sync::{Arc, Mutex};

use chrono::NaiveDate;
use dealstream::db::migrate;
use dealstream::demo::{self, Report, Size};
use serde_json::json;
use tokio_postgres::{Client as Postgres, NoTls};

use crate::support::TestApp;
use crate::support::app::config;
use crate::support::cluster;

/// An application over a database of its own.
async fn own_app(name: &str) -> TestApp {
    let url = cluster::create_database(name).await;
    migrate::migrate(&url).await.unwrap();
    TestApp::on(url, config()).await
}

/// Sees all tenants: for questions about the database as a whole.
async fn superuser(app: &TestApp) -> Postgres {
    let (client, connection) = tokio_postgres::connect(&app.url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn numbers(db: &Postgres, sql: &str) -> Vec<i64> {
    let rows = db.query(sql, &[]).await.unwrap();
    let row = rows.first().unwrap();
    (0..row.len()).map(|column| row.get(column)).collect()
}

/// Every rule that the data must keep, as a query that finds what breaks it.
const RULES: [(&str, &str); 15] = [
    (
        "the history of each tenant is dense",
        "SELECT 1 FROM histories h LEFT JOIN events e USING (tenant_id)
          GROUP BY h.tenant_id, h.position
         HAVING count(e.position) <> h.position OR min(e.position) <> 1 OR max(e.position) <> h.position",
    ),
    (
        "the history is told in order",
        "SELECT 1 FROM (SELECT occurred_at < lag(occurred_at) OVER (PARTITION BY tenant_id ORDER BY position) AS back
                          FROM events) told WHERE back",
    ),
    (
        "every record was created once, in its own tenant's history",
        "SELECT 1 FROM (SELECT tenant_id, id, created_at FROM companies
                  UNION ALL SELECT tenant_id, id, created_at FROM contacts
                  UNION ALL SELECT tenant_id, id, created_at FROM deals
                  UNION ALL SELECT tenant_id, id, created_at FROM interactions
                  UNION ALL SELECT tenant_id, id, created_at FROM users
                  UNION ALL SELECT tenant_id, id, created_at FROM pipeline_stages) record
           LEFT JOIN events e ON e.tenant_id = record.tenant_id AND e.record_id = record.id AND e.kind = 'CREATED'
          GROUP BY record.tenant_id, record.id, record.created_at
         HAVING count(e.id) <> 1 OR min(e.occurred_at) <> record.created_at",
    ),
    (
        "every move has its event, which says the same",
        "SELECT 1 FROM deal_stage_changes s
           LEFT JOIN events e ON e.tenant_id = s.tenant_id AND e.record_id = s.deal_id AND e.kind = 'STAGE_CHANGED'
                AND e.occurred_at = s.entered_at AND e.actor_id IS NOT DISTINCT FROM s.changed_by_id
          WHERE (s.from_stage_id IS NOT NULL) <> (e.id IS NOT NULL)",
    ),
    (
        "a move is its owner's, who has the deal from its beginning",
        "SELECT 1 FROM events moved JOIN events created ON created.tenant_id = moved.tenant_id
                AND created.record_id = moved.record_id AND created.kind = 'CREATED'
          WHERE moved.kind = 'STAGE_CHANGED' AND (moved.change -> 'owner_id' IS NULL
                OR moved.change -> 'owner_id' <> created.change -> 'owner_id')",
    ),
    (
        "every event of a move has its row",
        "SELECT 1 FROM (SELECT count(*) FROM events WHERE kind = 'STAGE_CHANGED') events,
                       (SELECT count(*) FROM deal_stage_changes WHERE from_stage_id IS NOT NULL) moves
          WHERE events.count <> moves.count",
    ),
    (
        "stays follow each other without a gap",
        "SELECT 1 FROM (SELECT from_stage_id, entered_at,
                               lag(to_stage_id) OVER way AS before_id, lag(exited_at) OVER way AS exited_at
                          FROM deal_stage_changes
                        WINDOW way AS (PARTITION BY tenant_id, deal_id ORDER BY entered_at)) stays
          WHERE from_stage_id IS DISTINCT FROM before_id OR (before_id IS NOT NULL AND exited_at <> entered_at)",
    ),
    (
        "each deal is in one stage, that of its last stay",
        "SELECT 1 FROM deals d LEFT JOIN deal_stage_changes s
             ON s.tenant_id = d.tenant_id AND s.deal_id = d.id AND s.exited_at IS NULL
          WHERE s.id IS NULL OR s.to_stage_id <> d.stage_id OR s.entered_at <> d.stage_entered_at
             OR s.lost_reason IS DISTINCT FROM d.lost_reason",
    ),
    (
        "a deal's way begins with the deal",
        "SELECT 1 FROM deals d LEFT JOIN deal_stage_changes s
             ON s.tenant_id = d.tenant_id AND s.deal_id = d.id AND s.from_stage_id IS NULL
          GROUP BY d.tenant_id, d.id, d.created_at
         HAVING count(s.id) <> 1 OR min(s.entered_at) <> d.created_at",
    ),
    (
        "a deal stands as its stage says",
        "SELECT 1 FROM deals d JOIN pipeline_stages s ON s.tenant_id = d.tenant_id AND s.id = d.stage_id
          WHERE s.kind <> d.status OR s.win_probability <> d.win_probability
             OR (d.closed_at IS NOT NULL AND d.closed_at <> d.stage_entered_at)",
    ),
    (
        "a deal's version counts its moves",
        "SELECT 1 FROM deals d JOIN deal_stage_changes s ON s.tenant_id = d.tenant_id AND s.deal_id = d.id
          GROUP BY d.tenant_id, d.id, d.version HAVING count(*) <> d.version",
    ),
    (
        "nobody deals with somebody who is not known yet",
        "SELECT 1 FROM deals d JOIN contacts c ON c.tenant_id = d.tenant_id AND c.id = d.contact_id
          WHERE c.created_at > d.created_at OR c.company_id IS DISTINCT FROM d.company_id
          UNION ALL SELECT 1 FROM contacts c JOIN companies o ON o.tenant_id = c.tenant_id AND o.id = c.company_id
          WHERE o.created_at > c.created_at
          UNION ALL SELECT 1 FROM interactions i JOIN deals d ON d.tenant_id = i.tenant_id AND d.id = i.deal_id
          WHERE d.created_at > i.created_at OR d.contact_id IS DISTINCT FROM i.contact_id
          UNION ALL SELECT 1 FROM interactions i JOIN contacts c ON c.tenant_id = i.tenant_id AND c.id = i.contact_id
          WHERE c.created_at > i.created_at",
    ),
    (
        "nothing has happened in the future",
        "SELECT 1 FROM deals WHERE greatest(updated_at, stage_entered_at, created_at) > now()
          UNION ALL SELECT 1 FROM interactions WHERE greatest(created_at, updated_at, completed_at) > now()
             OR (completed_at IS NOT NULL AND completed_at < occurred_at)
          UNION ALL SELECT 1 FROM events WHERE occurred_at > now()",
    ),
    (
        "a customer has bought",
        "SELECT 1 FROM contacts c WHERE (lifecycle_stage = 'CUSTOMER') <> EXISTS (
            SELECT FROM deals d WHERE d.tenant_id = c.tenant_id AND d.contact_id = c.id AND d.status = 'WON')",
    ),
    (
        "texts are filled in and short enough",
        "SELECT 1 FROM interactions WHERE subject LIKE '%{%' OR length(subject) > 200
          UNION ALL SELECT 1 FROM deals WHERE length(name) > 200
          UNION ALL SELECT 1 FROM contacts WHERE email !~ '^[a-z0-9-]+\\.[a-z0-9-]+@[a-z0-9-]+\\.example$'
             AND email !~ '@mail\\.example$'
          UNION ALL SELECT 1 FROM companies WHERE domain !~ '^[a-z0-9-]+\\.example$'",
    ),
];

async fn keeps_the_rules(app: &TestApp) {
    let db = superuser(app).await;
    for (rule, broken) in RULES {
        let found = db
            .query(broken, &[])
            .await
            .unwrap_or_else(|error| panic!("{rule}: {error:?}"));
        assert_eq!(found.len(), 0, "{rule}");
    }
}

#[tokio::test]
async fn the_small_demo_is_loaded_once_and_everybody_signs_in() {
    let app = own_app("demo_small").await;
    assert!(!demo::is_there(&app.app).await.unwrap());
    demo::small(&app.app).await.unwrap();
    assert!(demo::is_there(&app.app).await.unwrap());
    keeps_the_rules(&app).await;

    let db = superuser(&app).await;
    let counts = "SELECT min(n), max(n) FROM (
        SELECT count(*) AS n FROM companies GROUP BY tenant_id UNION ALL SELECT count(*) FROM contacts GROUP BY tenant_id
        UNION ALL SELECT count(*) FROM deals GROUP BY tenant_id
        UNION ALL SELECT count(*) FROM interactions GROUP BY tenant_id) counts";
    assert_eq!(numbers(&db, counts).await, [60, 200]);
    let everything = "SELECT (SELECT sum(position)::bigint FROM histories), (SELECT count(*) FROM accounts),
                             (SELECT count(*) FROM tenants), (SELECT count(*) FROM deals)";
    let before = numbers(&db, everything).await;
    demo::small(&app.app).await.unwrap();
    assert_eq!(
        numbers(&db, everything).await,
        before,
        "the second time nothing happens"
    );

    for (email, tenant, role) in [
        ("ada@acme.example", "Acme Sales", "ADMIN"),
        ("linus@acme.example", "Acme Sales", "SALES"),
        ("vera@acme.example", "Acme Sales", "VIEWER"),
        ("grace@globex.example", "Globex Realty", "ADMIN"),
    ] {
        let signed_in = app
            .anon()
            .query(
                "mutation($input: SignInInput!) { signIn(input: $input) {
                   accessToken viewer { role tenant { name } user { email } } } }",
                json!({ "input": { "email": email, "password": "dealstream-demo" } }),
            )
            .await;
        let viewer = &signed_in["signIn"]["viewer"];
        assert_eq!(
            viewer,
            &json!({ "role": role, "tenant": { "name": tenant }, "user": { "email": email } })
        );
        assert!(signed_in["signIn"]["accessToken"].is_string());
    }
}

#[tokio::test]
async fn every_stage_of_the_small_demo_has_deals() {
    let app = own_app("demo_stages").await;
    demo::small(&app.app).await.unwrap();
    let db = superuser(&app).await;
    let fewest = "SELECT min(n) FROM (SELECT count(d.id) AS n FROM pipeline_stages s LEFT JOIN deals d
                    ON d.tenant_id = s.tenant_id AND d.stage_id = s.id GROUP BY s.tenant_id, s.id) counts";
    assert!(numbers(&db, fewest).await[0] >= 3);
    let kinds = "SELECT count(DISTINCT kind), count(*) FILTER (WHERE completed_at IS NULL),
                        count(DISTINCT direction), count(DISTINCT channel) FROM interactions";
    let kinds = numbers(&db, kinds).await;
    assert_eq!(kinds[0], 5);
    assert!(kinds[1] >= 5, "some are planned");
    let others = "SELECT (SELECT count(DISTINCT lifecycle_stage) FROM contacts),
                         (SELECT count(DISTINCT currency_code) FROM deals),
                         (SELECT count(DISTINCT lost_reason) FROM deals),
                         (SELECT extract(day FROM max(created_at) - min(created_at))::bigint FROM deals)";
    let others = numbers(&db, others).await;
    assert_eq!(others[..2], [4, 3]);
    assert!(others[2] >= 5);
    assert!(others[3] > 300, "a year");
}

fn size(seed: u64) -> Size {
    Size {
        tenants: 2,
        contacts: 60,
        companies: None,
        deals: 80,
        interactions: 150,
        seed,
        until: NaiveDate::from_ymd_opt(2026, 3, 18),
    }
}

/// Everything that does not come from the machine: what founding a tenant draws at random is left out.
async fn contents(app: &TestApp) -> Vec<String> {
    let db = superuser(app).await;
    let rows = db
        .query(
            "WITH everything AS (
                 SELECT t.name AS tenant, 'company' AS what, c.id, to_jsonb(c) - 'owner_id' AS record
                   FROM companies c JOIN tenants t ON t.id = c.tenant_id
                 UNION ALL SELECT t.name, 'contact', c.id, to_jsonb(c) - 'owner_id'
                   FROM contacts c JOIN tenants t ON t.id = c.tenant_id
                 UNION ALL SELECT t.name, s.name, d.id, to_jsonb(d) - 'owner_id' - 'stage_id' - 'pipeline_id'
                   FROM deals d JOIN tenants t ON t.id = d.tenant_id
                   JOIN pipeline_stages s ON s.tenant_id = d.tenant_id AND s.id = d.stage_id
                 UNION ALL SELECT t.name, s.name, c.id, to_jsonb(c) - 'from_stage_id' - 'to_stage_id' - 'changed_by_id'
                   FROM deal_stage_changes c JOIN tenants t ON t.id = c.tenant_id
                   JOIN pipeline_stages s ON s.tenant_id = c.tenant_id AND s.id = c.to_stage_id
                 UNION ALL SELECT t.name, u.name, i.id, to_jsonb(i) - 'created_by_id'
                   FROM interactions i JOIN tenants t ON t.id = i.tenant_id
                   JOIN users u ON u.tenant_id = i.tenant_id AND u.id = i.created_by_id)
             SELECT tenant || ' ' || what || ' ' || (record - 'tenant_id')::text FROM everything
              ORDER BY tenant COLLATE \"C\", id",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn the_same_seed_fills_two_databases_with_the_same_data() {
    let (one, two, three) = tokio::join!(own_app("demo_one"), own_app("demo_two"), own_app("demo_three"));
    for (app, seed) in [(&one, 7), (&two, 7), (&three, 8)] {
        demo::fill(&app.app, &size(seed), |_| ()).await.unwrap();
        keeps_the_rules(app).await;
    }
    let (one, two, three) = (contents(&one).await, contents(&two).await, contents(&three).await);
    assert!(one.len() > 2 * (12 + 60 + 80 + 80 + 150), "{}", one.len());
    assert_eq!(one, two);
    assert_ne!(one, three);
}

#[tokio::test]
async fn filling_again_goes_on_where_it_stopped() {
    let app = own_app("demo_again").await;
    let fill = async |tenants| {
        let reports = Arc::new(Mutex::new((0, Vec::new(), Vec::new())));
        let kept = reports.clone();
        let report = move |report| {
            let mut kept = kept.lock().unwrap();
            match report {
                Report::Records(count) => kept.0 += count,
                Report::Made { number, .. } => kept.1.push(number),
                Report::Skipped { number } => kept.2.push(number),
            }
        };
        demo::fill(&app.app, &Size { tenants, ..size(1) }, report)
            .await
            .unwrap();
        let mut reports = reports.lock().unwrap().clone();
        reports.1.sort_unstable();
        reports.2.sort_unstable();
        reports
    };
    let each = 2 * (12 + 60 + 80 + 150);
    assert_eq!(fill(1).await, (each, vec![1], vec![]));
    assert_eq!(fill(3).await, (2 * each, vec![2, 3], vec![1]));
    keeps_the_rules(&app).await;
    let signed_in = app
        .anon()
        .query(
            "mutation { signIn(input: { email: \"sales-2@tenant-3.example\", password: \"dealstream-demo\" }) {
               viewer { role } } }",
            json!({}),
        )
        .await;
    assert_eq!(signed_in["signIn"]["viewer"]["role"], "SALES");
}

#[tokio::test]
async fn a_tenant_may_have_little() {
    let app = own_app("demo_little").await;
    let nothing = Size {
        contacts: 0,
        companies: Some(0),
        deals: 0,
        ..size(1)
    };
    demo::fill(&app.app, &nothing, |_| ()).await.unwrap();
    keeps_the_rules(&app).await;
    let app = own_app("demo_deals_only").await;
    let deals = Size {
        deals: 40,
        interactions: 40,
        ..nothing
    };
    demo::fill(&app.app, &deals, |_| ()).await.unwrap();
    keeps_the_rules(&app).await;
    let db = superuser(&app).await;
    let counts = numbers(
        &db,
        "SELECT (SELECT count(*) FROM deals), (SELECT count(*) FROM interactions)",
    )
    .await;
    assert_eq!(counts, [80, 80]);
}
