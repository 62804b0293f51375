//! Sensitive fields: sealed, bound to their place, shown to few and never unnoticed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dealstream::auth::{Origin, Role};
use dealstream::config::Config;
use dealstream::crm::secrets::{look_after, renew, rotate, tend};
use dealstream::db::id::{read_id, write_id};
use dealstream::db::{migrate, sealed};
use dealstream::sensitive::DataKeys;
use futures::StreamExt;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::app::config;
use crate::support::cluster::create_database;
use crate::support::{Client, TestApp};

pub const TAX_ID: &str = "DE811907980";
pub const IBAN: &str = "DE89370400440532013000";

async fn alone(name: &str) -> TestApp {
    let url = create_database(name).await;
    migrate::migrate(&url).await.unwrap();
    TestApp::on(url, config()).await
}

async fn set(client: &Client, input: Value) -> Value {
    client
        .payload(
            "updateSensitiveCompanyFields",
            "UpdateSensitiveCompanyFieldsInput",
            "company { id version }",
            input,
        )
        .await
}

/// A company with a tax id and a bank account.
pub async fn secretive(client: &Client, name: &str, tax_id: &str) -> String {
    let id = client.company(name).await;
    assert_eq!(set_as_typed(client, &id, tax_id).await["userErrors"], json!([]));
    id
}

async fn set_as_typed(client: &Client, id: &str, tax_id: &str) -> Value {
    let account =
        json!({ "holder": "Acme GmbH", "iban": "de89 3704 0044 0532 0130 00", "bic": "cobadeffxxx" });
    set(
        client,
        json!({ "companyId": id, "taxId": tax_id, "bankAccount": account }),
    )
    .await
}

#[tokio::test]
async fn those_who_look_at_the_same_time_do_not_wait_for_each_other() {
    // Two of them are all that a tenant may hold, and each look is noted over a further one.
    let app = TestApp::counted(4).await;
    let client = app.tenant().await;
    let id = secretive(&client, "Acme", "DE123456789").await;
    let looks = (0..12).map(|_| async {
        assert_eq!(found(&client, "DE123456789").await, [id.as_str()]);
        assert_eq!(shown(&client, &id).await["taxId"], "DE123456789");
    });
    join_all(looks).await;
}

const SHOWN: &str = "query($id: ID!) { company(id: $id) { name taxId bankAccount { holder iban bic } } }";

pub async fn shown(client: &Client, id: &str) -> Value {
    client.query(SHOWN, json!({ "id": id })).await["company"].take()
}

pub async fn found(client: &Client, tax_id: &str) -> Vec<String> {
    let document = "query($taxId: String!) { companiesByTaxId(taxId: $taxId) { id } }";
    let data = client.query(document, json!({ "taxId": tax_id })).await;
    let companies = data["companiesByTaxId"].as_array().unwrap();
    companies
        .iter()
        .map(|it| it["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn audited(client: &Client, kind: &str) -> Vec<Value> {
    let document = "query($filter: AuditEventFilter) { auditEvents(filter: $filter) { nodes {
        kind recordId detail actorId requestId } } }";
    let filter = json!({ "filter": { "kind": { "eq": kind } } });
    client.query(document, filter).await["auditEvents"]["nodes"]
        .as_array()
        .unwrap()
        .clone()
}

