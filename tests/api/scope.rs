//! Whose records one sees: own, team, all, through every way that leads to a record.

use std::time::Duration;

use dealstream::auth::{Permission, Permissions, Reach, Resource, Rights, Role, Scope};
use dealstream::db::id::{read_id, write_id};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::support::recipes::{Records, SEARCHES};
use crate::support::{Client, TestApp};

/// Every record of every kind within a scope.
fn all(scope: Scope) -> Reach {
    Resource::ALL
        .iter()
        .fold(Reach::ALL, |reach, resource| reach.with(*resource, scope))
}

/// Everything, within a reach.
fn rights(reach: Reach) -> Rights {
    let permissions: Permissions = Permission::ALL.iter().copied().collect();
    Rights::custom(Role::Custom, Some(uuid::Uuid::now_v7()), permissions, reach)
}

/// Two people of one tenant with a record of each kind; the first sees their own only.
struct Two {
    app: TestApp,
    admin: Client,
    me: Client,
    other: Client,
    mine: Records,
    theirs: Records,
}

impl Two {
    async fn new(reach: Reach) -> Self {
        let app = TestApp::new().await;
        let admin = app.tenant().await;
        let me = app.user(&admin, Role::Admin).await;
        let other = app.user(&admin, Role::Admin).await;
        let theirs = Records::of(&other, "Foreign").await;
        let me = me.with_rights(rights(reach));
        let mine = Records::of(&me, "Mine").await;
        Self {
            app,
            admin,
            me,
            other,
            mine,
            theirs,
        }
    }
}

/// The id of the user.
fn user(client: &Client) -> String {
    write_id("user", client.viewer().user_id)
}

const KINDS: [&str; 5] = ["company", "contact", "deal", "stage_change", "interaction"];

/// What a client finds of everything, told by its names.
const EVERYTHING: &str = r#"{
    companies(search: "company") { totalCount nodes { name contacts { totalCount nodes { name } } deals { totalCount }
        interactions { totalCount } } }
    allCompanies: companies { totalCount }
    contacts(search: "contact") { totalCount nodes { name deals { totalCount nodes { name } } interactions { totalCount } } }
    allContacts: contacts { totalCount }
    deals { totalCount nodes { name stageHistory { totalCount } interactions { totalCount nodes { subject } } } }
    interactions { totalCount nodes { subject } }
    pipelines { nodes { stages { dealCount totalAmount { amount } weightedAmount { amount }
        deals { totalCount nodes { name } } } } }
    filtered: deals(filter: { contact: { name: { contains: "Foreign" } } }) { totalCount }
    crossed: contacts(filter: { company: { name: { contains: "Foreign" } } }) { totalCount }
    negated: deals(filter: { not: { company: { name: { contains: "Mine" } } } }) { totalCount }
}"#;

fn counts(data: &Value) -> Vec<i64> {
    let lists = [
        "companies",
        "allCompanies",
        "contacts",
        "allContacts",
        "deals",
        "interactions",
    ];
    lists
        .iter()
        .map(|list| data[list]["totalCount"].as_i64().unwrap())
        .collect()
}

/// What a board shows of deals: how many, and what they are worth.
fn board(data: &Value) -> (i64, f64) {
    let stages = data["pipelines"]["nodes"][0]["stages"].as_array().unwrap();
    let number = |value: &Value| value["amount"].as_str().unwrap().parse::<f64>().unwrap();
    let sums = stages.iter().map(|stage| {
        assert_eq!(stage["dealCount"], stage["deals"]["totalCount"], "{stage}");
        (
            stage["dealCount"].as_i64().unwrap(),
            number(&stage["totalAmount"]),
        )
    });
    sums.fold((0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1))
}

