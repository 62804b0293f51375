//! The audit trail: all that is done is in it, and whoever changes it is found out.

use std::path::{Path, PathBuf};
use std::process::Output;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{TimeDelta, Utc};
use dealstream::audit::checkpoints::{self, Checkpoint, Checkpoints, PublicKey, public_keys};
use dealstream::audit::verify::{Fault, Signed, verify};
use dealstream::auth::{Origin, Permission, Permissions, Reach, Resource, Rights, Role, Scope};
use dealstream::crypto::{MasterKey, Vault};
use dealstream::db::id::write_id;
use dealstream::db::migrate;
use dealstream::events::Work;
use dealstream::events::retention::{Retention, Rounds};
use dealstream::events::trail::{self, hex, link};
use dealstream::identity::User;
use serde_json::{Value, json};
use tokio_postgres::Client as Postgres;
use uuid::Uuid;

use crate::support::app::{SECRET, config};
use crate::support::cluster::create_database;
use crate::support::recipes::{self, Records, Sdl};
use crate::support::{Client, TestApp};

/// An application on a database of its own, and its superuser, whom no trigger stops.
async fn alone(name: &str) -> (TestApp, Postgres) {
    let url = create_database(name).await;
    migrate::migrate(&url).await.unwrap();
    let app = TestApp::on(url, config()).await;
    let mighty = app.superuser().await;
    mighty
        .batch_execute("SET session_replication_role = replica")
        .await
        .unwrap();
    (app, mighty)
}

/// A file that is not there yet.
fn file(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.jsonl", Uuid::new_v4()));
    assert!(!path.exists());
    path
}

async fn checkpoint(app: &TestApp, path: &Path) -> usize {
    let checkpoints = Checkpoints::new(&app.app.vault, path.to_owned()).unwrap();
    checkpoints.round(&app.app.db).await.unwrap()
}

/// The first fault of a client's trail.
async fn fault(app: &TestApp, client: &Client, signed: &Signed) -> Option<(i64, Fault)> {
    let report = verify(&app.app.db, Some(client.viewer().tenant_id), signed)
        .await
        .unwrap();
    report
        .findings
        .into_iter()
        .next()
        .map(|finding| (finding.sequence, finding.fault))
}

async fn last(mighty: &Postgres, client: &Client) -> i64 {
    let tenant = client.viewer().tenant_id;
    let sql = format!("SELECT audit_sequence FROM histories WHERE tenant_id = '{tenant}'");
    mighty.query_one(&sql, &[]).await.unwrap().get(0)
}

/// Changes a trail as only a superuser can.
async fn tamper(mighty: &Postgres, client: &Client, sql: &str) {
    let tenant = client.viewer().tenant_id;
    mighty
        .batch_execute(&sql.replace("{tenant}", &format!("tenant_id = '{tenant}'")))
        .await
        .unwrap();
}

fn origin(request_id: &str) -> Origin {
    Origin {
        ip: Some("203.0.113.7".parse().unwrap()),
        user_agent: Some("tests/1.0".to_owned()),
        request_id: request_id.to_owned(),
    }
}

const EVENTS: &str = "query($filter: AuditEventFilter, $after: Cursor) {
    auditEvents(filter: $filter, first: 100, after: $after) { totalCount pageInfo { hasNextPage endCursor } nodes {
        id sequence occurredAt actorKind actorId actor { id } entity recordId kind detail ip userAgent requestId
        previousHash hash } } }";

async fn entries(client: &Client, filter: Value) -> Vec<Value> {
    let data = client.query(EVENTS, json!({ "filter": filter })).await;
    assert_eq!(data["auditEvents"]["pageInfo"]["hasNextPage"], false);
    data["auditEvents"]["nodes"].as_array().unwrap().clone()
}

fn number(position: &Value) -> Option<i64> {
    let position: dealstream::events::Position = position.as_str()?.parse().unwrap();
    Some(position.position)
}

