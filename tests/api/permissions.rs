//! Roles of a tenant's own, what can be given to whom, and that each permission opens what it says and nothing else.

use async_graphql::parser::types::TypeKind;
use dealstream::auth::{Permission, Permissions, Reach, Resource, Rights, Role, Scope};
use dealstream::db::id::{read_id, write_id};
use serde_json::{Value, json};

use crate::support::recipes::{Records, Sdl, arguments, named};
use crate::support::{Client, TestApp};

fn custom(permissions: &[Permission], reach: Reach) -> Rights {
    let permissions: Permissions = permissions.iter().copied().collect();
    Rights::custom(Role::Custom, Some(uuid::Uuid::now_v7()), permissions, reach)
}

fn user(client: &Client) -> String {
    write_id("user", client.viewer().user_id)
}

async fn role(admin: &Client, input: Value) -> String {
    let made = admin
        .mutate("createRole", "CreateRoleInput", "role { id }", input)
        .await;
    made["role"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_role_of_the_tenants_own_is_given_changed_and_taken() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let seller = app.user(&admin, Role::Sales).await;
    let input = json!({ "name": "Intern", "description": "Looks on", "permissions": ["DEALS_READ", "COMPANIES_READ", "DEALS_READ"],
        "scopes": { "deals": "OWN" } });
    let id = role(&admin, input).await;
    let shown = admin
        .query(
            "query($id: ID!) { role(id: $id) { name description permissions version
               scopes { companies contacts deals interactions } } roles { totalCount } }",
            json!({ "id": id }),
        )
        .await;
    assert_eq!(
        shown,
        json!({ "roles": { "totalCount": 1 }, "role": {
            "name": "Intern", "description": "Looks on", "permissions": ["COMPANIES_READ", "DEALS_READ"], "version": 1,
            "scopes": { "companies": "ALL", "contacts": "ALL", "deals": "OWN", "interactions": "ALL" } } })
    );
    let selection = "user { role customRole { name } }";
    let give = async |input: Value| {
        admin
            .payload("updateUser", "UpdateUserInput", selection, input)
            .await
    };
    let given = give(json!({ "userId": user(&seller), "customRoleId": id })).await;
    assert_eq!(
        given["user"],
        json!({ "role": "CUSTOM", "customRole": { "name": "Intern" } })
    );
    assert!(
        app.app.revocations.revokes(seller.viewer()),
        "the older token is stale"
    );
    for refused in [
        json!({ "userId": user(&seller), "role": "CUSTOM" }),
        json!({ "userId": user(&seller), "role": "SALES", "customRoleId": id }),
        json!({ "userId": user(&seller), "customRoleId": write_id("role", uuid::Uuid::now_v7()) }),
    ] {
        assert_eq!(
            give(refused).await["userErrors"][0]["field"],
            json!(["input", "customRoleId"])
        );
    }
    let delete = async || {
        admin
            .payload(
                "deleteRole",
                "DeleteRoleInput",
                "deletedRoleId",
                json!({ "roleId": id }),
            )
            .await
    };
    assert_eq!(delete().await["userErrors"][0]["code"], "IN_USE");
    // Back to a built-in role: the other is gone with it.
    let given = give(json!({ "userId": user(&seller), "role": "SALES" })).await;
    assert_eq!(given["user"], json!({ "role": "SALES", "customRole": null }));
    assert_eq!(delete().await["deletedRoleId"], id);
}

#[tokio::test]
async fn a_changed_role_makes_the_tokens_of_all_who_have_it_stale() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let id = role(&admin, json!({ "name": "R", "permissions": ["DEALS_READ"] })).await;
    let holder = app.user(&admin, Role::Sales).await;
    let other = app.user(&admin, Role::Sales).await;
    let input = json!({ "userId": user(&holder), "customRoleId": id });
    admin
        .mutate("updateUser", "UpdateUserInput", "position", input)
        .await;
    let update = async |input: Value| {
        admin
            .mutate("updateRole", "UpdateRoleInput", "role { version }", input)
            .await;
    };
    // As if they had signed in since.
    let fresh = holder.in_another_session();
    assert!(!app.app.revocations.revokes(fresh.viewer()));
    update(json!({ "roleId": id, "name": "Another name", "permissions": ["DEALS_READ"] })).await;
    assert!(
        !app.app.revocations.revokes(fresh.viewer()),
        "a name changes no rights"
    );
    update(json!({ "roleId": id, "scopes": { "deals": "TEAM" } })).await;
    assert!(app.app.revocations.revokes(fresh.viewer()));
    assert!(!app.app.revocations.revokes(other.viewer()));
}