#[tokio::test]
async fn what_is_sensitive_is_shown_to_who_may_see_it_and_is_nowhere_to_be_read() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let keyed = client.with_idempotency_key("the only one");
    let id = client.company("Acme").await;
    let first = set_as_typed(&keyed, &id, "de 811.907-980").await;
    assert_eq!(first["userErrors"], json!([]));
    assert_eq!(
        secretive_again(&keyed, &id).await["userErrors"],
        json!([]),
        "a retry is answered the same"
    );
    let company = shown(&client, &id).await;
    assert_eq!(company["taxId"], TAX_ID);
    assert_eq!(
        company["bankAccount"],
        json!({ "holder": "Acme GmbH", "iban": IBAN, "bic": "COBADEFFXXX" })
    );
    let mighty = app.superuser().await;
    let tables = mighty
        .query(
            "SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
                AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')",
            &[],
        )
        .await
        .unwrap();
    assert!(tables.len() > 10);
    for row in tables {
        let table: String = row.get(0);
        for value in [TAX_ID, "811907980", IBAN, "0532013000", "COBADEFF", "Acme GmbH"] {
            let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
            let sql = format!(
                "SELECT count(*) FROM {table} t WHERE tenant_id = '{}' AND (t::text LIKE '%{value}%' OR t::text LIKE '%{hex}%')",
                client.viewer().tenant_id
            );
            let count: i64 = mighty.query_one(&sql, &[]).await.unwrap().get(0);
            assert_eq!(count, 0, "{table} shows {value}");
        }
    }
    // The history tells that the company has changed, the trail tells what was.
    let changed = audited(&client, "SENSITIVE_CHANGED").await;
    assert_eq!(
        changed[0]["detail"],
        json!({ "fields": ["taxId", "bankAccount"] })
    );
    let cleared = set(&client, json!({ "companyId": id, "taxId": null })).await;
    assert_eq!(cleared["userErrors"], json!([]));
    let company = shown(&client, &id).await;
    assert_eq!(
        (&company["taxId"], &company["bankAccount"]["iban"]),
        (&Value::Null, &json!(IBAN))
    );
    client
        .mutate(
            "deleteCompany",
            "DeleteCompanyInput",
            "deletedCompanyId",
            json!({ "companyId": id }),
        )
        .await;
    let (_, uuid) = read_id(&id).unwrap();
    let left = format!("SELECT count(*) FROM company_secrets WHERE company_id = '{uuid}'");
    let left: i64 = mighty.query_one(&left, &[]).await.unwrap().get(0);
    assert_eq!(left, 0);
}

async fn secretive_again(client: &Client, id: &str) -> Value {
    let account = json!({ "holder": "Acme GmbH", "iban": IBAN, "bic": "COBADEFFXXX" });
    set(
        client,
        json!({ "companyId": id, "taxId": TAX_ID, "bankAccount": account }),
    )
    .await
}

#[tokio::test]
async fn every_look_is_recorded_before_the_value_is_given_out() {
    let app = alone("sensitive_audited").await;
    let client = app.tenant().await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(
            secretive(
                &client,
                &format!("Company {number}"),
                &format!("DE81190798{number}"),
            )
            .await,
        );
    }
    let origin = Origin {
        request_id: "the look".to_owned(),
        ..Origin::default()
    };
    let page = "{ companies(first: 10) { nodes { id taxId bankAccount { iban } } } }";
    let looked = client.with_origin(origin).query(page, json!({})).await;
    assert_eq!(looked["companies"]["nodes"].as_array().unwrap().len(), 3);
    assert!(!looked["companies"]["nodes"][2]["taxId"].is_null());
    let entries = audited(&client, "SENSITIVE_READ").await;
    assert_eq!(entries.len(), 3, "one for each record: {entries:#?}");
    let me = write_id("user", client.viewer().user_id);
    for entry in &entries {
        assert_eq!(entry["detail"], json!({ "fields": ["bankAccount", "taxId"] }));
        assert_eq!(
            (&entry["actorId"], &entry["requestId"]),
            (&json!(me), &json!("the look"))
        );
        assert!(ids.contains(&entry["recordId"].as_str().unwrap().to_owned()));
    }
    found(&client, TAX_ID).await;
    let searched = audited(&client, "SENSITIVE_SEARCHED").await;
    assert_eq!(searched[0]["detail"], json!({ "field": "taxId", "found": 1 }));
    // What cannot be recorded is not shown.
    app.superuser()
        .await
        .batch_execute("REVOKE INSERT ON audit_entries FROM dealstream_app")
        .await
        .unwrap();
    let answer = client.answer(SHOWN, json!({ "id": ids[0] })).await;
    assert_eq!(answer["data"]["company"]["taxId"], Value::Null);
    assert_eq!(answer["errors"][0]["extensions"]["code"], "INTERNAL");
    assert!(!answer.to_string().contains("DE81190798"), "{answer}");
}

