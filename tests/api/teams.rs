//! Teams: who is in them, and whose records their members see.

use std::time::Duration;

use dealstream::auth::{Permission, Permissions, Reach, Resource, Rights, Role, Scope};
use dealstream::db::id::write_id;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::support::{Client, TestApp};

fn of_team(client: &Client) -> Client {
    let reach = Resource::ALL
        .iter()
        .fold(Reach::ALL, |reach, resource| reach.with(*resource, Scope::Team));
    let permissions: Permissions = Permission::ALL.iter().copied().collect();
    client.with_rights(Rights::custom(
        Role::Custom,
        Some(uuid::Uuid::now_v7()),
        permissions,
        reach,
    ))
}

fn user(client: &Client) -> String {
    write_id("user", client.viewer().user_id)
}

async fn team(admin: &Client, name: &str, lead: &Client, members: &[&Client]) -> String {
    let mut all = vec![json!({ "userId": user(lead), "isLead": true })];
    all.extend(members.iter().map(|member| json!({ "userId": user(member) })));
    let input = json!({ "name": name, "members": all });
    let made = admin
        .mutate("createTeam", "CreateTeamInput", "team { id }", input)
        .await;
    made["team"]["id"].as_str().unwrap().to_owned()
}

async fn names(client: &Client) -> Vec<String> {
    let data = client
        .query("{ companies(first: 100) { nodes { name } } }", json!({}))
        .await;
    let nodes = data["companies"]["nodes"].as_array().unwrap();
    let mut names: Vec<_> = nodes
        .iter()
        .map(|node| node["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn one_sees_the_records_of_everybody_in_ones_teams_and_of_nobody_else() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let mut people = Vec::new();
    for name in ["Lead", "One", "Two", "Stranger"] {
        let client = app.user(&admin, Role::Sales).await;
        let input = json!({ "name": name, "ownerId": user(&client) });
        admin
            .mutate("createCompany", "CreateCompanyInput", "position", input)
            .await;
        people.push(client);
    }
    admin.company("Nobody's").await;
    let [lead, one, two, stranger] = &people[..] else {
        unreachable!()
    };
    let north = team(&admin, "North", lead, &[one]).await;
    team(&admin, "South", lead, &[two]).await;
    assert_eq!(names(&of_team(lead)).await, ["Lead", "One", "Two"]);
    assert_eq!(names(&of_team(one)).await, ["Lead", "One"]);
    assert_eq!(names(&of_team(two)).await, ["Lead", "Two"]);
    assert_eq!(names(&of_team(stranger)).await, ["Stranger"]);
    assert_eq!(names(&admin).await.len(), 5);
    // A manager gives work to the team, and to nobody else.
    let selection = "company { owner { id } }";
    let company = of_team(lead)
        .mutate(
            "createCompany",
            "CreateCompanyInput",
            "company { id owner { id } }",
            json!({ "name": "New" }),
        )
        .await;
    assert_eq!(company["company"]["owner"]["id"], user(lead));
    for (owner, given) in [(one, true), (stranger, false)] {
        let input = json!({ "companyId": company["company"]["id"], "ownerId": user(owner) });
        let answer = of_team(lead)
            .payload("updateCompany", "UpdateCompanyInput", selection, input)
            .await;
        assert_eq!(answer["userErrors"] == json!([]), given, "{answer}");
    }
    // Whoever leaves sees no more of it from then on.
    let input = json!({ "teamId": north, "members": [{ "userId": user(lead), "isLead": true }] });
    admin
        .mutate("updateTeam", "UpdateTeamInput", "position", input)
        .await;
    assert_eq!(names(&of_team(lead)).await, ["Lead", "Two"]);
    assert_eq!(names(&of_team(one)).await, ["New", "One"]);
}

#[tokio::test]
async fn who_comes_into_a_team_is_told_of_it_from_the_next_event() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let (lead, one) = (
        app.user(&admin, Role::Sales).await,
        app.user(&admin, Role::Sales).await,
    );
    let input = json!({ "name": "A", "ownerId": user(&one) });
    let company = admin
        .mutate("createCompany", "CreateCompanyInput", "company { id }", input)
        .await["company"]["id"]
        .clone();
    let id = team(&admin, "North", &lead, &[]).await;
    let document =
        "subscription { companyChanged { __typename ... on CompanyChangedEvent { company { industry } } } }";
    let mut frames = of_team(&lead).subscribe(document, json!({}));
    let mut next = async || -> Value {
        let frame = tokio::time::timeout(Duration::from_secs(30), frames.next()).await;
        frame.unwrap().unwrap()["data"]["companyChanged"].take()
    };
    assert_eq!(next().await["__typename"], "UpToDate");
    let change = async |industry: &str| {
        let input = json!({ "companyId": company, "industry": industry });
        admin
            .mutate("updateCompany", "UpdateCompanyInput", "position", input)
            .await;
    };
    change("not told").await;
    let members = json!([{ "userId": user(&lead), "isLead": true }, { "userId": user(&one) }]);
    // By then what happened before has been told, or left out.
    let own = json!({ "name": "Marker", "ownerId": user(&lead) });
    admin
        .mutate("createCompany", "CreateCompanyInput", "position", own)
        .await;
    assert_eq!(next().await["__typename"], "CompanyChangedEvent");
    let input = json!({ "teamId": id, "members": members });
    admin
        .mutate("updateTeam", "UpdateTeamInput", "position", input)
        .await;
    change("told").await;
    assert_eq!(next().await["company"]["industry"], "told");
}

#[tokio::test]
async fn teams_are_made_changed_listed_and_deleted() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let (lead, one) = (
        app.user(&admin, Role::Sales).await,
        app.user(&admin, Role::Sales).await,
    );
    let id = team(&admin, "North", &lead, &[&one]).await;
    let seen = one
        .query(
            "query($id: ID!) { teams { totalCount nodes { id name } } viewer { user { teams { name } } }
               team(id: $id) { version members { isLead user { id } } } }",
            json!({ "id": id }),
        )
        .await;
    assert_eq!(
        seen["teams"],
        json!({ "totalCount": 1, "nodes": [{ "id": id, "name": "North" }] })
    );
    assert_eq!(seen["viewer"]["user"]["teams"], json!([{ "name": "North" }]));
    let members = json!([
        { "isLead": true, "user": { "id": user(&lead) } },
        { "isLead": false, "user": { "id": user(&one) } },
    ]);
    assert_eq!(seen["team"], json!({ "version": 1, "members": members }));
    let refused = async |input: Value, code: &str| {
        let answer = admin
            .payload("createTeam", "CreateTeamInput", "position", input)
            .await;
        assert_eq!(answer["userErrors"][0]["code"], code, "{answer}");
    };
    refused(json!({ "name": "North" }), "DUPLICATE").await;
    let twice = json!([{ "userId": user(&one) }, { "userId": user(&one), "isLead": true }]);
    refused(json!({ "name": "X", "members": twice }), "DUPLICATE").await;
    let limited = of_team(&lead)
        .payload(
            "createTeam",
            "CreateTeamInput",
            "position",
            json!({ "name": "Mine" }),
        )
        .await;
    assert_eq!(limited["userErrors"][0]["code"], "NOT_ALLOWED");
    let input = json!({ "teamId": id, "name": "Nord", "expectedVersion": 1 });
    let changed = admin
        .mutate(
            "updateTeam",
            "UpdateTeamInput",
            "team { name version members { isLead } }",
            input,
        )
        .await;
    assert_eq!(
        changed["team"],
        json!({ "name": "Nord", "version": 2, "members": [{ "isLead": true }, { "isLead": false }] })
    );
    admin
        .mutate(
            "deleteTeam",
            "DeleteTeamInput",
            "deletedTeamId",
            json!({ "teamId": id }),
        )
        .await;
    let seen = one
        .query(
            "{ teams { totalCount } viewer { user { teams { name } } } }",
            json!({}),
        )
        .await;
    assert_eq!(
        seen,
        json!({ "teams": { "totalCount": 0 }, "viewer": { "user": { "teams": [] } } })
    );
}