#[tokio::test]
async fn nobody_gives_more_than_they_have_nor_meddles_with_who_has_more() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let helper = app.user(&admin, Role::Viewer).await;
    let target = app.user(&admin, Role::Viewer).await;
    let reach = Reach::ALL.with(Resource::Deals, Scope::Team);
    let have = [
        Permission::UsersRead,
        Permission::UsersWrite,
        Permission::RolesWrite,
        Permission::DealsRead,
    ];
    let helper = helper.with_rights(custom(&have, reach));
    let refused = async |field: &str, ty: &str, input: Value, at: &str| {
        let answer = helper.payload(field, ty, "position", input).await;
        let error = &answer["userErrors"][0];
        assert_eq!(error["code"], "NOT_ALLOWED", "{field}: {answer}");
        assert_eq!(error["field"], json!(["input", at]), "{field}: {answer}");
    };
    let role_input = |permissions: Value, deals: &str| json!({ "name": uuid::Uuid::new_v4().to_string(), "permissions": permissions, "scopes": { "deals": deals } });
    refused(
        "createRole",
        "CreateRoleInput",
        role_input(json!(["DEALS_WRITE"]), "OWN"),
        "permissions",
    )
    .await;
    refused(
        "createRole",
        "CreateRoleInput",
        role_input(json!(["DEALS_READ"]), "ALL"),
        "scopes",
    )
    .await;
    let within = role(&helper, role_input(json!(["DEALS_READ"]), "TEAM")).await;
    let beyond = role(&admin, role_input(json!(["DEALS_WRITE"]), "OWN")).await;
    let more = json!({ "roleId": within, "permissions": ["DEALS_READ", "TENANT_WRITE"] });
    refused("updateRole", "UpdateRoleInput", more, "permissions").await;
    refused(
        "updateRole",
        "UpdateRoleInput",
        json!({ "roleId": beyond, "name": "X" }),
        "roleId",
    )
    .await;
    refused(
        "deleteRole",
        "DeleteRoleInput",
        json!({ "roleId": beyond }),
        "roleId",
    )
    .await;
    let small = role(&admin, role_input(json!(["DEALS_READ"]), "OWN")).await;
    let input = json!({ "userId": user(&target), "customRoleId": small });
    admin
        .mutate("updateUser", "UpdateUserInput", "position", input)
        .await;
    let to = |change: Value| {
        let mut input = change;
        input["userId"] = json!(user(&target));
        input
    };
    refused(
        "updateUser",
        "UpdateUserInput",
        to(json!({ "role": "ADMIN" })),
        "role",
    )
    .await;
    refused(
        "updateUser",
        "UpdateUserInput",
        to(json!({ "role": "VIEWER" })),
        "role",
    )
    .await;
    refused(
        "updateUser",
        "UpdateUserInput",
        to(json!({ "customRoleId": beyond })),
        "customRoleId",
    )
    .await;
    helper
        .mutate(
            "updateUser",
            "UpdateUserInput",
            "position",
            to(json!({ "customRoleId": within })),
        )
        .await;
    let another = app.user(&admin, Role::Admin).await;
    let the_admin = json!({ "userId": user(&another), "isActive": false });
    refused("updateUser", "UpdateUserInput", the_admin, "userId").await;
    refused(
        "deleteUser",
        "DeleteUserInput",
        json!({ "userId": user(&another) }),
        "userId",
    )
    .await;
    // All permissions are not enough to make an admin.
    let all = helper.with_rights(custom(Permission::ALL, Reach::ALL));
    let answer = all
        .payload(
            "updateUser",
            "UpdateUserInput",
            "position",
            to(json!({ "role": "ADMIN" })),
        )
        .await;
    assert_eq!(answer["userErrors"][0]["code"], "NOT_ALLOWED", "{answer}");
}

