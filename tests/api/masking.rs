//! Contact details are masked for who may not see them, wherever they come up.

use std::time::Duration;

use dealstream::auth::{Permission, Permissions, Reach, Rights, Role};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::support::{Client, TestApp};

/// Everything but to see contact details.
fn blindfold(client: &Client) -> Client {
    let all = Permission::ALL.iter().copied();
    let permissions: Permissions = all
        .filter(|permission| *permission != Permission::ContactDetailsRead)
        .collect();
    let role = Some(uuid::Uuid::now_v7());
    client.with_rights(Rights::custom(Role::Custom, role, permissions, Reach::ALL))
}

const COMPANY: &str = "name domain email phone address { street city region postalCode countryCode }";

struct Filled {
    admin: Client,
    masked: Client,
    company: String,
    contact: String,
}

impl Filled {
    async fn new() -> Self {
        let app = TestApp::new().await;
        let admin = app.tenant().await;
        let masked = blindfold(&app.user(&admin, Role::Admin).await);
        let input = json!({
            "name": "Acme", "domain": "acme.example", "email": "secret.box@acme.example", "phone": "+49 30 5551242",
            "address": { "street": "5 Hidden Lane", "city": "Hidden City", "postalCode": "99999", "countryCode": "DE" },
        });
        let company = admin
            .mutate("createCompany", "CreateCompanyInput", "company { id }", input)
            .await;
        let company = company["company"]["id"].as_str().unwrap().to_owned();
        let contact = json!({
            "name": "Jane Doe", "email": "jane.secret@acme.example", "phone": "+49 170 5551242", "companyId": company,
        });
        let contact = admin.contact(contact).await;
        Self {
            admin,
            masked,
            company,
            contact,
        }
    }
}

/// Whether a text holds anything that is to be masked.
fn leaks(value: &Value) -> bool {
    ["secret", "555", "Hidden", "99999"]
        .iter()
        .any(|part| value.to_string().contains(part))
}

#[tokio::test]
async fn details_are_masked_for_who_lacks_the_permission_and_for_nobody_else() {
    let it = Filled::new().await;
    let document = format!(
        "query($company: ID!, $contact: ID!) {{ company(id: $company) {{ {COMPANY} contacts {{ nodes {{ email phone }} }} }}
           node(id: $contact) {{ ... on Contact {{ name email phone company {{ email }} }} }}
           contacts {{ nodes {{ email }} }} }}"
    );
    let variables = json!({ "company": it.company, "contact": it.contact });
    let shown = it.admin.query(&document, variables.clone()).await;
    assert_eq!(shown["company"]["email"], "secret.box@acme.example");
    assert_eq!(shown["node"]["phone"], "+49 170 5551242");
    assert_eq!(shown["company"]["address"]["street"], "5 Hidden Lane");
    let masked = it.masked.query(&document, variables).await;
    assert!(!leaks(&masked), "{masked:#}");
    assert_eq!(
        masked["company"],
        json!({
            "name": "Acme", "domain": "acme.example", "email": "s•••@acme.example", "phone": "•••• 42",
            "address": { "street": "•••", "city": "•••", "region": null, "postalCode": "•••", "countryCode": "DE" },
            "contacts": { "nodes": [{ "email": "j•••@acme.example", "phone": "•••• 42" }] },
        })
    );
    assert_eq!(masked["node"]["company"]["email"], "s•••@acme.example");
}

#[tokio::test]
async fn of_the_built_in_roles_one_does_not_see_contact_details() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    admin
        .contact(json!({ "name": "J", "email": "j@acme.example" }))
        .await;
    for role in &Role::BUILT_IN {
        let client = app.user(&admin, *role).await;
        let seen = client.query("{ contacts { nodes { email } } }", json!({})).await;
        let expected = match role {
            Role::Viewer => "j•••@acme.example",
            _ => "j@acme.example",
        };
        assert_eq!(seen["contacts"]["nodes"][0]["email"], expected, "{role:?}");
    }
}

