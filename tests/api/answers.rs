//! What an answer looks like: the fields that were asked for, in their order, each once.

use async_graphql::Variables;
use dealstream::graphql::eager;
use serde_json::{Value, json};

use crate::support::{Client, TestApp};

/// The data of an answer as it is written.
async fn written(client: &Client, document: &str) -> String {
    let prepared = client.app.documents.prepare(document, None, Variables::default());
    let prepared = prepared.unwrap_or_else(|refusal| panic!("{document}\n{refusal}"));
    let session = client.session();
    let request = prepared.request().data(session.clone());
    let response = client.app.schema.execute(request).await;
    session.finish();
    assert!(response.errors.is_empty(), "{document}\n{:?}", response.errors);
    let mut data = Vec::new();
    eager::write(&response.data, &mut data);
    String::from_utf8(data).unwrap()
}

/// A tenant with two deals, each with a contact that works at a company.
async fn two_deals() -> Client {
    let client = TestApp::new().await.tenant().await;
    for name in ["One", "\"Two\" \\ \u{1f4c8}"] {
        let company = client.company("Initech").await;
        let contact = client
            .contact(json!({ "name": "Peter Gibbons", "companyId": company }))
            .await;
        client.deal(json!({ "name": name, "contactId": contact })).await;
    }
    client
}

#[tokio::test]
async fn an_answer_has_the_fields_in_the_order_in_which_they_were_asked_for() {
    let client = two_deals().await;
    let data = written(
        &client,
        "{ __typename deals(first: 2, orderBy: { field: CREATED_AT }) { totalCount __typename nodes {
            stage { name } __typename title: name amount { currencyCode amount } nextStep
            contact { company { name } name } interactions(first: 1) { nodes { id } } } } }",
    )
    .await;
    let deal = |title: &str| {
        format!(
            r#"{{"stage":{{"name":"Prospect"}},"__typename":"Deal","title":{title},"amount":{{"currencyCode":"USD","amount":"0.00"}},"nextStep":null,"contact":{{"company":{{"name":"Initech"}},"name":"Peter Gibbons"}},"interactions":{{"nodes":[]}}}}"#
        )
    };
    let (one, two) = (deal(r#""One""#), deal("\"\\\"Two\\\" \\\\ \u{1f4c8}\""));
    assert_eq!(
        data,
        format!(
            r#"{{"__typename":"Query","deals":{{"totalCount":2,"__typename":"DealConnection","nodes":[{one},{two}]}}}}"#
        )
    );
}

#[tokio::test]
async fn a_field_that_is_asked_for_in_several_places_is_answered_in_one() {
    let client = two_deals().await;
    let once = written(
        &client,
        "{ deals(first: 2) { nodes { id contact { id company { id name } name } name amount { amount currencyCode } }
           edges { node { id name } } pageInfo { hasNextPage endCursor } } }",
    )
    .await;
    let scattered = written(
        &client,
        "{ deals(first: 2) { nodes { id ...Person } edges { node { id } } pageInfo { hasNextPage } }
           ...Again deals(first: 2) { nodes { amount { amount } ... { amount { currencyCode } } } } }
         fragment Person on Deal { contact { id company { id } } ... on Node { id } ...Name }
         fragment Name on Deal { contact { company { name } name } name id }
         fragment Again on Query { deals(first: 2) { edges { node { name } } pageInfo { endCursor hasNextPage } } }",
    )
    .await;
    // Spaces and line breaks aside, they are the same text.
    assert_eq!(scattered, once);
}

#[tokio::test]
async fn what_may_not_be_null_takes_its_record_with_it_and_tells_where() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    client.deal(json!({ "name": "One" })).await;
    // The cursor is no place in that list; other fields are answered all the same.
    for twice in ["", "name "] {
        let document = format!(
            r#"{{ deals(first: 1) {{ nodes {{ name {twice}stage {{ name deals(first: 1, after: "x") {{ nodes {{ id }} }} }} }} }} }}"#
        );
        let answer = client.answer(&document, json!({})).await;
        assert_eq!(
            answer["data"],
            json!({ "deals": { "nodes": [{ "name": "One", "stage": null }] } }),
            "{answer:#}"
        );
        let errors = answer["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0]["path"], json!(["deals", "nodes", 0, "stage", "deals"]));
        assert_eq!(errors[0]["extensions"]["code"], "BAD_USER_INPUT");
    }
    let all = "{ deals(first: 1) { nodes { interactions(first: 0) { nodes { id } } } } }";
    let answer = client.answer(all, json!({})).await;
    assert_eq!(answer["data"], Value::Null, "{answer:#}");
}