#[tokio::test]
async fn who_may_not_see_it_does_not_by_any_way() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let id = secretive(&admin, "Acme", TAX_ID).await;
    for role in [Role::Manager, Role::Sales, Role::Marketing, Role::Viewer] {
        let client = app.user(&admin, role).await;
        for (document, variables) in [
            (SHOWN, json!({ "id": id })),
            (
                "query($id: ID!) { node(id: $id) { ... on Company { taxId } } }",
                json!({ "id": id }),
            ),
            (
                "{ companies(first: 5) { nodes { bankAccount { iban } } } }",
                json!({}),
            ),
            (
                "query($t: String!) { companiesByTaxId(taxId: $t) { id } }",
                json!({ "t": TAX_ID }),
            ),
            (
                "mutation($input: UpdateSensitiveCompanyFieldsInput!) {
                    updateSensitiveCompanyFields(input: $input) { company { id } } }",
                json!({ "input": { "companyId": id, "taxId": "DE000000000" } }),
            ),
        ] {
            let answer = client.answer(document, variables).await;
            let refused = &answer["errors"][0]["extensions"];
            assert_eq!(refused["code"], "FORBIDDEN", "{role:?} {document}: {answer}");
            let needed = refused["permission"].as_str().unwrap();
            assert!(needed.starts_with("SENSITIVE_"), "{needed}");
            assert!(!answer.to_string().contains(TAX_ID) && !answer.to_string().contains(IBAN));
        }
    }
    assert_eq!(shown(&admin, &id).await["taxId"], TAX_ID, "nobody changed it");
    // Not even admins are sent it by a subscription, which is made once for many.
    let after = admin.position().await;
    secretive_again(&admin, &id).await;
    let mut frames = admin.subscribe(
        "subscription($after: String) { companyChanged(after: $after) {
            ... on CompanyChangedEvent { changes { field to } company { id taxId } } } }",
        json!({ "after": after }),
    );
    let frame = frames.next().await.unwrap();
    assert!(!frame.to_string().contains(TAX_ID), "{frame}");
    assert_eq!(
        frame["errors"][0]["extensions"]["code"], "BAD_USER_INPUT",
        "{frame}"
    );
    assert_eq!(frame["data"]["companyChanged"]["changes"], json!([]), "{frame}");
}

#[tokio::test]
async fn a_ciphertext_is_good_in_its_own_place_only() {
    let app = TestApp::new().await;
    let (one, two) = (app.tenant().await, app.tenant().await);
    let a = secretive(&one, "A", "DE111111111").await;
    let b = secretive(&one, "B", "DE222222222").await;
    let c = secretive(&two, "C", "DE333333333").await;
    let uuid = |id: &str| read_id(id).unwrap().1;
    let mighty = app.superuser().await;
    let copy = async |from: (&str, &str), to: (&str, &str), key: bool| {
        // With its key, as far as the other tenant has it.
        let key = if key { ", key_id = f.key_id" } else { "" };
        let sql = format!(
            "UPDATE company_secrets t SET sealed = f.sealed{key} FROM company_secrets f
              WHERE f.company_id = '{}' AND f.field = '{}' AND t.company_id = '{}' AND t.field = '{}'",
            uuid(from.0),
            from.1,
            uuid(to.0),
            to.1
        );
        assert_eq!(mighty.execute(&sql, &[]).await.unwrap(), 1);
    };
    copy((&a, "tax_id"), (&b, "tax_id"), true).await;
    copy((&c, "tax_id"), (&a, "tax_id"), false).await;
    copy((&b, "bank_account"), (&a, "bank_account"), true).await;
    copy((&c, "tax_id"), (&c, "bank_account"), true).await;
    for (client, id, field) in [
        (&one, &b, "taxId"),
        (&one, &a, "taxId"),
        (&one, &a, "bankAccount"),
        (&two, &c, "bankAccount"),
    ] {
        let field = if field == "taxId" {
            field
        } else {
            "bankAccount { iban }"
        };
        let document = format!("query($id: ID!) {{ company(id: $id) {{ name {field} }} }}");
        let answer = client.answer(&document, json!({ "id": id })).await;
        assert_eq!(answer["errors"][0]["extensions"]["code"], "INTERNAL", "{answer}");
        assert!(
            !answer.to_string().contains("DE1")
                && !answer.to_string().contains("DE2")
                && !answer.to_string().contains("DE3")
        );
    }
    assert_eq!(
        two.query(
            "query($id: ID!) { company(id: $id) { taxId } }",
            json!({ "id": c })
        )
        .await["company"]["taxId"],
        "DE333333333"
    );
}