/// References ask for the permission of what they lead to, as root fields do.
#[tokio::test]
async fn no_relation_leads_around_a_permission() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let records = Records::of(&admin, "Known").await;
    let client = app.user(&admin, Role::Viewer).await;
    let client = client.with_rights(custom(&[Permission::DealsRead], Reach::ALL));
    for (selection, needed) in [
        ("contact { id }", "CONTACTS_READ"),
        ("company { id }", "COMPANIES_READ"),
        ("owner { id }", "USERS_READ"),
        ("stage { id }", "PIPELINES_READ"),
        ("pipeline { id }", "PIPELINES_READ"),
        ("interactions { totalCount }", "INTERACTIONS_READ"),
        ("stageHistory { nodes { toStage { id } } }", "PIPELINES_READ"),
        ("stageHistory { nodes { changedBy { id } } }", "USERS_READ"),
    ] {
        let document = format!("query($id: ID!) {{ deal(id: $id) {{ {selection} }} }}");
        let answer = client
            .answer(&document, json!({ "id": records.id("deal") }))
            .await;
        let error = &answer["errors"][0]["extensions"];
        assert_eq!(error["code"], "FORBIDDEN", "{selection}: {answer}");
        assert_eq!(error["permission"], needed, "{selection}");
        assert!(!answer.to_string().contains("Known"), "{answer}");
    }
    for kind in [
        "company",
        "contact",
        "interaction",
        "user",
        "stage",
        "pipeline",
        "role",
        "team",
        "tenant",
    ] {
        let id = records.id(kind);
        assert!(read_id(&id).is_some());
        let code = client
            .code("query($id: ID!) { node(id: $id) { id } }", json!({ "id": id }))
            .await;
        assert_eq!(code, "FORBIDDEN", "{kind}");
    }
    // And stages do not tell of deals what deals themselves would not.
    let stages = app.user(&admin, Role::Viewer).await;
    let stages = stages.with_rights(custom(&[Permission::PipelinesRead], Reach::ALL));
    for field in [
        "dealCount",
        "totalAmount { amount }",
        "currencies",
        "deals { totalCount }",
    ] {
        let document = format!("{{ pipelines {{ nodes {{ stages {{ {field} }} }} }} }}");
        let answer = stages.answer(&document, json!({})).await;
        assert_eq!(
            answer["errors"][0]["extensions"]["permission"], "DEALS_READ",
            "{field}: {answer}"
        );
    }
    // Oneself and one's tenant one knows.
    let me = client
        .query(
            "{ viewer { user { id } tenant { id } role scopes { deals } } }",
            json!({}),
        )
        .await;
    assert_eq!(me["viewer"]["role"], "CUSTOM");
    assert!(me["viewer"]["user"]["id"].is_string() && me["viewer"]["tenant"]["id"].is_string());
}

/// Everything but this.
fn all_but(client: &Client, permission: Permission) -> Client {
    let rest = Permission::ALL.iter().copied().filter(|it| *it != permission);
    client.with_rights(custom(&rest.collect::<Vec<_>>(), Reach::ALL))
}

/// What one needs to read records of a type.
fn needed_to_read(ty: &str) -> Option<Permission> {
    Some(match ty {
        "Company" => Permission::CompaniesRead,
        "Contact" => Permission::ContactsRead,
        "Deal" | "DealStageChange" => Permission::DealsRead,
        "Interaction" => Permission::InteractionsRead,
        "Pipeline" | "PipelineStage" => Permission::PipelinesRead,
        "CustomRole" | "Team" => Permission::UsersRead,
        _ => return None,
    })
}

/// The fields of a filter that are about other records, with the type that these are of.
fn crossings(filter: &str) -> Vec<(String, String)> {
    let sdl = Sdl::get();
    let fields = |name: &str| match sdl.ty(name).map(|ty| &ty.kind) {
        Some(TypeKind::InputObject(input)) => input
            .fields
            .iter()
            .map(|field| {
                let ty = named(&field.node.ty.node).to_owned();
                (field.node.name.node.to_string(), ty)
            })
            .collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let is_of_records = |(_, ty): &(String, String)| {
        ty != filter && ty.ends_with("Filter") && fields(ty).iter().any(|(name, _)| name == "and")
    };
    fields(filter).into_iter().filter(is_of_records).collect()
}

/// All ways from a filter to those of other records: the names of the fields, and the type at the end.
fn ways(filter: &str, depth: usize) -> Vec<(Vec<String>, String)> {
    let mut all = Vec::new();
    for (name, to) in crossings(filter) {
        let further = if depth > 0 {
            ways(&to, depth - 1)
        } else {
            Vec::new()
        };
        for (mut way, end) in further {
            way.insert(0, name.clone());
            all.push((way, end));
        }
        all.push((vec![name], to));
    }
    all
}

#[tokio::test]
async fn no_filter_leads_around_a_permission() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let mut asked = 0;
    for field in Sdl::get().fields("Query") {
        let filter = field
            .arguments
            .iter()
            .find(|argument| argument.node.name.node == "filter");
        let Some(filter) = filter.map(|argument| named(&argument.node.ty.node)) else {
            continue;
        };
        for (way, end) in ways(filter, 2) {
            let ty = end.trim_end_matches("Filter");
            let needed = needed_to_read(ty).unwrap_or_else(|| panic!("who may read {ty}?"));
            let wrapped = way
                .iter()
                .rev()
                .fold(json!({}), |inner, name| json!({ name: inner }));
            let document = format!(
                "query($filter: {filter}) {{ {}(filter: $filter) {{ totalCount }} }}",
                field.name
            );
            for given in [
                wrapped.clone(),
                json!({ "not": wrapped }),
                json!({ "and": [{ "or": [{}, wrapped] }] }),
            ] {
                let variables = json!({ "filter": given });
                admin.query(&document, variables.clone()).await;
                let answer = all_but(&admin, needed).answer(&document, variables).await;
                let error = &answer["errors"][0]["extensions"];
                assert_eq!(error["code"], "FORBIDDEN", "{} {given}: {answer}", field.name);
                assert_eq!(error["permission"], needed.name(), "{} {given}", field.name);
                asked += 1;
            }
        }
    }
    assert!(asked >= 12, "the filters were found: {asked}");
}

