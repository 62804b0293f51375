//! Companies: what can be done with them, and which are found.

use dealstream::db::id::write_id;
use serde_json::{Value, json};

use crate::support::{Client, TestApp};

async fn create(client: &Client, input: Value) -> Value {
    let selection = "company { id name domain industry email phone version createdAt updatedAt owner { id }
        address { street city region postalCode countryCode } }";
    client
        .mutate("createCompany", "CreateCompanyInput", selection, input)
        .await["company"]
        .clone()
}

async fn update(client: &Client, input: Value) -> Value {
    let selection =
        "company { id name domain industry email version createdAt updatedAt address { city postalCode } }";
    client
        .payload("updateCompany", "UpdateCompanyInput", selection, input)
        .await
}

/// The names of the companies that a filter finds, in order.
async fn found(client: &Client, filter: Value) -> Vec<String> {
    let document = "query($filter: CompanyFilter) { companies(filter: $filter, orderBy: { field: NAME }) {
        totalCount nodes { name } } }";
    let data = client.query(document, json!({ "filter": filter })).await;
    let nodes = data["companies"]["nodes"].as_array().unwrap();
    assert_eq!(data["companies"]["totalCount"], nodes.len());
    nodes
        .iter()
        .map(|node| node["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_company_is_created_read_changed_and_deleted() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let owner = write_id("user", client.viewer().user_id);
    let company = create(
        &client,
        json!({
            "name": "  Acme  ", "domain": "acme.example", "industry": "Tools", "email": "Info@Acme.Example", "phone": "+49 30 1",
            "ownerId": owner,
            "address": { "street": "Road 1\nBack yard", "city": "Berlin", "postalCode": "10115", "countryCode": "DE" },
        }),
    )
    .await;
    assert_eq!(company["name"], "Acme", "white space around it is dropped");
    assert_eq!(company["email"], "info@acme.example");
    assert_eq!(company["owner"]["id"], owner);
    assert_eq!(
        company["address"],
        json!({ "street": "Road 1\nBack yard", "city": "Berlin", "region": null, "postalCode": "10115", "countryCode": "DE" })
    );
    assert_eq!(
        (&company["version"], &company["createdAt"]),
        (&json!(1), &company["updatedAt"])
    );
    let id = &company["id"];
    let read = client
        .query(
            "query($id: ID!) { company(id: $id) { id name domain industry email phone version createdAt updatedAt owner { id }
               address { street city region postalCode countryCode } } node(id: $id) { id ... on Company { name } } }",
            json!({ "id": id }),
        )
        .await;
    assert_eq!(read["company"], company, "what is answered is what is read later");
    assert_eq!(read["node"], json!({ "id": id, "name": "Acme" }));
    let changed = update(
        &client,
        json!({ "companyId": id, "name": "Acme Ltd", "domain": null, "industry": "" }),
    )
    .await;
    let changed = &changed["company"];
    assert_eq!(changed["name"], "Acme Ltd");
    assert_eq!(
        (&changed["domain"], &changed["industry"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&changed["email"], &changed["version"]),
        (&json!("info@acme.example"), &json!(2))
    );
    assert_eq!(changed["createdAt"], company["createdAt"]);
    assert_ne!(changed["updatedAt"], company["updatedAt"]);
    let deleted = client
        .mutate(
            "deleteCompany",
            "DeleteCompanyInput",
            "deletedCompanyId",
            json!({ "companyId": id }),
        )
        .await;
    assert_eq!(deleted["deletedCompanyId"], *id);
    let read = client
        .query(
            "query($id: ID!) { company(id: $id) { id } node(id: $id) { id } }",
            json!({ "id": id }),
        )
        .await;
    assert_eq!(read, json!({ "company": null, "node": null }));
    let again = client
        .payload(
            "deleteCompany",
            "DeleteCompanyInput",
            "deletedCompanyId",
            json!({ "companyId": id }),
        )
        .await;
    assert_eq!(again["userErrors"][0]["code"], "NOT_FOUND");
    assert_eq!(again["userErrors"][0]["field"], json!(["input", "companyId"]));
}