#[tokio::test]
async fn equal_tax_ids_are_found_in_ones_own_tenant_only() {
    let app = TestApp::new().await;
    let (one, two) = (app.tenant().await, app.tenant().await);
    assert!(found(&one, TAX_ID).await.is_empty(), "who has none finds none");
    let a = secretive(&one, "A", TAX_ID).await;
    let b = secretive(&one, "B", "de-811.907 980").await;
    secretive(&one, "C", "DE811907981").await;
    let foreign = secretive(&two, "D", TAX_ID).await;
    assert_eq!(found(&one, "DE 811/907/980").await, [a.clone(), b.clone()]);
    assert_eq!(found(&two, TAX_ID).await, [foreign]);
    let distinct = "SELECT count(DISTINCT blind_index) FROM company_secrets s WHERE blind_index IN
                    (SELECT blind_index FROM company_secrets o WHERE o.tenant_id <> s.tenant_id)";
    let shared: i64 = app
        .superuser()
        .await
        .query_one(distinct, &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(shared, 0, "nobody can tell across tenants who is the same");
    let keys = DataKeys::new(app.app.vault.clone());
    rotate(&app.app.db, &keys, one.viewer().tenant_id, false, |_| {})
        .await
        .unwrap();
    assert_eq!(found(&one, TAX_ID).await, [a, b], "with new keys as with the old");
}

#[tokio::test]
async fn the_key_of_the_index_is_changed_while_values_are_found_under_either() {
    let app = alone("sensitive_index").await;
    let client = app.tenant().await;
    let (db, tenant) = (&app.app.db, client.viewer().tenant_id);
    let first = secretive(&client, "First", TAX_ID).await;
    // As a server has kept it that knew of one key only.
    let second = secretive(&client, "Second", TAX_ID).await;
    let mighty = app.superuser().await;
    let unnamed = "UPDATE company_secrets SET index_key_id = NULL WHERE company_id = $1::text::uuid";
    let (_, id) = read_id(&second).unwrap();
    mighty.execute(unnamed, &[&id.to_string()]).await.unwrap();
    let state = async || {
        let state = "SELECT (SELECT count(*) FROM data_keys WHERE purpose = 'INDEX'),
                            (SELECT count(*) FROM company_secrets JOIN data_keys ON id = index_key_id WHERE is_current),
                            (SELECT string_agg(encode(blind_index, 'hex'), ' ' ORDER BY company_id) FROM company_secrets)";
        let row = mighty.query_one(state, &[]).await.unwrap();
        (
            row.get::<_, i64>(0),
            row.get::<_, i64>(1),
            row.get::<_, String>(2),
        )
    };
    let (keys_before, _, index_before) = state().await;
    assert_eq!(keys_before, 1);
    // The rotation has begun, and stops here.
    let keys = DataKeys::new(app.app.vault.clone());
    let tx = db.begin(tenant).await.unwrap();
    keys.renew(&tx, None).await.unwrap();
    tx.commit().await.unwrap();
    let third = secretive(&client, "Third", TAX_ID).await;
    let all = [first, second, third];
    assert_eq!(found(&client, TAX_ID).await, all, "two versions are searched");
    assert_eq!((state().await.0, state().await.1), (2, 1));
    // The next takes it up where it was.
    assert_eq!(tend(db, &keys, None).await.unwrap(), 1);
    assert_eq!(found(&client, TAX_ID).await, all);
    let (keys_after, current, index_after) = state().await;
    assert_eq!((keys_after, current), (1, 3), "the old key is gone");
    for old in index_before.split(' ') {
        assert!(
            !index_after.contains(old),
            "nothing is found by the old key any more"
        );
    }
    assert_eq!(tend(db, &keys, None).await.unwrap(), 0, "nothing is left");
    for id in &all {
        assert_eq!(shown(&client, id).await["taxId"], TAX_ID);
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let id = client.company("Acme").await;
    let wrong_iban = json!({ "holder": "H", "iban": "DE88370400440532013000" });
    let wrong_bic = json!({ "holder": "", "iban": IBAN, "bic": "NOPE" });
    for (input, fields) in [
        (json!({ "taxId": "abc" }), vec!["taxId"]),
        (json!({ "taxId": "1234\u{0}5" }), vec!["taxId"]),
        (json!({ "bankAccount": wrong_iban }), vec!["iban"]),
        (json!({ "bankAccount": wrong_bic }), vec!["holder", "bic"]),
        (
            json!({ "taxId": TAX_ID, "expectedVersion": 7 }),
            vec!["expectedVersion"],
        ),
    ] {
        let mut input = input;
        input["companyId"] = json!(id);
        let payload = set(&client, input).await;
        let problems = payload["userErrors"].as_array().unwrap();
        let named: Vec<_> = problems
            .iter()
            .map(|it| it["field"].as_array().unwrap().last().unwrap().as_str().unwrap())
            .collect();
        assert_eq!(named, fields, "{payload}");
        assert!(!payload.to_string().contains("DE8"), "{payload}");
    }
    assert_eq!(shown(&client, &id).await["taxId"], Value::Null);
}

#[tokio::test]
async fn keys_are_rotated_while_values_are_read_and_written() {
    let app = alone("sensitive_rotated").await;
    let client = app.tenant().await;
    let mut ids = Vec::new();
    for number in 0..12 {
        ids.push(
            secretive(
                &client,
                &format!("Company {number:02}"),
                &format!("DE8119079{number:02}"),
            )
            .await,
        );
    }
    let keys = DataKeys::new(app.app.vault.clone());
    let tenant = client.viewer().tenant_id;
    let rotating = async {
        for _ in 0..3 {
            rotate(&app.app.db, &keys, tenant, false, |_| {}).await.unwrap();
        }
    };
    let writing = async {
        for (number, id) in ids.iter().enumerate() {
            let payload = set(
                &client,
                json!({ "companyId": id, "taxId": format!("FR8119079{number:02}") }),
            )
            .await;
            assert_eq!(payload["userErrors"], json!([]));
        }
    };
    let constant = secretive(&client, "Constant", TAX_ID).await;
    let reading = async {
        for id in &ids {
            assert_eq!(shown(&client, id).await["bankAccount"]["iban"], IBAN);
            assert_eq!(found(&client, TAX_ID).await, [constant.as_str()]);
        }
    };
    futures::join!(rotating, writing, reading);
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(shown(&client, id).await["taxId"], format!("FR8119079{number:02}"));
    }
    let done = rotate(&app.app.db, &keys, tenant, true, |_| {}).await.unwrap();
    assert_eq!(done.values, 0, "nothing was left");
    let mighty = app.superuser().await;
    let left: i64 = mighty
        .query_one("SELECT count(*) FROM data_keys", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 2, "old keys are gone");
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(
            found(&client, &format!("FR8119079{number:02}")).await,
            [id.as_str()]
        );
        assert!(found(&client, &format!("DE8119079{number:02}")).await.is_empty());
    }
}