#[tokio::test]
async fn who_sees_their_own_records_finds_no_others_whichever_way_they_look() {
    let two = Two::new(all(Scope::Own)).await;
    for (client, amount) in [(&two.me, "10.00"), (&two.other, "500.00")] {
        client
            .deal(json!({ "name": "Big", "amount": { "amount": amount, "currencyCode": "USD" } }))
            .await;
    }
    // What belongs to nobody is no concern of theirs either.
    two.other.contact(json!({ "name": "Nobody's contact" })).await;
    let seen = two.me.query(EVERYTHING, json!({})).await;
    assert_eq!(counts(&seen), [1, 1, 1, 1, 2, 1]);
    assert_eq!(board(&seen), (2, 10.0));
    assert_eq!(seen["filtered"]["totalCount"], 0);
    assert_eq!(seen["crossed"]["totalCount"], 0);
    assert!(!seen.to_string().contains("Foreign"), "{seen:#}");
    let seen = two.admin.query(EVERYTHING, json!({})).await;
    assert_eq!(counts(&seen), [2, 2, 3, 3, 4, 2]);
    assert_eq!(board(&seen), (4, 510.0));
    assert_eq!(seen["filtered"]["totalCount"], 1);
    for kind in KINDS {
        let (mine, theirs) = (two.mine.id(kind), two.theirs.id(kind));
        let unknown = write_id(read_id(&theirs).unwrap().0, uuid::Uuid::now_v7());
        let document = "query($id: ID!, $ids: [ID!]!) { node(id: $id) { id } nodes(ids: $ids) { id } }";
        for hidden in [theirs, unknown] {
            let variables = json!({ "id": hidden, "ids": [hidden, mine] });
            let data = two.me.query(document, variables).await;
            assert_eq!(
                data,
                json!({ "node": null, "nodes": [null, { "id": mine }] }),
                "{kind}"
            );
        }
        let field = if kind == "stage_change" {
            "dealStageChange"
        } else {
            kind
        };
        let document = format!("query($id: ID!) {{ {field}(id: $id) {{ id }} }}");
        let theirs = json!({ "id": two.theirs.id(kind) });
        assert_eq!(
            two.me.query(&document, theirs.clone()).await[field],
            json!(null),
            "{kind}"
        );
        assert!(
            two.admin.query(&document, theirs).await[field].is_object(),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn what_one_does_not_see_cannot_be_changed_referred_to_or_felt() {
    let two = Two::new(all(Scope::Own)).await;
    let before = two.admin.position().await;
    for (kind, mutation, extra) in [
        ("company", "updateCompany", json!({ "name": "X" })),
        ("company", "deleteCompany", json!({})),
        ("contact", "updateContact", json!({ "name": "X" })),
        ("contact", "deleteContact", json!({})),
        (
            "deal",
            "updateDeal",
            json!({ "name": "X", "expectedVersion": 99 }),
        ),
        ("deal", "moveDeal", json!({ "stageId": two.mine.id("stage") })),
        ("deal", "deleteDeal", json!({})),
        ("interaction", "updateInteraction", json!({ "subject": "X" })),
        ("interaction", "completeInteraction", json!({})),
        ("interaction", "deleteInteraction", json!({})),
    ] {
        let mut input = extra;
        input[format!("{kind}Id")] = json!(two.theirs.id(kind));
        let ty = format!("{}{}Input", mutation[..1].to_uppercase(), &mutation[1..]);
        let refused = two.me.payload(mutation, &ty, "position", input).await;
        assert_eq!(
            refused["userErrors"][0]["code"], "NOT_FOUND",
            "{mutation}: {refused}"
        );
        assert_eq!(
            refused["userErrors"][0]["field"],
            json!(["input", format!("{kind}Id")]),
            "{mutation}"
        );
    }
    let mine = |kind: &str| two.mine.id(kind);
    for (mutation, input, kind) in [
        ("createContact", json!({ "name": "X" }), "company"),
        (
            "updateContact",
            json!({ "contactId": mine("contact") }),
            "company",
        ),
        ("createDeal", json!({ "name": "X" }), "company"),
        ("createDeal", json!({ "name": "X" }), "contact"),
        ("updateDeal", json!({ "dealId": mine("deal") }), "contact"),
        (
            "createInteraction",
            json!({ "kind": "CALL", "subject": "X" }),
            "deal",
        ),
        (
            "createInteraction",
            json!({ "kind": "CALL", "subject": "X" }),
            "contact",
        ),
        (
            "updateInteraction",
            json!({ "interactionId": mine("interaction") }),
            "company",
        ),
    ] {
        let (field, ty) = (
            format!("{kind}Id"),
            format!("{}{}Input", mutation[..1].to_uppercase(), &mutation[1..]),
        );
        let unknown = write_id(kind, uuid::Uuid::now_v7());
        let mut answers = Vec::new();
        for id in [two.theirs.id(kind), unknown] {
            let mut input = input.clone();
            input[&field] = json!(id);
            answers.push(two.me.payload(mutation, &ty, "position", input).await);
        }
        assert_eq!(
            answers[0], answers[1],
            "{mutation} {kind} tells an unseen record from none"
        );
        assert_eq!(
            answers[0]["userErrors"][0]["field"],
            json!(["input", field]),
            "{mutation}"
        );
        assert_eq!(answers[0]["userErrors"][0]["code"], "NOT_FOUND", "{mutation}");
    }
    assert_eq!(two.admin.position().await, before, "nothing was changed");
    // What somebody else has hung on it keeps it, seen or not.
    let contact = two.mine.id("contact");
    two.other
        .deal(json!({ "name": "Hidden", "contactId": contact }))
        .await;
    two.me
        .mutate(
            "deleteInteraction",
            "DeleteInteractionInput",
            "position",
            json!({ "interactionId": mine("interaction") }),
        )
        .await;
    two.me
        .mutate(
            "deleteDeal",
            "DeleteDealInput",
            "position",
            json!({ "dealId": mine("deal") }),
        )
        .await;
    let kept = two
        .me
        .payload(
            "deleteContact",
            "DeleteContactInput",
            "position",
            json!({ "contactId": contact }),
        )
        .await;
    assert_eq!(kept["userErrors"][0]["code"], "IN_USE", "{kept}");
}

#[tokio::test]
async fn what_one_makes_is_ones_own_and_is_not_given_away_beyond_ones_reach() {
    let two = Two::new(all(Scope::Own)).await;
    let (me, other) = (user(&two.me), user(&two.other));
    for (kind, ty) in [("company", "Company"), ("contact", "Contact"), ("deal", "Deal")] {
        let (create, update) = (format!("create{ty}"), format!("update{ty}"));
        let (creates, updates) = (format!("Create{ty}Input"), format!("Update{ty}Input"));
        let selection = format!("{kind} {{ id owner {{ id }} }}");
        let new = two
            .me
            .mutate(&create, &creates, &selection, json!({ "name": "New" }))
            .await;
        assert_eq!(new[kind]["owner"]["id"], me, "{kind}");
        let mut refused = vec![
            two.me
                .payload(
                    &create,
                    &creates,
                    &selection,
                    json!({ "name": "New", "ownerId": other }),
                )
                .await,
        ];
        for owner in [json!(other), json!(null)] {
            let mut input = json!({ "ownerId": owner });
            input[format!("{kind}Id")] = new[kind]["id"].clone();
            refused.push(two.me.payload(&update, &updates, &selection, input).await);
        }
        if kind == "deal" {
            let nobodys = json!({ "name": "New", "ownerId": null });
            refused.push(two.me.payload(&create, &creates, &selection, nobodys).await);
        }
        for refused in refused {
            let error = &refused["userErrors"][0];
            assert_eq!(
                (&error["field"], &error["code"]),
                (&json!(["input", "ownerId"]), &json!("NOT_ALLOWED")),
                "{refused}"
            );
        }
        // Who reaches everything gives as they like, and then it is gone from here.
        let mut input = json!({ "ownerId": other });
        input[format!("{kind}Id")] = new[kind]["id"].clone();
        two.admin.mutate(&update, &updates, "position", input).await;
        let document = "query($id: ID!) { node(id: $id) { id } }";
        let gone = two.me.query(document, json!({ "id": new[kind]["id"] })).await;
        assert_eq!(gone["node"], json!(null), "{kind}");
    }
}

#[tokio::test]
async fn each_kind_of_record_has_a_scope_of_its_own() {
    let two = Two::new(Reach::ALL.with(Resource::Deals, Scope::Own)).await;
    let seen = two.me.query(EVERYTHING, json!({})).await;
    assert_eq!(counts(&seen), [2, 2, 2, 2, 1, 2]);
    let deal = json!({ "id": two.theirs.id("interaction") });
    let document = "query($id: ID!) { interaction(id: $id) { subject deal { name } contact { name } } }";
    let seen = two.me.query(document, deal).await;
    assert_eq!(
        seen["interaction"],
        json!({ "subject": "Foreign call", "deal": null, "contact": { "name": "Foreign contact" } })
    );
    // Interactions of one's own: those that one recorded, and those about what is one's own.
    let me = two
        .me
        .with_rights(rights(Reach::ALL.with(Resource::Interactions, Scope::Own)));
    two.other
        .interaction(json!({ "kind": "NOTE", "subject": "About mine", "dealId": two.mine.id("deal") }))
        .await;
    let seen = me
        .query("{ interactions { nodes { subject } totalCount } }", json!({}))
        .await;
    assert_eq!(
        seen["interactions"],
        json!({ "nodes": [{ "subject": "About mine" }, { "subject": "Mine call" }], "totalCount": 2 })
    );
    // Where nobody is named, only a scope that is limited names somebody.
    let company = me
        .mutate(
            "createCompany",
            "CreateCompanyInput",
            "company { owner { id } }",
            json!({ "name": "X" }),
        )
        .await;
    assert_eq!(company["company"]["owner"], json!(null));
}

const FOLLOW: &str = "subscription ($after: String) { changes(after: $after) { __typename
    ... on RecordChangedEvent { recordId kind record { id } } ... on RecordDeletedEvent { recordId } } }";

/// What follows of the changes of records, as far as `UpToDate`: kind of frame, record, and whether it is shown.
async fn told(frames: &mut futures::stream::BoxStream<'static, Value>, enough: usize) -> Vec<(String, bool)> {
    let mut told = Vec::new();
    while told.len() < enough {
        let frame = tokio::time::timeout(Duration::from_secs(30), frames.next()).await;
        let frame = frame.expect("a frame comes").expect("the stream goes on");
        assert!(frame["errors"].is_null(), "{frame:#}");
        let frame = &frame["data"]["changes"];
        if frame["__typename"] != "UpToDate" {
            let id = frame["recordId"].as_str().unwrap().to_owned();
            told.push((id, !frame["record"].is_null()));
        }
    }
    told
}

#[tokio::test]
async fn of_what_is_out_of_reach_no_change_is_told_live_or_later() {
    let two = Two::new(all(Scope::Own)).await;
    let (me, other) = (user(&two.me), user(&two.other));
    let begin = two.admin.position().await;
    let mut live = two.me.subscribe(FOLLOW, json!({}));
    let first = tokio::time::timeout(Duration::from_secs(30), live.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first["data"]["changes"]["__typename"], "UpToDate");
    let mut expected = Vec::new();
    let theirs = |kind: &str| two.theirs.id(kind);
    let mine = |kind: &str| two.mine.id(kind);
    let update = async |client: &Client, ty: &str, input: Value| {
        client
            .mutate(
                &format!("update{ty}"),
                &format!("Update{ty}Input"),
                "position",
                input,
            )
            .await
    };
    // Not told: what somebody else does with what is theirs, of every kind.
    update(
        &two.other,
        "Company",
        json!({ "companyId": theirs("company"), "industry": "A" }),
    )
    .await;
    update(
        &two.other,
        "Contact",
        json!({ "contactId": theirs("contact"), "notes": "A" }),
    )
    .await;
    update(
        &two.other,
        "Deal",
        json!({ "dealId": theirs("deal"), "nextStep": "A" }),
    )
    .await;
    update(
        &two.other,
        "Interaction",
        json!({ "interactionId": theirs("interaction"), "outcome": "A" }),
    )
    .await;
    let stages = two.other.stages().await;
    two.other
        .move_deal(json!({ "dealId": theirs("deal"), "stageId": stages[2].0 }))
        .await;
    // Told: the same with one's own, whoever does it.
    update(
        &two.admin,
        "Company",
        json!({ "companyId": mine("company"), "industry": "A" }),
    )
    .await;
    expected.push((mine("company"), true));
    two.admin
        .move_deal(json!({ "dealId": mine("deal"), "stageId": stages[2].0 }))
        .await;
    expected.push((mine("deal"), true));
    update(
        &two.admin,
        "Interaction",
        json!({ "interactionId": mine("interaction"), "outcome": "A" }),
    )
    .await;
    expected.push((mine("interaction"), true));
    let about = two
        .other
        .interaction(json!({ "kind": "NOTE", "subject": "About mine", "contactId": mine("contact") }))
        .await;
    expected.push((about, true));
    // Told: what comes into reach, and what leaves it, which is shown no more.
    update(
        &two.admin,
        "Deal",
        json!({ "dealId": theirs("deal"), "ownerId": me }),
    )
    .await;
    expected.push((theirs("deal"), true));
    update(
        &two.admin,
        "Deal",
        json!({ "dealId": theirs("deal"), "ownerId": other }),
    )
    .await;
    expected.push((theirs("deal"), false));
    // And a deletion, but not that of what is somebody else's.
    let (own, foreign) = (two.me.company("Own").await, two.other.company("Other").await);
    expected.push((own.clone(), true));
    for company in [&foreign, &own] {
        two.admin
            .mutate(
                "deleteCompany",
                "DeleteCompanyInput",
                "position",
                json!({ "companyId": company }),
            )
            .await;
    }
    expected.push((own.clone(), false));
    let seen = told(&mut live, expected.len()).await;
    // What is shown with it is as it is by then, which may be a moment later.
    let ids = |told: &[(String, bool)]| told.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&seen), ids(&expected));
    for (was, (id, shown)) in seen.iter().zip(&expected) {
        assert!(*shown || !was.1, "{id} is out of sight");
    }
    // Who comes later is told of the same.
    let mut replayed = two.me.subscribe(FOLLOW, json!({ "after": begin }));
    let replayed = told(&mut replayed, expected.len()).await;
    assert_eq!(ids(&replayed), ids(&expected));
    // The subscriptions to one kind keep to it too.
    for (field, id) in [
        ("dealChanged", "dealId"),
        ("dealStageChanged", "dealId"),
        ("interactionLogged", "interactionId"),
    ] {
        let event = if field == "dealStageChanged" {
            "DealStageChangedEvent"
        } else if field == "dealChanged" {
            "DealChangedEvent"
        } else {
            "InteractionLoggedEvent"
        };
        let document = format!(
            "subscription {{ {field}(after: \"{begin}\") {{ __typename ... on {event} {{ {id} }} }} }}"
        );
        let mut frames = two.me.subscribe(&document, json!({}));
        let mut told = Vec::new();
        loop {
            let frame = tokio::time::timeout(Duration::from_secs(30), frames.next())
                .await
                .unwrap()
                .unwrap();
            let frame = &frame["data"][field];
            if frame["__typename"] == "UpToDate" {
                break;
            }
            told.push(frame[id].as_str().unwrap().to_owned());
        }
        match field {
            "dealStageChanged" => assert_eq!(told, [mine("deal")]),
            "dealChanged" => assert_eq!(told, [mine("deal"), theirs("deal"), theirs("deal")]),
            _ => assert_eq!(told.len(), 1, "{told:?}"),
        }
    }
}