#[tokio::test]
async fn every_mutation_leaves_entries_that_tell_who_did_what_when_and_from_where() {
    let app = TestApp::new().await;
    let mut changed = Vec::new();
    for field in Sdl::get().fields("Mutation") {
        let field = field.name.node.as_str();
        let client = recipes::signed_up(&app, "audited").await;
        let records = Records::of(&client, "Audited").await;
        let mut arguments = recipes::arguments(field, &records);
        // What changes nothing is no change.
        if field.starts_with("update") && arguments["input"]["name"].is_null() {
            let key = if field == "updateInteraction" {
                "subject"
            } else {
                "name"
            };
            let accepts = |name: &str| {
                let input = format!("U{}Input", &field[1..]);
                let kind = Sdl::get().ty(&input).map(|ty| format!("{:?}", ty.kind));
                kind.is_some_and(|kind| kind.contains(&format!("\"{name}\"")))
            };
            if accepts(key) {
                arguments["input"][key] = json!("Another");
            }
        }
        let (document, variables) = recipes::operation("Mutation", field, arguments);
        let before = number(&json!(client.position().await)).unwrap();
        let answer = client
            .with_origin(origin(field))
            .answer(&document, variables)
            .await;
        let Some(after) = number(&answer["data"][field]["position"]) else {
            continue;
        };
        // Whoever founds a tenant, or signs in, is told the position there.
        if after <= before || !answer["data"][field]["accessToken"].is_null() {
            continue;
        }
        changed.push(field.to_owned());
        let found = entries(&client, json!({ "requestId": { "eq": field } })).await;
        assert!(found.len() as i64 >= after - before, "{field}: {found:#?}");
        let me = write_id("user", client.viewer().user_id);
        for entry in found {
            assert_eq!(entry["actorKind"], "USER", "{field}");
            assert_eq!(entry["actorId"], me, "{field}");
            assert_eq!(entry["ip"], "203.0.113.7", "{field}");
            assert_eq!(entry["userAgent"], "tests/1.0", "{field}");
            let occurred: chrono::DateTime<Utc> = entry["occurredAt"].as_str().unwrap().parse().unwrap();
            assert!((Utc::now() - occurred).abs() < TimeDelta::minutes(5), "{field}");
        }
    }
    for expected in [
        "createCompany",
        "updateDeal",
        "deleteInteraction",
        "updateTenant",
        "signOut",
        "createUser",
    ] {
        assert!(
            changed.iter().any(|field| field == expected),
            "{expected} is among {changed:?}"
        );
    }
    // Whatever the history was told, the trail was told too.
    let client = recipes::signed_up(&app, "audited").await;
    Records::of(&client, "Audited").await;
    let missing = format!(
        "SELECT count(*), count(a.id) FROM events e
           LEFT JOIN audit_entries a ON (a.tenant_id, a.id, a.kind) = (e.tenant_id, e.id, e.kind)
          WHERE e.tenant_id = '{}'",
        client.viewer().tenant_id
    );
    let row = app.superuser().await.query_one(&missing, &[]).await.unwrap();
    let (events, audited): (i64, i64) = (row.get(0), row.get(1));
    assert!(events > 10);
    assert_eq!(events, audited);
}

#[tokio::test]
async fn an_update_tells_old_and_new_values_of_what_changed() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let id = client.company("Before").await;
    let long = "x".repeat(trail::LONG + 1);
    let contact = client
        .contact(json!({ "name": "Talkative", "notes": long }))
        .await;
    let input = json!({ "companyId": id, "name": "After", "industry": "Trade" });
    client
        .mutate("updateCompany", "UpdateCompanyInput", "company { id }", input)
        .await;
    let found = entries(&client, json!({ "recordId": id, "kind": { "eq": "UPDATED" } })).await;
    let [entry] = found.as_slice() else {
        panic!("{found:#?}")
    };
    let detail = json!({
        "before": { "name": "Before", "industry": null },
        "after": { "name": "After", "industry": "Trade" },
    });
    assert_eq!(entry["detail"], detail);
    let found = entries(&client, json!({ "recordId": contact })).await;
    assert_eq!(found[0]["detail"]["notes"]["characters"], trail::LONG + 1);
    assert_eq!(found[0]["entity"], "contact");
}