#[tokio::test]
async fn a_new_master_key_reads_the_old_and_takes_over() {
    let app = alone("sensitive_rewrapped").await;
    let client = app.tenant().await;
    let id = secretive(&client, "Acme", TAX_ID).await;
    let given = format!(
        "next:{}",
        STANDARD.encode([(); 32].map(|()| rand::random::<u8>()))
    );
    let config = Config {
        master_keys: Some(given.into()),
        ..config()
    };
    let next = TestApp::on(app.url.clone(), config).await;
    let same = next.acting_as(client.viewer().clone());
    assert_eq!(shown(&same, &id).await["taxId"], TAX_ID);
    let keys = DataKeys::new(next.app.vault.clone());
    for count in [2, 0] {
        let done = sealed::rewrap(&next.app.db, &next.app.vault, |_, _| {}).await;
        assert_eq!(done.unwrap().values, count);
    }
    assert_eq!(shown(&same, &id).await["taxId"], TAX_ID);
    // What does not have the new key reads nothing any more.
    let old = TestApp::on(app.url.clone(), crate::support::app::config()).await;
    let old = old.acting_as(client.viewer().clone());
    assert_eq!(old.code(SHOWN, json!({ "id": id })).await, "INTERNAL");
    assert!(renew(&next.app.db, &keys, Some("nonsense"), false).await.is_err());
}