#[tokio::test]
async fn all_problems_of_an_input_are_told_at_once() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let input = json!({ "name": " ", "email": "nobody", "phone": "1\u{7}", "address": { "countryCode": "Germany", "city": "x".repeat(201) } });
    let payload = client
        .payload("createCompany", "CreateCompanyInput", "company { id }", input)
        .await;
    assert_eq!(payload["company"], Value::Null);
    assert_eq!(payload["position"], Value::Null);
    let mut told: Vec<_> = payload["userErrors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            let path = error["field"]
                .as_array()
                .unwrap()
                .iter()
                .map(|step| step.as_str().unwrap());
            format!(
                "{} {}",
                path.collect::<Vec<_>>().join("."),
                error["code"].as_str().unwrap()
            )
        })
        .collect();
    told.sort();
    let expected = [
        "input.address.city TOO_LONG",
        "input.address.countryCode INVALID",
        "input.email INVALID",
        "input.name REQUIRED",
        "input.phone INVALID",
    ];
    assert_eq!(told, expected);
    assert_eq!(found(&client, json!({})).await, [""; 0]);
}

#[tokio::test]
async fn a_stale_update_is_told_what_differs_in_the_form_of_the_input() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let owner = write_id("user", client.viewer().user_id);
    let id = create(&client, json!({ "name": "Acme", "industry": "Tools" })).await["id"].clone();
    let address = json!({ "city": "Berlin", "postalCode": "10115" });
    update(
        &client,
        json!({ "companyId": id, "name": "Acme Ltd", "ownerId": owner, "address": address }),
    )
    .await;
    let stale = json!({
        "companyId": id, "expectedVersion": 1, "name": "Acme Inc", "industry": "Tools", "ownerId": null, "address": null, "domain": "x.example",
    });
    let payload = update(&client, stale.clone()).await;
    let error = &payload["userErrors"][0];
    assert_eq!(
        (&error["code"], &error["field"]),
        (&json!("CONFLICT"), &json!(["input", "expectedVersion"]))
    );
    let mut conflicts: Vec<(String, Value)> = error["conflicts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let value = serde_json::from_str(it["currentValue"].as_str().unwrap()).unwrap();
            (it["field"].as_str().unwrap().to_owned(), value)
        })
        .collect();
    conflicts.sort_by(|a, b| a.0.cmp(&b.0));
    let whole = json!({ "street": null, "city": "Berlin", "region": null, "postalCode": "10115", "countryCode": null });
    let expected = [
        ("address".to_owned(), whole),
        ("domain".to_owned(), Value::Null),
        ("name".to_owned(), json!("Acme Ltd")),
        ("ownerId".to_owned(), json!(owner)),
    ];
    assert_eq!(conflicts, expected);
    assert_eq!(payload["company"], Value::Null);
    // Told the current values, the client can write them back.
    let input = json!({ "companyId": id, "expectedVersion": 2, "address": conflicts[0].1, "ownerId": conflicts[3].1 });
    let payload = update(&client, input).await;
    assert_eq!(payload["company"]["version"], 2, "nothing changed: {payload}");
    let mut fresh = stale;
    fresh["expectedVersion"] = json!(2);
    assert_eq!(update(&client, fresh).await["company"]["version"], 3);
    let stale = json!({ "companyId": id, "expectedVersion": 2 });
    let payload = client
        .payload("deleteCompany", "DeleteCompanyInput", "deletedCompanyId", stale)
        .await;
    assert_eq!(payload["userErrors"][0]["code"], "CONFLICT");
    assert_eq!(found(&client, json!({})).await.len(), 1);
}