#[tokio::test]
async fn the_trail_is_listed_latest_first_and_filtered() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let other = app.tenant().await;
    let id = client.with_origin(origin("one")).company("One").await;
    client
        .with_origin(Origin {
            ip: Some("2001:db8::1".parse().unwrap()),
            ..origin("two")
        })
        .company("Two")
        .await;
    other.company("Foreign").await;
    let all = entries(&client, json!({})).await;
    let sequences: Vec<i64> = all
        .iter()
        .map(|entry| entry["sequence"].as_str().unwrap().parse().unwrap())
        .collect();
    let count = sequences.len() as i64;
    assert_eq!(
        sequences,
        (1..=count).rev().collect::<Vec<_>>(),
        "dense, latest first"
    );
    assert!(!json!(all).to_string().contains("Foreign"));
    for pair in all.windows(2) {
        assert_eq!(pair[0]["previousHash"], pair[1]["hash"]);
    }
    assert_eq!(all[count as usize - 1]["previousHash"], "0".repeat(64));
    let one = entries(&client, json!({ "recordId": id })).await;
    assert_eq!(one.len(), 1);
    assert_eq!(one[0]["requestId"], "one");
    assert_eq!(entries(&other, json!({ "recordId": id })).await, [] as [Value; 0]);
    let by_ip = entries(&client, json!({ "ip": { "eq": "2001:db8::1" } })).await;
    assert_eq!(by_ip[0]["detail"]["name"], "Two");
    assert_eq!(by_ip.len(), 1);
    let me = write_id("user", client.viewer().user_id);
    let mine = entries(
        &client,
        json!({ "actorId": { "eq": me }, "entity": { "eq": "company" } }),
    )
    .await;
    assert_eq!(mine.len(), 2);
    let future = json!({ "occurredAt": { "gt": "2999-01-01T00:00:00Z" } });
    assert!(entries(&client, future).await.is_empty());
    assert_eq!(
        client
            .code(EVENTS, json!({ "filter": { "recordId": "nonsense" } }))
            .await,
        "BAD_USER_INPUT"
    );
    let manager = app.user(&client, Role::Manager).await;
    assert_eq!(manager.code(EVENTS, json!({})).await, "FORBIDDEN");
}

#[tokio::test]
async fn an_auditor_reads_values_as_far_as_they_may_read_the_records() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let records = Records::of(&admin, "Audited").await;
    let email = json!({ "contactId": records.id("contact"), "email": "jane.secret@acme.example" });
    admin
        .mutate("updateContact", "UpdateContactInput", "position", email)
        .await;
    let told = async |permissions: &[Permission], reach: Reach| {
        let permissions: Permissions = permissions.iter().copied().collect();
        let role = Some(Uuid::now_v7());
        let client = admin.with_rights(Rights::custom(Role::Custom, role, permissions, reach));
        let document = "{ auditEvents(first: 100) { nodes { entity detail } } }";
        let data = client.query(document, json!({})).await;
        data["auditEvents"]["nodes"].as_array().unwrap().clone()
    };
    let read = [
        (Permission::CompaniesRead, Resource::Companies, "company"),
        (Permission::ContactsRead, Resource::Contacts, "contact"),
        (Permission::DealsRead, Resource::Deals, "deal"),
        (
            Permission::InteractionsRead,
            Resource::Interactions,
            "interaction",
        ),
    ];
    let everything = entries(&admin, json!({})).await;
    assert!(everything.iter().all(|entry| !entry["detail"].is_null()));
    let nothing = told(&[Permission::AuditRead], Reach::ALL).await;
    assert_eq!(nothing.len(), everything.len(), "that it happened is told");
    // Of what is no record, such as a key of the tenant, every auditor reads it.
    let shown = |entry: &&Value| entry["detail"].to_string().contains("Audited");
    let shown: Vec<_> = nothing
        .iter()
        .filter(shown)
        .map(|entry| &entry["entity"])
        .collect();
    assert_eq!(shown, ["api_key"], "{nothing:#?}");
    for (permission, resource, entity) in read {
        let may = [Permission::AuditRead, permission];
        let values = |entries: &[Value], of: bool| {
            let of_kind = |entry: &&Value| (entry["entity"] == entity) == of && entry["entity"] != "api_key";
            let known = entries.iter().filter(of_kind);
            known
                .filter(|entry| entry["detail"].to_string().contains("Audited"))
                .count()
        };
        let some = told(&may, Reach::ALL).await;
        assert!(values(&some, true) > 0, "{entity}");
        assert_eq!(values(&some, false), 0, "{entity}");
        for scope in [Scope::Own, Scope::Team] {
            let part = told(&may, Reach::ALL.with(resource, scope)).await;
            assert_eq!(values(&part, true), 0, "{entity} {scope:?}");
        }
    }
    let masked = told(&[Permission::AuditRead, Permission::ContactsRead], Reach::ALL).await;
    let masked = json!(masked).to_string();
    assert!(
        masked.contains("j•••@acme.example") && !masked.contains("jane.secret"),
        "{masked}"
    );
}