#[tokio::test]
async fn what_is_masked_can_be_neither_filtered_by_nor_searched_for() {
    let it = Filled::new().await;
    for (list, filter) in [
        ("contacts", json!({ "email": { "startsWith": "jane" } })),
        ("contacts", json!({ "email": { "isNull": false } })),
        (
            "contacts",
            json!({ "not": { "or": [{ "email": { "eq": "x" } }] } }),
        ),
        ("contacts", json!({ "company": { "email": { "contains": "s" } } })),
        ("companies", json!({ "and": [{ "email": { "contains": "s" } }] })),
        ("deals", json!({ "contact": { "email": { "contains": "s" } } })),
        (
            "deals",
            json!({ "company": { "not": { "email": { "contains": "s" } } } }),
        ),
    ] {
        let kind = match list {
            "companies" => "Company",
            "contacts" => "Contact",
            _ => "Deal",
        };
        let document = format!("query($filter: {kind}Filter) {{ {list}(filter: $filter) {{ totalCount }} }}");
        let variables = json!({ "filter": filter });
        let refused = it.masked.answer(&document, variables.clone()).await;
        let error = &refused["errors"][0]["extensions"];
        assert_eq!(error["code"], "FORBIDDEN", "{list} {filter}");
        assert_eq!(error["permission"], "CONTACT_DETAILS_READ", "{list} {filter}");
        it.admin.query(&document, variables).await;
    }
    for (list, search, found) in [
        ("contacts", "jane.s", 0),
        ("contacts", "acme.example", 0),
        ("contacts", "JANE D", 1),
        ("companies", "secret.box", 0),
        ("companies", "acm", 1),
    ] {
        let document = format!(
            "query($search: String) {{ {list}(search: $search, first: 1) {{ totalCount nodes {{ name }} }} }}"
        );
        let variables = json!({ "search": search });
        let masked = it.masked.query(&document, variables.clone()).await;
        assert_eq!(masked[list]["totalCount"], found, "{search}");
        assert_eq!(
            masked[list]["nodes"].as_array().unwrap().len() as i64,
            found,
            "{search}"
        );
        let shown = it.admin.query(&document, variables).await;
        assert_eq!(shown[list]["totalCount"], 1, "{search}");
    }
}

#[tokio::test]
async fn neither_changes_nor_conflicts_tell_what_is_masked() {
    let it = Filled::new().await;
    let begin = it.admin.position().await;
    let input = json!({ "contactId": it.contact, "email": "new.secret@acme.example", "notes": "kept" });
    it.admin
        .mutate("updateContact", "UpdateContactInput", "position", input)
        .await;
    let input =
        json!({ "companyId": it.company, "address": { "street": "6 Hidden Lane", "countryCode": "DE" } });
    it.admin
        .mutate("updateCompany", "UpdateCompanyInput", "position", input)
        .await;
    let document = "subscription($after: String) { changes(after: $after) { __typename
        ... on RecordChangedEvent { changes { field from to } record { ... on Contact { email } } } } }";
    let mut told = Vec::new();
    let mut frames = it.masked.subscribe(document, json!({ "after": begin }));
    while told.len() < 2 {
        let frame = tokio::time::timeout(Duration::from_secs(30), frames.next()).await;
        told.push(frame.unwrap().unwrap()["data"]["changes"].take());
    }
    assert!(!leaks(&json!(told)), "{told:#?}");
    let changed = json!({ "field": "email", "from": "j•••@acme.example", "to": "n•••@acme.example" });
    assert!(
        told[0]["changes"].as_array().unwrap().contains(&changed),
        "{told:#?}"
    );
    assert_eq!(told[1]["changes"][0]["to"]["countryCode"], "DE");
    // Who may change a detail may do so blindly, and is not told by the way what it was.
    let input =
        json!({ "contactId": it.contact, "email": "x@acme.example", "phone": "1", "expectedVersion": 1 });
    let refused = it
        .masked
        .payload("updateContact", "UpdateContactInput", "contact { email }", input)
        .await;
    assert_eq!(refused["userErrors"][0]["code"], "CONFLICT");
    assert!(!leaks(&refused), "{refused:#}");
    // Not even whether it is the same as what they guess.
    assert_eq!(refused["userErrors"][0]["conflicts"], json!([]));
    let guess = async |email: &str| {
        let input =
            json!({ "contactId": it.contact, "email": email, "notes": "other", "expectedVersion": 1 });
        let mut refused = it
            .masked
            .payload("updateContact", "UpdateContactInput", "position", input)
            .await;
        refused["userErrors"].take()
    };
    let wrong = guess("wrong@acme.example").await;
    assert_eq!(
        wrong[0]["conflicts"],
        json!([{ "field": "notes", "currentValue": "\"kept\"" }])
    );
    assert_eq!(guess("new.secret@acme.example").await, wrong);
    let input =
        json!({ "contactId": it.contact, "email": "other.secret@acme.example", "idempotencyKey": "k" });
    for _ in 0..2 {
        let changed = it
            .masked
            .mutate(
                "updateContact",
                "UpdateContactInput",
                "contact { email }",
                input.clone(),
            )
            .await;
        assert_eq!(changed["contact"]["email"], "o•••@acme.example");
    }
}