#[tokio::test]
async fn a_company_that_is_referred_to_is_not_deleted() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let id = client.company("Acme").await;
    let contact = client.contact(json!({ "name": "C", "companyId": id })).await;
    let deal = client.deal(json!({ "name": "D", "companyId": id })).await;
    let interaction = client
        .interaction(json!({ "kind": "NOTE", "subject": "S", "companyId": id }))
        .await;
    let delete = async || {
        let payload = client
            .payload(
                "deleteCompany",
                "DeleteCompanyInput",
                "deletedCompanyId",
                json!({ "companyId": id }),
            )
            .await;
        payload["userErrors"][0].clone()
    };
    let error = delete().await;
    assert_eq!(
        (&error["code"], &error["field"]),
        (&json!("IN_USE"), &json!(["input", "companyId"]))
    );
    assert_eq!(
        error["message"],
        "The company still has contacts, deals, interactions. Move or delete them first."
    );
    client
        .mutate(
            "deleteInteraction",
            "DeleteInteractionInput",
            "deletedInteractionId",
            json!({ "interactionId": interaction }),
        )
        .await;
    client
        .mutate(
            "deleteDeal",
            "DeleteDealInput",
            "deletedDealId",
            json!({ "dealId": deal }),
        )
        .await;
    assert_eq!(
        delete().await["message"],
        "The company still has contacts. Move or delete them first."
    );
    let away = json!({ "contactId": contact, "companyId": null });
    client
        .mutate(
            "updateContact",
            "UpdateContactInput",
            "contact { company { id } }",
            away,
        )
        .await;
    assert_eq!(delete().await, Value::Null);
}

#[tokio::test]
async fn each_operator_finds_what_it_says() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let owner = write_id("user", client.viewer().user_id);
    let a = create(
        &client,
        json!({ "name": "Alpha", "industry": "Tools", "ownerId": owner }),
    )
    .await;
    let b = create(
        &client,
        json!({ "name": "Beta", "industry": "tools", "domain": "beta.example" }),
    )
    .await;
    create(&client, json!({ "name": "Gamma" })).await;
    for (filter, names) in [
        (json!(null), &["Alpha", "Beta", "Gamma"][..]),
        (json!({}), &["Alpha", "Beta", "Gamma"]),
        (json!({ "id": { "eq": a["id"] } }), &["Alpha"]),
        (json!({ "id": { "in": [a["id"], b["id"]] } }), &["Alpha", "Beta"]),
        (json!({ "id": { "in": [] } }), &[]),
        (json!({ "name": { "eq": "Alpha" } }), &["Alpha"]),
        (json!({ "name": { "eq": "alpha" } }), &[]),
        (
            json!({ "name": { "in": ["Alpha", "Gamma", "Delta"] } }),
            &["Alpha", "Gamma"],
        ),
        (
            json!({ "name": { "contains": "A" } }),
            &["Alpha", "Beta", "Gamma"],
        ),
        (json!({ "name": { "contains": "LPH" } }), &["Alpha"]),
        (json!({ "name": { "startsWith": "b" } }), &["Beta"]),
        (json!({ "name": { "startsWith": "a", "contains": "beta" } }), &[]),
        (json!({ "industry": { "eq": "Tools" } }), &["Alpha"]),
        (json!({ "industry": { "isNull": true } }), &["Gamma"]),
        (json!({ "industry": { "isNull": false } }), &["Alpha", "Beta"]),
        (json!({ "domain": { "isNull": false } }), &["Beta"]),
        (json!({ "ownerId": { "eq": owner } }), &["Alpha"]),
        (json!({ "ownerId": { "isNull": true } }), &["Beta", "Gamma"]),
        (json!({ "email": { "contains": "x" } }), &[]),
        (
            json!({ "createdAt": { "gte": a["createdAt"], "lt": b["createdAt"] } }),
            &["Alpha"],
        ),
        (
            json!({ "createdAt": { "gt": a["createdAt"] } }),
            &["Beta", "Gamma"],
        ),
        (
            json!({ "updatedAt": { "lte": b["updatedAt"] } }),
            &["Alpha", "Beta"],
        ),
        (json!({ "createdAt": { "isNull": true } }), &[]),
        (
            json!({ "not": { "industry": { "eq": "Tools" } } }),
            &["Beta", "Gamma"],
        ),
        (json!({ "not": {} }), &[]),
        (
            json!({ "not": { "not": { "name": { "eq": "Beta" } } } }),
            &["Beta"],
        ),
        (
            json!({ "or": [{ "name": { "eq": "Alpha" } }, { "domain": { "contains": "BETA" } }] }),
            &["Alpha", "Beta"],
        ),
        (json!({ "or": [] }), &[]),
        (
            json!({ "or": [{}, { "name": { "eq": "Alpha" } }] }),
            &["Alpha", "Beta", "Gamma"],
        ),
        (json!({ "and": [] }), &["Alpha", "Beta", "Gamma"]),
        (
            json!({ "and": [{ "industry": { "isNull": false } }, { "not": { "name": { "eq": "Alpha" } } }] }),
            &["Beta"],
        ),
        (
            json!({ "name": { "contains": "a" }, "or": [{ "name": { "startsWith": "G" } }, { "name": { "startsWith": "B" } }] }),
            &["Beta", "Gamma"],
        ),
        (
            json!({ "or": [{ "and": [{ "name": { "eq": "Alpha" } }, { "industry": { "eq": "Tools" } }] }, { "name": { "eq": "Gamma" } }],
                    "not": { "industry": { "isNull": true } } }),
            &["Alpha"],
        ),
        (
            json!({ "id": null, "name": null, "and": null, "or": null, "not": null }),
            &["Alpha", "Beta", "Gamma"],
        ),
        (
            json!({ "id": { "eq": null, "in": null }, "name": { "eq": null, "in": null, "contains": null, "startsWith": "B" },
                    "createdAt": { "gt": null, "lte": null }, "ownerId": { "eq": null, "isNull": null } }),
            &["Beta"],
        ),
    ] {
        assert_eq!(found(&client, filter.clone()).await, names, "{filter}");
    }
}