#[tokio::test]
async fn nobody_changes_an_entry_through_the_database() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let tenant = client.viewer().tenant_id;
    let mighty = app.superuser().await;
    let changes = [
        format!("UPDATE audit_entries SET kind = 'NOTHING' WHERE tenant_id = '{tenant}'"),
        format!("DELETE FROM audit_entries WHERE tenant_id = '{tenant}'"),
        "TRUNCATE audit_entries".to_owned(),
    ];
    for change in &changes {
        let refused = mighty.batch_execute(change).await.unwrap_err();
        assert!(
            refused
                .as_db_error()
                .unwrap()
                .message()
                .contains("only ever added to"),
            "{change}"
        );
    }
    mighty
        .batch_execute(&format!(
            "SET ROLE dealstream_app; SET app.tenant_id = '{tenant}'"
        ))
        .await
        .unwrap();
    for change in changes
        .iter()
        .map(String::as_str)
        .chain(["ALTER TABLE audit_entries DISABLE TRIGGER ALL"])
    {
        let refused = mighty.batch_execute(change).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{change}: {refused}");
    }
}

#[tokio::test]
async fn concurrent_changes_make_one_dense_chain() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let many = (0..40).map(|number| {
        let client = client.clone();
        async move { client.company(&format!("Company {number}")).await }
    });
    futures::future::join_all(many).await;
    assert_eq!(fault(&app, &client, &Signed::default()).await, None);
    let mighty = app.superuser().await;
    let sql = "SELECT count(*), max(sequence) FROM audit_entries WHERE tenant_id";
    let sql = format!("{sql} = '{}'", client.viewer().tenant_id);
    let rows = mighty.query_one(&sql, &[]).await.unwrap();
    let (count, max): (i64, i64) = (rows.get(0), rows.get(1));
    assert_eq!(count, max);
    assert_eq!(max, last(&mighty, &client).await);
}

#[tokio::test]
async fn every_way_of_changing_a_trail_is_found_and_named() {
    let (app, mighty) = alone("audit_tampered").await;
    let none = Signed::default();
    let seeded = async || {
        let client = app.tenant().await;
        for number in 0..4 {
            client.company(&format!("Company {number}")).await;
        }
        client
    };
    let cases: [(&str, Fault); 7] = [
        (
            "UPDATE audit_entries SET detail = '{}' WHERE {tenant} AND sequence = 5",
            Fault::Altered,
        ),
        (
            "UPDATE audit_entries SET ip = '192.0.2.1' WHERE {tenant} AND sequence = 5",
            Fault::Altered,
        ),
        (
            "UPDATE audit_entries SET occurred_at = occurred_at + interval '1 microsecond' WHERE {tenant} AND sequence = 5",
            Fault::Altered,
        ),
        (
            "DELETE FROM audit_entries WHERE {tenant} AND sequence = 5",
            Fault::Missing { to: 5 },
        ),
        (
            "DELETE FROM audit_entries WHERE {tenant} AND sequence IN (5, 6)",
            Fault::Missing { to: 6 },
        ),
        (
            "UPDATE audit_entries SET sequence = -5 WHERE {tenant} AND sequence = 5;
             UPDATE audit_entries SET sequence = 5 WHERE {tenant} AND sequence = 6;
             UPDATE audit_entries SET sequence = 6 WHERE {tenant} AND sequence = -5",
            Fault::Moved { from: 6 },
        ),
        (
            "UPDATE audit_entries a SET previous_hash = b.hash FROM audit_entries b
              WHERE a.{tenant} AND a.sequence = 5 AND b.tenant_id = a.tenant_id AND b.sequence = 2",
            Fault::Altered,
        ),
    ];
    for (change, expected) in cases {
        let client = seeded().await;
        assert_eq!(fault(&app, &client, &none).await, None, "{change}");
        tamper(&mighty, &client, change).await;
        assert_eq!(fault(&app, &client, &none).await, Some((5, expected)), "{change}");
    }
    // The tail, with and without the counter.
    let client = seeded().await;
    let end = last(&mighty, &client).await;
    tamper(
        &mighty,
        &client,
        &format!("DELETE FROM audit_entries WHERE {{tenant}} AND sequence = {end}"),
    )
    .await;
    assert_eq!(
        fault(&app, &client, &none).await,
        Some((end, Fault::Missing { to: end }))
    );
    let client = seeded().await;
    let back = "UPDATE histories h SET audit_sequence = a.sequence, audit_hash = a.hash FROM audit_entries a
                 WHERE h.{tenant} AND a.tenant_id = h.tenant_id AND a.sequence = 5";
    tamper(&mighty, &client, back).await;
    assert_eq!(fault(&app, &client, &none).await, Some((6, Fault::Unknown)));
    let client = seeded().await;
    tamper(
        &mighty,
        &client,
        "UPDATE histories SET audit_hash = sha256('') WHERE {tenant}",
    )
    .await;
    let end = last(&mighty, &client).await;
    assert_eq!(fault(&app, &client, &none).await, Some((end, Fault::Head)));
}