#[tokio::test]
async fn what_is_due_is_renewed_in_the_background_and_only_that() {
    let app = alone("sensitive_tended").await;
    let (one, two) = (app.tenant().await, app.tenant().await);
    let a = secretive(&one, "A", TAX_ID).await;
    let b = secretive(&two, "B", TAX_ID).await;
    app.tenant().await;
    let keys = DataKeys::new(app.app.vault.clone());
    let ago = |days| chrono::Utc::now() - chrono::TimeDelta::days(days);
    assert_eq!(
        tend(&app.app.db, &keys, Some(ago(1))).await.unwrap(),
        0,
        "nothing is due"
    );
    let mighty = app.superuser().await;
    let key_of = async |client: &Client| -> String {
        let sql = format!(
            "SELECT string_agg(DISTINCT key_id::text, ' ') FROM company_secrets WHERE tenant_id = '{}'",
            client.viewer().tenant_id
        );
        mighty.query_one(&sql, &[]).await.unwrap().get(0)
    };
    let (before, other) = (key_of(&one).await, key_of(&two).await);
    let older = format!(
        "UPDATE data_keys SET created_at = now() - interval '2 days' WHERE tenant_id = '{}'",
        one.viewer().tenant_id
    );
    mighty.batch_execute(&older).await.unwrap();
    // Instances do it at the same time, and one of them makes the key.
    let (first, second) = futures::join!(
        tend(&app.app.db, &keys, Some(ago(1))),
        tend(&app.app.db, &keys, Some(ago(1)))
    );
    assert!(first.unwrap() + second.unwrap() >= 1);
    tend(&app.app.db, &keys, Some(ago(1))).await.unwrap();
    assert_ne!(key_of(&one).await, before);
    assert_eq!(key_of(&two).await, other);
    let left: i64 = mighty
        .query_one("SELECT count(*) FROM data_keys WHERE purpose = 'SEAL'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 2, "the old key is gone");
    assert_eq!(shown(&one, &a).await["taxId"], TAX_ID);
    assert_eq!(found(&one, TAX_ID).await, [a]);
    // A new master key takes over by itself.
    let bytes = STANDARD.encode([(); 32].map(|()| rand::random::<u8>()));
    let config = Config {
        master_keys: Some(format!("next:{bytes}").into()),
        ..config()
    };
    let next = TestApp::on(app.url.clone(), config).await;
    let keys = DataKeys::new(next.app.vault.clone());
    look_after(&next.app.db, &next.app.vault, &keys, None).await;
    let kept = sealed::kept(&next.app.db).await.unwrap();
    let names: Vec<_> = kept
        .iter()
        .filter_map(|kept| kept.master_key.as_deref())
        .collect();
    assert_eq!(names, ["next", "next"], "{kept:?}");
    assert_eq!(
        shown(&next.acting_as(two.viewer().clone()), &b).await["taxId"],
        TAX_ID
    );
}