#[tokio::test]
async fn a_domain_is_one_and_kept_in_one_form() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let create = async |domain: &str| {
        let input = json!({ "name": "Acme", "domain": domain });
        let selection = "company { domain }";
        client
            .payload("createCompany", "CreateCompanyInput", selection, input)
            .await
    };
    for (domain, kept) in [
        ("ACME.Example", "acme.example"),
        ("sub-1.acme.example", "sub-1.acme.example"),
        ("müller.example", "müller.example"),
        ("xn--mller-kva.example", "müller.example"),
        ("a\u{200b}cme.example", "acme.example"),
        ("हिन्दी.example", "हिन्दी.example"),
    ] {
        assert_eq!(create(domain).await["company"]["domain"], kept);
    }
    for domain in [
        "acme",
        "not a domain",
        "javascript:alert(1)",
        "https://acme.example",
        "acme..example",
        ".example",
        "acme.example.",
        "-a.example",
        "a-.example",
        "acme.example/a",
        "acme_1.example",
    ] {
        let error = &create(domain).await["userErrors"][0];
        assert_eq!(
            (&error["field"], &error["code"]),
            (&json!(["input", "domain"]), &json!("INVALID")),
            "{domain}"
        );
    }
}

#[tokio::test]
async fn relations_lead_both_ways() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let company = client.company("Acme").await;
    let contact = client.contact(json!({ "name": "C", "companyId": company })).await;
    let deal = client
        .deal(json!({ "name": "D", "companyId": company, "contactId": contact }))
        .await;
    let interaction = client
        .interaction(json!({ "kind": "CALL", "subject": "S", "companyId": company, "contactId": contact, "dealId": deal }))
        .await;
    let data = client
        .query(
            "query($id: ID!) { company(id: $id) {
               contacts { totalCount nodes { id company { id } deals { nodes { id } } interactions { nodes { id } } } }
               deals { totalCount nodes { id company { id } contact { id } interactions { nodes { id } } stageHistory { totalCount nodes { deal { id } } } } }
               interactions { totalCount nodes { id company { id } contact { id } deal { id } createdBy { id } } } } }",
            json!({ "id": company }),
        )
        .await;
    let (company, contact, deal, interaction) = (
        json!({ "id": company }),
        json!({ "id": contact }),
        json!({ "id": deal }),
        json!({ "id": interaction }),
    );
    let user = json!({ "id": write_id("user", client.viewer().user_id) });
    assert_eq!(
        data["company"],
        json!({
            "contacts": { "totalCount": 1, "nodes": [{
                "id": contact["id"], "company": company, "deals": { "nodes": [deal] }, "interactions": { "nodes": [interaction] } }] },
            "deals": { "totalCount": 1, "nodes": [{
                "id": deal["id"], "company": company, "contact": contact, "interactions": { "nodes": [interaction] },
                "stageHistory": { "totalCount": 1, "nodes": [{ "deal": deal }] } }] },
            "interactions": { "totalCount": 1, "nodes": [{
                "id": interaction["id"], "company": company, "contact": contact, "deal": deal, "createdBy": user }] },
        })
    );
}