/// Computes a chain anew, as somebody would who can write everything in the database but has no key.
async fn rechain(mighty: &Postgres, client: &Client, from: i64) {
    let tenant = client.viewer().tenant_id;
    let sql = format!(
        "SELECT sequence, id::text, (extract(epoch FROM occurred_at) * 1000000)::bigint, actor_kind, actor_id::text, entity,
                record_id::text, kind, detail, ip, user_agent, request_id, previous_hash
           FROM audit_entries WHERE tenant_id = '{tenant}' AND sequence >= {from} ORDER BY sequence"
    );
    let rows = mighty.query(&sql, &[]).await.unwrap();
    let mut previous: Vec<u8> = rows[0].get(12);
    for row in rows {
        let sequence: i64 = row.get(0);
        let entry = trail::Entry {
            id: row.get::<_, String>(1).parse().unwrap(),
            occurred_at: chrono::DateTime::from_timestamp_micros(row.get(2)).unwrap(),
            actor_kind: row.get(3),
            actor_id: row.get::<_, Option<String>>(4).map(|id| id.parse().unwrap()),
            entity: row.get(5),
            record_id: row.get::<_, String>(6).parse().unwrap(),
            kind: row.get(7),
            detail: row.get(8),
            ip: row.get(9),
            user_agent: row.get(10),
            request_id: row.get(11),
        };
        let hash = link(&previous, sequence, &entry.digest(tenant)).to_vec();
        let entry = format!(
            "UPDATE audit_entries SET previous_hash = $1, hash = $2 WHERE tenant_id = '{tenant}' AND sequence = {sequence}"
        );
        mighty.execute(&entry, &[&previous, &hash]).await.unwrap();
        let head = format!("UPDATE histories SET audit_hash = $1 WHERE tenant_id = '{tenant}'");
        mighty.execute(&head, &[&hash]).await.unwrap();
        previous = hash;
    }
}