#[tokio::test]
async fn who_is_limited_alike_shares_no_channel_with_another() {
    let two = Two::new(all(Scope::Own)).await;
    let reach = all(Scope::Own);
    let rights = two.me.viewer().rights.as_ref().clone();
    assert_eq!(rights.reach(), reach);
    let other = two.other.with_rights(rights);
    let mut streams = Vec::new();
    for client in [&two.me, &other] {
        let mut frames = client.subscribe(FOLLOW, json!({}));
        tokio::time::timeout(Duration::from_secs(30), frames.next())
            .await
            .unwrap()
            .unwrap();
        streams.push(frames);
    }
    let mut made = Vec::new();
    for client in [&two.me, &other] {
        made.push(client.company("New").await);
    }
    for (frames, own) in streams.iter_mut().zip(&made) {
        assert_eq!(told(frames, 1).await, [(own.clone(), true)]);
    }
}

#[tokio::test]
async fn without_being_told_whose_records_it_sees_the_confined_role_sees_none() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    Records::of(&admin, "Hidden").await;
    let tenant = admin.viewer().tenant_id;
    let client = app.superuser().await;
    let tables = [
        "companies",
        "contacts",
        "deals",
        "deal_stage_changes",
        "interactions",
    ];
    for (setting, sees) in [("", false), ("''", false), ("'{}'", false), ("'ALL'", true)] {
        client
            .batch_execute(&format!(
                "BEGIN; SET LOCAL app.tenant_id = '{tenant}'; SET LOCAL ROLE dealstream_scoped"
            ))
            .await
            .unwrap();
        for kind in Resource::ALL.iter().filter(|_| !setting.is_empty()) {
            client
                .batch_execute(&format!("SET LOCAL app.sees_{} = {setting}", kind.as_str()))
                .await
                .unwrap();
        }
        for from in tables.iter().chain(&SEARCHES) {
            let row = client
                .query_one(&format!("SELECT count(*) > 0 FROM {from}"), &[])
                .await
                .unwrap();
            assert_eq!(row.get::<_, bool>(0), sees, "{from} {setting}");
        }
        // Nor does it add or change anything.
        for change in [
            "UPDATE deals SET name = name",
            "DELETE FROM interactions WHERE false",
            "UPDATE companies SET owner_id = NULL",
        ] {
            let changed = client.execute(change, &[]).await.unwrap_or_default();
            assert!(sees || changed == 0, "{change} {setting}");
        }
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn who_sees_everything_pays_nothing_for_those_who_do_not() {
    let app = TestApp::new().await;
    let tenant = app.tenant().await.viewer().tenant_id;
    let client = app.superuser().await;
    let plan = async |role: &str, sql: &str| {
        client
            .batch_execute(&format!(
                "BEGIN; SET LOCAL app.tenant_id = '{tenant}'; SET LOCAL ROLE {role}"
            ))
            .await
            .unwrap();
        let rows = client
            .query(&format!("EXPLAIN (VERBOSE, COSTS OFF) {sql}"), &[])
            .await
            .unwrap();
        client.batch_execute("ROLLBACK").await.unwrap();
        rows.iter()
            .map(|row| row.get::<_, String>(0))
            .collect::<Vec<_>>()
            .join("\n")
    };
    for table in [
        "companies",
        "contacts",
        "deals",
        "deal_stage_changes",
        "interactions",
    ] {
        for sql in [
            format!("SELECT * FROM {table}"),
            format!("UPDATE {table} SET id = id"),
            format!("DELETE FROM {table}"),
        ] {
            let plain = plan("dealstream_app", &sql).await;
            assert!(!plain.contains("app.sees_") && !plain.contains("Plan"), "{plain}");
            assert!(
                plan("dealstream_scoped", &sql).await.contains("app.sees_"),
                "{sql}"
            );
        }
    }
}

/// Of a team one is told what happens while both are in it: the history of their records from before is not handed over.
#[tokio::test]
async fn who_comes_into_a_team_is_not_told_what_was_before() {
    let two = Two::new(all(Scope::Team)).await;
    let members = json!([{ "userId": user(&two.me) }, { "userId": user(&two.other) }]);
    let team = json!({ "name": "Team", "members": members });
    let team = two
        .admin
        .mutate("createTeam", "CreateTeamInput", "team { id }", team)
        .await;
    let begin = two.admin.position().await;
    let (company, interaction) = (two.theirs.id("company"), two.theirs.id("interaction"));
    let change = async |industry: &str| {
        let input = json!({ "companyId": company, "industry": industry });
        two.admin
            .mutate("updateCompany", "UpdateCompanyInput", "position", input)
            .await;
        let input = json!({ "interactionId": interaction, "outcome": industry });
        two.admin
            .mutate("updateInteraction", "UpdateInteractionInput", "position", input)
            .await;
    };
    change("while together").await;
    let mine = json!({ "companyId": two.mine.id("company"), "industry": "mine" });
    two.admin
        .mutate("updateCompany", "UpdateCompanyInput", "position", mine)
        .await;
    let heard = async || {
        let mut frames = two.me.subscribe(FOLLOW, json!({ "after": begin }));
        let mut heard = Vec::new();
        loop {
            let frame = tokio::time::timeout(Duration::from_secs(30), frames.next()).await;
            let frame = frame.expect("a frame comes").expect("the stream goes on")["data"]["changes"].take();
            if frame["__typename"] == "UpToDate" {
                return heard;
            }
            let id = frame["recordId"].as_str().unwrap().to_owned();
            // That the team has changed is told as well.
            if read_id(&id).is_some_and(|(kind, _)| kind != "team") {
                heard.push(id);
            }
        }
    };
    let all = [company.clone(), interaction.clone(), two.mine.id("company")];
    assert_eq!(heard().await, all);
    // As if one of the two had come later than that.
    let mighty = two.app.superuser().await;
    let later = async |of: &Client| {
        let sql = format!(
            "UPDATE team_members SET since = now() + interval '1 hour' WHERE user_id = '{}'",
            of.viewer().user_id
        );
        assert!(mighty.execute(&sql, &[]).await.unwrap() >= 1);
    };
    later(&two.other).await;
    assert_eq!(heard().await, [two.mine.id("company")]);
    // Who stays when the others change has been there since they came.
    let members = json!([{ "userId": user(&two.me), "isLead": true }, { "userId": user(&two.other) }]);
    let input = json!({ "teamId": team["team"]["id"], "members": members });
    two.admin
        .mutate("updateTeam", "UpdateTeamInput", "position", input)
        .await;
    assert_eq!(heard().await, [two.mine.id("company")]);
    // The record as it is now is theirs to read.
    let document = "query($id: ID!) { company(id: $id) { industry } }";
    let read = two.me.query(document, json!({ "id": company })).await;
    assert_eq!(read["company"]["industry"], "while together");
}