#[tokio::test]
async fn what_one_may_change_one_does_not_thereby_read() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let records = Records::of(&admin, "Known").await;
    // Not completed yet.
    let planned = async || {
        let contact = records.id("contact");
        let at = "2090-01-01T00:00:00Z";
        let later = json!({ "kind": "CALL", "subject": "Later", "contactId": contact, "scheduledAt": at });
        admin.interaction(later).await
    };
    let mut asked = 0;
    for field in Sdl::get().fields("Mutation") {
        for shown in Sdl::get().fields(named(&field.ty.node)) {
            let Some(needed) = needed_to_read(named(&shown.ty.node)) else {
                continue;
            };
            let name = field.name.node.as_str();
            let mut given = arguments(name, &records);
            if name == "moveDeal" {
                // Whoever moves it next moves it to another stage.
                let (last, _) = admin.stages().await.remove(asked % 3);
                given["input"]["stageId"] = json!(last);
            }
            if name == "completeInteraction" {
                given["input"]["interactionId"] = json!(planned().await);
            }
            let input = given["input"].take();
            let mut input_type = name.to_owned();
            input_type[..1].make_ascii_uppercase();
            let document = format!(
                "mutation($input: {input_type}Input!) {{ {name}(input: $input) {{ position {} {{ id }} userErrors {{ message }} }} }}",
                shown.name
            );
            let blind = all_but(&admin, needed);
            let answer = blind.answer(&document, json!({ "input": input })).await;
            let data = &answer["data"][name];
            assert_eq!(data["userErrors"], json!([]), "{name}: {answer}");
            assert!(data["position"].is_string(), "{name}: {answer}");
            assert_eq!(data[shown.name.node.as_str()], Value::Null, "{name}");
            let error = &answer["errors"][0]["extensions"];
            assert_eq!(error["permission"], needed.name(), "{name}: {answer}");
            asked += 1;
        }
    }
    assert!(asked >= 18, "the mutations were found: {asked}");
    for (name, ty, field) in [
        ("updateCompany", "Company", "name"),
        ("updateContact", "Contact", "name"),
        ("updateDeal", "Deal", "name"),
        ("updateInteraction", "Interaction", "subject"),
        ("completeInteraction", "Interaction", "outcome"),
        ("updatePipeline", "Pipeline", "name"),
        ("updatePipelineStage", "PipelineStage", "name"),
        ("updateRole", "CustomRole", "name"),
        ("updateTeam", "Team", "name"),
    ] {
        let mut input = arguments(name, &records)["input"].take();
        if name == "completeInteraction" {
            input["interactionId"] = json!(planned().await);
        }
        input[field] = json!("Guessed");
        input["expectedVersion"] = json!(0);
        let mut input_type = name.to_owned();
        input_type[..1].make_ascii_uppercase();
        let input_type = format!("{input_type}Input");
        let needed = needed_to_read(ty).unwrap();
        let conflict = async |client: &Client| {
            let payload = client.payload(name, &input_type, "position", input.clone()).await;
            let error = payload["userErrors"][0].clone();
            assert_eq!(error["code"], "CONFLICT", "{name}: {payload}");
            error["conflicts"].as_array().unwrap().clone()
        };
        let told = conflict(&admin).await;
        assert!(told.iter().any(|it| it["field"] == field), "{name}: {told:?}");
        assert!(conflict(&all_but(&admin, needed)).await.is_empty(), "{name}");
    }
}