#[tokio::test]
async fn who_rewrites_a_whole_chain_is_found_out_by_the_checkpoints() {
    let (app, mighty) = alone("audit_rewritten").await;
    let keys = public_keys(&app.app.vault).unwrap();
    let path = file("rewritten");
    let (client, cut) = (app.tenant().await, app.tenant().await);
    client.company("Evidence").await;
    let marked = last(&mighty, &client).await;
    assert_eq!(checkpoint(&app, &path).await, 2);
    assert_eq!(checkpoint(&app, &path).await, 0, "nothing has grown");
    let read = || Signed::read(&path, &keys).unwrap();
    client.company("Later").await;
    cut.company("Later").await;
    assert_eq!(checkpoint(&app, &path).await, 2);
    let end = last(&mighty, &client).await;
    assert_eq!(read().count(), 4);
    assert_eq!(fault(&app, &client, &read()).await, None);

    let change = format!("UPDATE audit_entries SET detail = '{{}}' WHERE {{tenant}} AND sequence = {marked}");
    tamper(&mighty, &client, &change).await;
    rechain(&mighty, &client, marked).await;
    assert_eq!(
        fault(&app, &client, &Signed::default()).await,
        None,
        "by itself the chain looks whole"
    );
    let found = fault(&app, &client, &read()).await;
    assert!(
        matches!(found, Some((at, Fault::Rewritten { .. })) if at == marked),
        "{found:?}"
    );
    // A chain that does not lead back to what was signed is not signed any more, whether it has grown or not: neither by
    // who signed before, nor by a server that begins with the file.
    let again = Checkpoints::new(&app.app.vault, path.clone()).unwrap();
    for company in ["After the forgery", "And more"] {
        assert_eq!(again.round(&app.app.db).await.unwrap(), 0);
        client.company(company).await;
        assert_eq!(again.round(&app.app.db).await.unwrap(), 0);
        assert_eq!(checkpoint(&app, &path).await, 0);
    }
    assert_eq!(read().count(), 4);
    let found = fault(&app, &client, &read()).await;
    assert!(
        matches!(found, Some((at, Fault::Rewritten { .. })) if at == marked),
        "{found:?}"
    );
    assert!(end > marked);

    let end = last(&mighty, &cut).await;
    let back = format!(
        "DELETE FROM audit_entries WHERE {{tenant}} AND sequence = {end};
         UPDATE histories h SET audit_sequence = a.sequence, audit_hash = a.hash FROM audit_entries a
          WHERE h.{{tenant}} AND a.tenant_id = h.tenant_id AND a.sequence = {end} - 1"
    );
    tamper(&mighty, &cut, &back).await;
    assert_eq!(fault(&app, &cut, &Signed::default()).await, None);
    assert_eq!(checkpoint(&app, &path).await, 0, "what is cut off is not signed");
    let found = fault(&app, &cut, &read()).await;
    assert!(
        matches!(&found, Some((at, Fault::Truncated { last, .. })) if *at == end && *last == end - 1),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_checkpoint_that_was_not_signed_by_the_server_is_refused() {
    let (app, mighty) = alone("audit_forged").await;
    let keys = public_keys(&app.app.vault).unwrap();
    let path = file("forged");
    let client = app.tenant().await;
    checkpoint(&app, &path).await;
    let mut genuine: Vec<Checkpoint> = Vec::new();
    checkpoints::read(&path, |checkpoint, _| genuine.push(checkpoint)).unwrap();
    let [genuine] = genuine.as_slice() else {
        panic!("{genuine:?}")
    };
    assert!(genuine.is_signed_with(&keys));
    assert_eq!(genuine.tenant(), Some(client.viewer().tenant_id));
    assert_eq!(genuine.sequence, last(&mighty, &client).await);
    let forge = |change: fn(&mut Checkpoint)| {
        let mut forged = genuine.clone();
        change(&mut forged);
        forged
    };
    let other: Vec<PublicKey> = {
        let key = dealstream::crypto::MasterKey::of_secret(b"another secret of at least 32 bytes!!");
        public_keys(&dealstream::crypto::Vault::new([key]).unwrap()).unwrap()
    };
    assert!(!genuine.is_signed_with(&other));
    let forgeries = [
        forge(|it| it.sequence += 1),
        forge(|it| it.hash = "0".repeat(64)),
        forge(|it| it.at.push('0')),
        forge(|it| it.tenant = write_id("tenant", Uuid::now_v7())),
        forge(|it| it.signature.clear()),
        forge(|it| it.key = "A".repeat(43)),
    ];
    for forged in &forgeries {
        assert!(!forged.is_signed_with(&keys), "{forged:?}");
    }
    let mut lines = std::fs::read_to_string(&path).unwrap();
    lines += &serde_json::to_string(&forgeries[1]).unwrap();
    lines += "\nnonsense\n";
    std::fs::write(&path, lines).unwrap();
    let signed = Signed::read(&path, &keys).unwrap();
    assert_eq!((signed.count(), signed.refused), (1, vec![2, 3]));
}

#[tokio::test]
async fn with_a_new_master_key_what_was_proved_does_not_rest_on_the_old_one() {
    let (app, mighty) = alone("audit_new_key").await;
    let path = file("new_key");
    let (quiet, busy) = (app.tenant().await, app.tenant().await);
    assert_eq!(checkpoint(&app, &path).await, 2);
    let ring = |names: &[&str]| {
        let keys = names.iter().map(|name| {
            let bytes = STANDARD.encode(dealstream::crypto::hash(name.as_bytes()));
            MasterKey::parse(&format!("{name}:{bytes}")).unwrap()
        });
        keys.collect::<Vec<_>>()
    };
    let root = || MasterKey::of_secret(SECRET.as_bytes());
    let both = Vault::new(ring(&["new"]).into_iter().chain([root()])).unwrap();
    let alone = Vault::new(ring(&["new"])).unwrap();
    let round = async |vault: &Vault| {
        let checkpoints = Checkpoints::new(vault, path.clone()).unwrap();
        checkpoints.round(&app.app.db).await.unwrap()
    };
    busy.company("Growing").await;
    assert_eq!(round(&both).await, 2, "what has not grown is signed once more");
    assert_eq!(round(&both).await, 0);
    // The old key has gone; who rewrites what it had proved is found out all the same, and not signed.
    let keys = public_keys(&alone).unwrap();
    let signed = Signed::read(&path, &keys).unwrap();
    assert_eq!((signed.count(), signed.refused), (2, vec![1, 2]));
    tamper(
        &mighty,
        &quiet,
        "DELETE FROM audit_entries WHERE {tenant}; UPDATE histories SET audit_sequence = 0, \
         audit_hash = decode(repeat('00', 32), 'hex') WHERE {tenant}",
    )
    .await;
    quiet.company("Anew").await;
    assert_eq!(
        round(&alone).await,
        0,
        "a chain that was begun anew is not signed"
    );
    let found = fault(&app, &quiet, &Signed::read(&path, &keys).unwrap()).await;
    assert!(found.is_some(), "{found:?}");
}

async fn command(app: &TestApp, arguments: &[&str]) -> Output {
    let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_dealstream"))
        .env_clear()
        .env("DATABASE_URL", &app.url)
        .env("JWT_SECRET", SECRET)
        .current_dir("/")
        .arg("audit")
        .args(arguments)
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(std::time::Duration::from_secs(60), run)
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn the_command_proves_the_trail_whole_or_names_what_is_wrong() {
    let (app, mighty) = alone("audit_command").await;
    let path = file("command");
    let name = path.to_str().unwrap();
    let (whole, broken) = (app.tenant().await, app.tenant().await);
    let signed = command(&app, &["--audit-checkpoints", name, "checkpoint"]).await;
    let said = String::from_utf8_lossy(&signed.stdout).into_owned();
    assert!(signed.status.success() && said.contains("2 new"), "{signed:?}");
    let proved = command(&app, &["verify", "--checkpoints", name]).await;
    let said = String::from_utf8_lossy(&proved.stdout).into_owned();
    assert!(
        proved.status.success() && said.contains("all 2 checkpoints"),
        "{proved:?}"
    );
    let key = command(&app, &["key"]).await;
    let key = String::from_utf8_lossy(&key.stdout).trim().to_owned();
    assert_eq!(key, public_keys(&app.app.vault).unwrap()[0].to_string());

    tamper(
        &mighty,
        &broken,
        "UPDATE audit_entries SET actor_id = NULL WHERE {tenant} AND sequence = 3",
    )
    .await;
    let found = command(&app, &["verify", "--checkpoints", name]).await;
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let said = String::from_utf8_lossy(&found.stderr).into_owned();
    let id = write_id("tenant", broken.viewer().tenant_id);
    assert!(
        said.contains(&format!("{id}: entry 3 has been altered")),
        "{said}"
    );
    let own = write_id("tenant", whole.viewer().tenant_id);
    assert!(!said.contains(&own), "{said}");
    let one = command(&app, &["verify", "--tenant", &own]).await;
    assert!(one.status.success(), "{one:?}");
    // A tenant of whom nothing is left is known to the checkpoints still.
    for table in ["audit_entries", "histories"] {
        tamper(&mighty, &whole, &format!("DELETE FROM {table} WHERE {{tenant}}")).await;
    }
    let gone = command(&app, &["verify", "--checkpoints", name]).await;
    let said = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(said.contains(&own), "{said}");
    for refused in [
        &["verify", "--tenant", "nonsense"][..],
        &["verify", "--checkpoints", "/nowhere/at/all"],
        &["verify", "--key", "short"],
    ] {
        assert!(!command(&app, refused).await.status.success(), "{refused:?}");
    }
}

#[tokio::test]
async fn the_trail_outlives_the_history() {
    let (app, mighty) = alone("audit_outlives").await;
    let client = app.tenant().await;
    client.company("Long ago").await;
    let before = last(&mighty, &client).await;
    let nothing = Retention {
        age: TimeDelta::days(30),
        events: 0,
    };
    Rounds::default()
        .round(&app.app.db, nothing, Utc::now())
        .await
        .unwrap();
    let left: i64 = mighty
        .query_one("SELECT count(*) FROM events", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 0);
    assert_eq!(entries(&client, json!({})).await.len() as i64, before);
    assert_eq!(fault(&app, &client, &Signed::default()).await, None);
}

#[tokio::test]
async fn bulk_work_is_told_as_one_entry_with_a_digest() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let before = entries(&client, json!({})).await.len();
    let tenant = client.viewer().tenant_id;
    let mut work = Work::begin(&app.app.db, app.app.hub.clone(), tenant, None)
        .await
        .unwrap();
    work.sum_up("LOADED");
    for _ in 0..50 {
        work.record(
            dealstream::db::id::Id::<User>::generate(),
            "CREATED",
            &json!({ "name": "Many" }),
        )
        .unwrap();
    }
    work.finish().await.unwrap();
    let found = entries(&client, json!({})).await;
    assert_eq!(found.len(), before + 1);
    assert_eq!(found[0]["kind"], "LOADED");
    assert_eq!(found[0]["actorKind"], "SYSTEM");
    assert_eq!(found[0]["detail"]["changes"], 50);
    assert_eq!(found[0]["detail"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(fault(&app, &client, &Signed::default()).await, None);
    assert_eq!(hex(&[0, 255]), "00ff");
}

#[tokio::test]
async fn a_refused_sign_in_is_told_to_the_tenants_of_the_account() {
    let app = TestApp::new().await;
    let client = recipes::signed_up(&app, "refused").await;
    let me = client.query("{ viewer { user { id email } } }", json!({})).await;
    let sign_in = async |email: &str| {
        let document = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken } }";
        let input = json!({ "input": { "email": email, "password": "not the right one" } });
        app.anon()
            .with_origin(origin("guess"))
            .code(document, input)
            .await
    };
    let email = me["viewer"]["user"]["email"].as_str().unwrap();
    assert_eq!(sign_in(email).await, "UNAUTHENTICATED");
    let refused = async {
        loop {
            let found = entries(&client, json!({ "kind": { "eq": "SIGN_IN_REFUSED" } })).await;
            if !found.is_empty() {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(std::time::Duration::from_secs(30), refused)
        .await
        .unwrap();
    assert_eq!(found[0]["recordId"], me["viewer"]["user"]["id"]);
    assert_eq!(
        (&found[0]["actorKind"], &found[0]["actorId"]),
        (&json!("SYSTEM"), &Value::Null)
    );
    assert_eq!(
        (&found[0]["ip"], &found[0]["requestId"]),
        (&json!("203.0.113.7"), &json!("guess"))
    );
}

#[tokio::test]
async fn a_change_that_would_reach_another_tenant_is_given_up() {
    let (app, mighty) = alone("audit_incident").await;
    let (own, other) = (app.tenant().await, app.tenant().await);
    let before = other.position().await;
    // As a slip of a later migration might.
    mighty
        .batch_execute("ALTER TABLE histories DISABLE ROW LEVEL SECURITY")
        .await
        .unwrap();
    let document = "mutation { createCompany(input: { name: \"Leak\" }) { company { id } } }";
    let answer = own.answer(document, json!({})).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "INTERNAL", "{answer}");
    assert_eq!(
        answer["errors"][0]["message"],
        "Something went wrong on our side."
    );
    mighty
        .batch_execute("ALTER TABLE histories ENABLE ROW LEVEL SECURITY")
        .await
        .unwrap();
    let made: i64 = mighty
        .query_one("SELECT count(*) FROM companies", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(made, 0);
    assert_eq!(other.position().await, before);
    own.company("Whole again").await;
    // A counter that is behind its history, as after a table of an older backup, or that is not there.
    let tenant = own.viewer().tenant_id;
    for (slip, code) in [
        (
            format!("UPDATE histories SET position = 0 WHERE tenant_id = '{tenant}'"),
            "INTERNAL",
        ),
        (
            format!("DELETE FROM histories WHERE tenant_id = '{tenant}'"),
            "NOT_FOUND",
        ),
    ] {
        mighty.batch_execute(&slip).await.unwrap();
        assert_eq!(own.code(document, json!({})).await, code);
        let made = "SELECT count(*) FROM companies WHERE name = 'Leak'";
        let made: i64 = mighty.query_one(made, &[]).await.unwrap().get(0);
        assert_eq!(made, 0);
    }
}