/// The fields of a type that need no argument, each with something of what is below it.
async fn fields_of(client: &Client, name: &str) -> Vec<String> {
    let document =
        "query($name: String!) { __type(name: $name) { fields { name type { kind ofType { kind } } } } }";
    let told = client.query(document, json!({ "name": name })).await;
    let kind = |ty: &Value| match ty["kind"].as_str() {
        Some("NON_NULL") => ty["ofType"]["kind"].clone(),
        _ => ty["kind"].clone(),
    };
    let fields = told["__type"]["fields"].as_array().unwrap();
    (fields.iter())
        .map(|field| match kind(&field["type"]).as_str().unwrap() {
            "OBJECT" => format!("{} {{ __typename }}", field["name"].as_str().unwrap()),
            _ => field["name"].as_str().unwrap().to_owned(),
        })
        .collect()
}

/// A record of each kind that is read in part, with something in every field.
async fn records(client: &Client) -> [(&'static str, String); 4] {
    let me = client.query("{ viewer { user { id } } }", json!({})).await["viewer"]["user"]["id"].clone();
    let input = json!({ "name": "Initech", "domain": "initech.example", "industry": "Software", "ownerId": me,
        "email": "info@initech.example", "phone": "+1 512 555 0100", "address": { "city": "Austin" } });
    let selection = "company { id }";
    let company = client
        .mutate("createCompany", "CreateCompanyInput", selection, input)
        .await;
    let company = company["company"]["id"].as_str().unwrap().to_owned();
    let contact = json!({ "name": "Peter Gibbons", "email": "peter@initech.example", "phone": "+1 512 555 0101",
        "jobTitle": "Programmer", "companyId": company, "source": "Fair", "rating": 3, "notes": "Likes Mondays not",
        "ownerId": me });
    let contact = client.contact(contact).await;
    let deal = json!({ "name": "Reports", "contactId": contact, "companyId": company, "ownerId": me,
        "expectedCloseDate": "2027-01-31", "nextStep": "Cover sheets", "description": "All of them" });
    let deal = client.deal(deal).await;
    let lost = client.stage("Closed Lost").await;
    let reason = json!({ "dealId": deal, "stageId": lost, "lostReason": "Fire" });
    client.move_deal(reason).await;
    let interaction = json!({ "kind": "CALL", "direction": "OUTBOUND", "channel": "Telephone", "subject": "Staplers",
        "content": "Red ones", "outcome": "None", "nextAction": "Call again", "scheduledAt": "2026-01-02T03:04:05Z",
        "completedAt": "2026-01-02T04:00:00Z", "contactId": contact, "companyId": company, "dealId": deal });
    let interaction = client.interaction(interaction).await;
    [
        ("Company", company),
        ("Contact", contact),
        ("Deal", deal),
        ("Interaction", interaction),
    ]
}

#[tokio::test]
async fn a_field_is_the_same_whatever_else_is_asked_for() {
    let client = TestApp::new().await.tenant().await;
    let records = records(&client).await;
    let [company, contact, deal, _] = &records;
    for (kind, id) in &records {
        let below = |parent: &str, id: &str, list: &str| {
            format!(
                "{{ of: node(id: \"{id}\") {{ ... on {parent} {{ of: {list}(first: 1) {{ of: nodes {{ % }} }} }} }} }}"
            )
        };
        let mut ways = vec![format!(
            "{{ of: node(id: \"{id}\") {{ ... on {kind} {{ % }} }} }}"
        )];
        let (list, more): (&str, Vec<String>) = match *kind {
            "Company" => (
                "companies",
                vec!["{ of: companies(first: 1, search: \"nite\") { of: nodes { % } } }".into()],
            ),
            "Contact" => (
                "contacts",
                vec![
                    "{ of: contacts(first: 1, search: \"ibbon\") { of: nodes { % } } }".into(),
                    below("Company", &company.1, "contacts"),
                ],
            ),
            "Deal" => (
                "deals",
                vec![
                    below("Company", &company.1, "deals"),
                    below("Contact", &contact.1, "deals"),
                ],
            ),
            _ => (
                "interactions",
                vec![
                    below("Company", &company.1, "interactions"),
                    below("Contact", &contact.1, "interactions"),
                    below("Deal", &deal.1, "interactions"),
                ],
            ),
        };
        ways.push(format!("{{ of: {list}(first: 1) {{ of: nodes {{ % }} }} }}"));
        ways.extend(more);
        let fields = fields_of(&client, kind).await;
        let name = |field: &str| field.split(' ').next().unwrap().to_owned();
        for way in ways {
            let asked = async |selection: &str| {
                let mut answer = client.query(&way.replace('%', selection), json!({})).await;
                while let Some(below) = answer.get_mut("of").map(Value::take) {
                    answer = match below {
                        Value::Array(mut list) => list.remove(0),
                        below => below,
                    };
                }
                answer
            };
            let together = asked(&fields.join(" ")).await;
            for field in &fields {
                let (name, alone) = (name(field), asked(field).await);
                assert_eq!(alone[&name], together[&name], "{kind}.{name} alone, by {way}");
                // What is sealed is not kept in the record's own row.
                let filled = !alone[&name].is_null() || ["taxId", "bankAccount"].contains(&&*name);
                assert!(filled, "{kind}.{name} has nothing in it, by {way}");
            }
        }
    }
}
