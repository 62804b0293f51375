//! Walks the schema, and knows how to call each of its operations: so that tests meet every field there is, and fail
//! for one that they do not know.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{
    BaseType, FieldDefinition, InputValueDefinition, Type, TypeDefinition, TypeKind, TypeSystemDefinition,
};
use dealstream::auth::{Origin, Permission};
use dealstream::db::id::{read_id, write_id};
use dealstream::events::Work;
use dealstream::identity::sessions;
use serde_json::{Map, Value, json};

use super::{Client, TestApp};

/// What runs with the owner's rights, of which each must keep to the tenant and to the reach by itself.
pub const SEARCHES: [&str; 4] = [
    "find_companies('%')",
    "find_contacts('%')",
    "search_companies('%')",
    "search_contacts('%')",
];

/// The schema by the names of its types.
pub struct Sdl(HashMap<String, TypeDefinition>);

/// The words of a type's name behind lists and exclamation marks.
pub fn named(ty: &Type) -> &str {
    match &ty.base {
        BaseType::Named(name) => name,
        BaseType::List(inner) => named(inner),
    }
}

fn is_list(ty: &Type) -> bool {
    matches!(ty.base, BaseType::List(_))
}

impl Sdl {
    /// The schema as it is now.
    pub fn get() -> &'static Self {
        static SDL: LazyLock<Sdl> = LazyLock::new(Sdl::read);
        &SDL
    }

    fn read() -> Self {
        let document = parse_schema(dealstream::api::sdl()).unwrap();
        let types = document
            .definitions
            .into_iter()
            .filter_map(|definition| match definition {
                TypeSystemDefinition::Type(ty) => Some((ty.node.name.to_string(), ty.node)),
                _ => None,
            });
        Self(types.collect())
    }

    pub fn types(&self) -> impl Iterator<Item = &TypeDefinition> {
        self.0.values()
    }

    /// The type of this name.
    pub fn ty(&self, name: &str) -> Option<&TypeDefinition> {
        self.0.get(name)
    }

    /// The fields of an object or interface.
    pub fn fields(&self, name: &str) -> Vec<&FieldDefinition> {
        match self.ty(name).map(|ty| &ty.kind) {
            Some(TypeKind::Object(object)) => object.fields.iter().map(|field| &field.node).collect(),
            Some(TypeKind::Interface(interface)) => {
                interface.fields.iter().map(|field| &field.node).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The fields of an input type.
    pub fn inputs(&self, name: &str) -> Vec<&InputValueDefinition> {
        match self.ty(name).map(|ty| &ty.kind) {
            Some(TypeKind::InputObject(input)) => input.fields.iter().map(|field| &field.node).collect(),
            _ => Vec::new(),
        }
    }

    /// A selection of everything that can be selected without arguments, `depth` objects deep.
    pub fn selection(&self, name: &str, depth: usize) -> String {
        let mut parts = vec!["__typename".to_owned()];
        if let Some(TypeKind::Union(union)) = self.ty(name).map(|ty| &ty.kind) {
            for member in &union.members {
                parts.push(format!(
                    "... on {member} {{ {} }}",
                    self.selection(&member.node, depth)
                ));
            }
        }
        for field in self.fields(name) {
            let inner = named(&field.ty.node);
            let is_object = !self.fields(inner).is_empty();
            // Edges say what nodes say; pages within pages would cost more than one operation may.
            let is_page = inner.ends_with("Connection") || inner.ends_with("Edge") || inner == "PageInfo";
            // A new token is different each time.
            let is_token = [
                "accessToken",
                "expiresAt",
                "refreshToken",
                "refreshExpiresAt",
                "token",
                "secret",
                "otpauthUri",
                "recoveryCodes",
            ]
            .contains(&field.name.node.as_str());
            // What few may see has tests of its own.
            let is_sensitive = ["taxId", "bankAccount"].contains(&field.name.node.as_str());
            if is_token || is_sensitive || is_page || is_object && depth == 0 {
                continue;
            }
            parts.push(if is_object {
                format!("{} {{ {} }}", field.name, self.selection(inner, depth - 1))
            } else {
                field.name.to_string()
            });
        }
        parts.join(" ")
    }
}

/// The places in the schema that take an id.
pub fn places() -> Vec<Place> {
    let sdl = Sdl::get();
    let mut places = Vec::new();
    for ty in sdl.types() {
        for field in sdl.fields(&ty.name.node) {
            let root = ty.name.node.as_str();
            let is_root = ["Query", "Mutation", "Subscription"].contains(&root);
            for argument in &field.arguments {
                let path = vec![argument.node.name.to_string()];
                let mut found = Vec::new();
                walk(sdl, &argument.node.ty.node, path, &mut Vec::new(), &mut found);
                assert!(
                    is_root || found.is_empty(),
                    "{root}.{} takes an id, and there is no recipe for a probe of it",
                    field.name
                );
                places.extend(found.into_iter().flat_map(|(path, list, of)| {
                    let kinds = kinds(&field.name.node, &path, &of);
                    let place = |kind| Place {
                        root: root.to_owned(),
                        field: field.name.to_string(),
                        path: path.clone(),
                        list,
                        kind,
                    };
                    kinds.into_iter().map(place).collect::<Vec<_>>()
                }));
            }
        }
    }
    places.sort_by_key(Place::to_string);
    places
}

/// Finds ids below an argument, with the input type that each is in. A type is not entered within itself.
fn walk(
    sdl: &Sdl,
    ty: &Type,
    path: Vec<String>,
    within: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, bool, String)>,
) {
    let name = named(ty).to_owned();
    if name == "ID" {
        found.push((path, is_list(ty), within.last().cloned().unwrap_or_default()));
        return;
    }
    let Some(TypeKind::InputObject(input)) = sdl.ty(&name).map(|ty| &ty.kind) else {
        return;
    };
    if within.contains(&name) {
        return;
    }
    within.push(name);
    for field in &input.fields {
        let mut path = path.clone();
        if is_list(ty) {
            path.push("0".to_owned());
        }
        path.push(field.node.name.to_string());
        walk(sdl, &field.node.ty.node, path, within, found);
    }
    within.pop();
}

/// The kinds of record that are probed with, as the prefixes of their ids.
pub const KINDS: [&str; 14] = [
    "tenant",
    "user",
    "invitation",
    "role",
    "team",
    "session",
    "company",
    "contact",
    "pipeline",
    "stage",
    "deal",
    "stage_change",
    "interaction",
    "api_key",
];

/// The kinds of record whose ids a place takes.
///
/// # Panics
/// For a place that nobody has thought of.
fn kinds(root: &str, path: &[String], of: &str) -> Vec<&'static str> {
    let one = |name: &str| match name {
        "tenant" => Some("tenant"),
        "user" | "owner" | "createdBy" => Some("user"),
        "invitation" => Some("invitation"),
        "role" | "customRole" => Some("role"),
        "team" => Some("team"),
        "session" => Some("session"),
        "company" => Some("company"),
        "contact" => Some("contact"),
        "pipeline" => Some("pipeline"),
        "stage" | "pipelineStage" => Some("stage"),
        "deal" => Some("deal"),
        "stageChange" | "dealStageChange" => Some("stage_change"),
        "interaction" => Some("interaction"),
        "apiKey" => Some("api_key"),
        _ => None,
    };
    let last = path.last().map(String::as_str).unwrap_or_default();
    if matches!(root, "node" | "nodes") {
        // Sessions and API keys are no nodes: their own lists show them, to who may see those.
        let of_lists = ["session", "api_key"];
        return KINDS
            .into_iter()
            .filter(|kind| !of_lists.contains(kind))
            .collect();
    }
    if last == "recordId" {
        // Of any kind that the history tells of.
        return KINDS.into_iter().filter(|kind| *kind != "stage_change").collect();
    }
    let kind = if let Some(kind) = of.strip_suffix("IdFilter") {
        one(&(kind[..1].to_lowercase() + &kind[1..]))
    } else if last == "id" {
        one(root)
    } else {
        last.strip_suffix("Id").and_then(one)
    };
    vec![kind.unwrap_or_else(|| {
        panic!(
            "{root}({}) takes an id, and there is no recipe for a probe of it",
            path.join(".")
        )
    })]
}

/// A place in the schema that takes an id of some kind.
pub struct Place {
    /// `Query`, `Mutation` or `Subscription`.
    pub root: String,
    pub field: String,
    /// From the argument inwards.
    pub path: Vec<String>,
    list: bool,
    pub kind: &'static str,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}({}: {})",
            self.root,
            self.field,
            self.path.join("."),
            self.kind
        )
    }
}

impl Place {
    /// An operation that is right, but for the id that it has in this place.
    pub fn operation(&self, records: &Records, id: &str) -> (String, Value) {
        let id = if self.list { json!([id]) } else { json!(id) };
        let mut arguments = arguments(&self.field, records);
        put(&mut arguments, &self.path, id);
        operation(&self.root, &self.field, arguments)
    }
}

fn put(value: &mut Value, path: &[String], new: Value) {
    let Some((step, rest)) = path.split_first() else {
        *value = new;
        return;
    };
    if step == "0" {
        if !value.is_array() {
            *value = json!([{}]);
        }
        return put(&mut value[0], rest, new);
    }
    if !value.is_object() {
        *value = json!({});
    }
    put(&mut value[step.as_str()], rest, new);
}

/// A root field with arguments, and everything selected that it answers.
pub fn operation(root: &str, field: &str, arguments: Value) -> (String, Value) {
    let sdl = Sdl::get();
    let definition = sdl
        .fields(root)
        .into_iter()
        .find(|it| it.name.node == field)
        .unwrap();
    let Value::Object(arguments) = arguments else {
        panic!("{arguments} are no arguments")
    };
    let mut variables = Map::new();
    let (mut declared, mut given) = (Vec::new(), Vec::new());
    for argument in &definition.arguments {
        let name = argument.node.name.node.as_str();
        if let Some(value) = arguments.get(name) {
            declared.push(format!("${name}: {}", argument.node.ty));
            given.push(format!("{name}: ${name}"));
            variables.insert(name.to_owned(), value.clone());
        }
    }
    assert_eq!(
        variables.len(),
        arguments.len(),
        "{field} has other arguments than {arguments:?}"
    );
    let parenthesised = |parts: Vec<String>| match parts.is_empty() {
        true => String::new(),
        false => format!("({})", parts.join(", ")),
    };
    let answer = named(&definition.ty.node);
    let page = answer.ends_with("Connection").then(|| {
        let node = answer.trim_end_matches("Connection");
        format!("totalCount nodes {{ {} }}", sdl.selection(node, 1))
    });
    let document = format!(
        "{}{} {{ {field}{} {{ {} }} }}",
        root.to_lowercase(),
        parenthesised(declared),
        parenthesised(given),
        page.unwrap_or_else(|| sdl.selection(answer, 2)),
    );
    (document, Value::Object(variables))
}

/// The arguments that a root field needs at least, about records of one's own.
///
/// # Panics
/// For a field that nobody has thought of.
pub fn arguments(field: &str, records: &Records) -> Value {
    let id = |kind: &str| records.id(kind);
    let input = match field {
        "signOut"
        | "sessions"
        | "linkedIdentities"
        | "signInProviders"
        | "revokeOtherSessions"
        | "viewer"
        | "tenant"
        | "users"
        | "companies"
        | "contacts"
        | "pipelines"
        | "deals"
        | "apiKeys"
        | "roles"
        | "teams"
        | "auditEvents"
        | "invitations"
        | "interactions" => {
            return json!({});
        }
        "user" | "role" | "team" | "company" | "contact" | "pipeline" | "deal" | "interaction" => {
            return json!({ "id": id(field) });
        }
        "invitation" => return json!({ "token": "nobody was ever given this" }),
        "pipelineStage" => return json!({ "id": id("stage") }),
        "dealStageChange" => return json!({ "id": id("stage_change") }),
        "node" => return json!({ "id": id("deal") }),
        "nodes" => return json!({ "ids": [id("deal")] }),
        "companyChanged" | "contactChanged" | "dealChanged" | "dealStageChanged" | "interactionLogged"
        | "changes" => return json!({ "after": records.beginning }),
        "signUp" => {
            json!({ "tenantName": "New", "name": "N", "email": "not an address", "password": PASSWORD })
        }
        "signIn" => json!({ "email": records.email, "password": PASSWORD }),
        "refreshSession" => json!({ "refreshToken": format!("dsr_{}", "A".repeat(86)) }),
        "revokeSession" => json!({ "sessionId": id("session") }),
        "updateTenant" => json!({}),
        "changePassword" => json!({ "currentPassword": "not the one", "newPassword": PASSWORD }),
        "verifySecondFactor" => json!({ "token": "none", "code": "123456" }),
        "beginTotpEnrolment" => json!({}),
        "completeProviderSignIn" => json!({ "code": "none", "verifier": "none" }),
        "unlinkProvider" => json!({ "provider": "google" }),
        "confirmTotpEnrolment" | "disableTotp" | "regenerateRecoveryCodes" => json!({ "code": "123456" }),
        "resetSecondFactor" => json!({ "userId": id("user") }),
        "createUser" => {
            json!({ "name": "New", "email": "new@test.example", "password": PASSWORD, "role": "VIEWER" })
        }
        "inviteUser" => json!({ "email": "guest@test.example", "role": "VIEWER" }),
        "resendInvitation" | "revokeInvitation" => json!({ "invitationId": id("invitation") }),
        "requestPasswordReset" => json!({ "email": records.email }),
        "resetPassword" => json!({ "token": "nobody was ever given this", "newPassword": PASSWORD }),
        "verifyEmail" => json!({ "token": "nobody was ever given this" }),
        "completeSignUp" => json!({ "token": "nobody was ever given this", "password": PASSWORD }),
        "switchTenant" => json!({ "tenantId": id("tenant") }),
        "requestEmailVerification" | "leaveTenant" => return json!({}),
        "acceptInvitation" => json!({ "token": "nobody was ever given this", "password": PASSWORD }),
        "createRole" => json!({ "name": "New", "permissions": ["DEALS_READ"] }),
        "updateRole" | "deleteRole" => json!({ "roleId": id("role") }),
        "createTeam" => json!({ "name": "New" }),
        "updateTeam" | "deleteTeam" => json!({ "teamId": id("team") }),
        "updateUser" | "deleteUser" => json!({ "userId": id("user") }),
        "createApiKey" => json!({ "name": "New", "permissions": ["DEALS_READ"] }),
        "revokeApiKey" => json!({ "apiKeyId": id("api_key") }),
        "createCompany" | "createContact" | "createPipeline" | "createDeal" => {
            json!({ "name": format!("New {field}") })
        }
        "createPipelineStage" => json!({ "pipelineId": id("pipeline"), "name": "New" }),
        "createInteraction" => json!({ "kind": "CALL", "subject": "New", "contactId": id("contact") }),
        "companiesByTaxId" => return json!({ "taxId": "DE811907980" }),
        "updateSensitiveCompanyFields" => json!({ "companyId": id("company"), "taxId": "DE811907980" }),
        "updateCompany" | "deleteCompany" => json!({ "companyId": id("company") }),
        "updateContact" | "deleteContact" => json!({ "contactId": id("contact") }),
        "updatePipeline" | "deletePipeline" => json!({ "pipelineId": id("pipeline") }),
        "updatePipelineStage" | "deletePipelineStage" => json!({ "stageId": id("stage") }),
        "updateDeal" | "deleteDeal" => json!({ "dealId": id("deal") }),
        "moveDeal" => json!({ "dealId": id("deal"), "stageId": id("stage") }),
        "updateInteraction" | "completeInteraction" | "deleteInteraction" => {
            json!({ "interactionId": id("interaction") })
        }
        _ => panic!("there is no recipe for calling {field}"),
    };
    json!({ "input": input })
}

/// The password of who signs up in tests.
pub const PASSWORD: &str = "correct horse battery";

/// A tenant that was founded by signing up, so that one can sign in to it.
pub async fn signed_up(app: &TestApp, name: &str) -> Client {
    let email = format!("{name}-{}@test.example", uuid::Uuid::new_v4().simple());
    let input = json!({ "tenantName": name, "name": "Grace", "email": email, "password": PASSWORD });
    let payload = app
        .anon()
        .mutate("signUp", "SignUpInput", "accessToken", input)
        .await;
    app.with_token(payload["accessToken"].as_str().unwrap()).await
}

/// One record of each kind in a tenant, each referring to the others as far as it can.
pub struct Records {
    ids: HashMap<&'static str, String>,
    pub email: String,
    /// The position from before they were made.
    pub beginning: String,
}

impl Records {
    /// Makes them. Their names carry a mark, to be recognised in answers.
    pub async fn of(client: &Client, mark: &str) -> Self {
        let me = client
            .query("{ viewer { user { id email } tenant { id } } }", json!({}))
            .await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let user = text(&me["viewer"]["user"]["id"]);
        let beginning = client.position().await;
        let stage = client.stages().await.remove(1).0;
        let made = |payload: Value, field: &str| text(&payload[field]["id"]);
        let company = json!({ "name": format!("{mark} company"), "ownerId": user });
        let company = client
            .mutate("createCompany", "CreateCompanyInput", "company { id }", company)
            .await;
        let company = made(company, "company");
        let secret = json!({ "companyId": company, "taxId": "DE811907980" });
        client
            .mutate(
                "updateSensitiveCompanyFields",
                "UpdateSensitiveCompanyFieldsInput",
                "company { id }",
                secret,
            )
            .await;
        let contact = client
            .contact(json!({ "name": format!("{mark} contact"), "companyId": company, "ownerId": user }))
            .await;
        let deal = client
            .deal(json!({
                "name": format!("{mark} deal"), "contactId": contact, "companyId": company,
                "idempotencyKey": "the first deal",
            }))
            .await;
        client
            .move_deal(json!({ "dealId": deal, "stageId": stage }))
            .await;
        let interaction = client
            .interaction(json!({
                "kind": "CALL", "subject": format!("{mark} call"),
                "contactId": contact, "companyId": company, "dealId": deal,
            }))
            .await;
        // Not everybody may make one.
        let key = match client.viewer().rights.permits(Permission::ApiKeysWrite) {
            true => {
                let key = json!({ "name": format!("{mark} key"), "permissions": ["DEALS_READ"] });
                let key = client.mutate("createApiKey", "CreateApiKeyInput", "apiKey { id }", key);
                made(key.await, "apiKey")
            }
            false => write_id("api_key", uuid::Uuid::now_v7()),
        };
        let data = client
            .query(
                "query($id: ID!) { deal(id: $id) { pipeline { id } stageHistory { nodes { id } } } }",
                json!({ "id": deal }),
            )
            .await;
        client
            .in_another_session()
            .query("mutation { signOut { position } }", json!({}))
            .await;
        let invited = json!({ "email": format!("{}@test.example", uuid::Uuid::new_v4().simple()), "name": format!("{mark} guest"), "role": "VIEWER" });
        // Nobody gives a reach that they do not have.
        let invited = match client.viewer().rights.reach().is_limited() {
            false => {
                let invited = client.mutate("inviteUser", "InviteUserInput", "invitation { id }", invited);
                made(invited.await, "invitation")
            }
            true => write_id("invitation", uuid::Uuid::now_v7()),
        };
        let viewer = client.viewer();
        let (db, hub) = (&client.app.db, client.app.hub.clone());
        let mut work = Work::begin(db, hub, viewer.tenant_id, Some(viewer.user_id))
            .await
            .unwrap();
        let session = sessions::start(&mut work, viewer.user_id.into(), &Origin::default(), false, None)
            .await
            .unwrap();
        work.finish().await.unwrap();
        let role = json!({ "name": format!("{mark} role"), "permissions": ["DEALS_READ"] });
        let role = match client.viewer().rights.reach().is_limited() {
            false => {
                let role = client.mutate("createRole", "CreateRoleInput", "role { id }", role);
                made(role.await, "role")
            }
            true => write_id("role", uuid::Uuid::now_v7()),
        };
        // As if somebody had shown a first factor, and no second one yet.
        let tx = client.app.db.begin(client.viewer().tenant_id).await.unwrap();
        let pending = format!(
            "INSERT INTO pending_sign_ins (hash, user_id, password_state, enrols, expires_at)
             VALUES ('{}', '{}', '', false, now())",
            uuid::Uuid::new_v4(),
            client.viewer().user_id
        );
        diesel_async::SimpleAsyncConnection::batch_execute(&mut tx.conn(), &pending)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let mut ids = HashMap::from([
            ("session", write_id("session", session.session_id)),
            ("tenant", text(&me["viewer"]["tenant"]["id"])),
            ("user", user.clone()),
            ("role", role),
            ("invitation", invited),
            ("company", company),
            ("contact", contact),
            ("pipeline", text(&data["deal"]["pipeline"]["id"])),
            ("stage", stage),
            ("deal", deal),
            (
                "stage_change",
                text(&data["deal"]["stageHistory"]["nodes"][0]["id"]),
            ),
            ("interaction", interaction),
            ("api_key", key),
        ]);
        // Who sees a part only cannot say who sees whose.
        if !client.viewer().rights.reach().is_limited() {
            let team = json!({ "name": format!("{mark} team"), "members": [{ "userId": user }] });
            let team = client
                .mutate("createTeam", "CreateTeamInput", "team { id }", team)
                .await;
            ids.insert("team", made(team, "team"));
        }
        Self {
            ids,
            email: text(&me["viewer"]["user"]["email"]),
            beginning,
        }
    }

    /// Records that do not exist.
    pub fn unknown() -> Self {
        let id = |kind: &'static str| (kind, write_id(kind, uuid::Uuid::now_v7()));
        Self {
            ids: KINDS.into_iter().map(id).collect(),
            email: "nobody@test.example".to_owned(),
            beginning: "AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        }
    }

    /// The id of the record of this kind.
    pub fn id(&self, kind: &str) -> String {
        let id = self.ids[kind].clone();
        assert_eq!(read_id(&id).unwrap().0, kind);
        id
    }
}

/// What the trail of a tenant tells of refused sign-ins, once there are so many.
pub async fn refusals(app: &TestApp, of: &Client, count: usize) -> Vec<Value> {
    let sql = "SELECT detail FROM audit_entries WHERE tenant_id::text = $1 AND kind = 'SIGN_IN_REFUSED' ORDER BY sequence";
    let (superuser, tenant) = (app.superuser().await, of.viewer().tenant_id.to_string());
    let found = async {
        loop {
            let rows = superuser.query(sql, &[&tenant]).await.unwrap();
            if rows.len() >= count {
                let detail = |row: &tokio_postgres::Row| serde_json::from_str(row.get(0)).unwrap();
                return rows.iter().map(detail).collect();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(std::time::Duration::from_secs(30), found).await;
    found.expect("the trail tells of it")
}

/// Lets the audit trail of a tenant fail, until `DROP TRIGGER fail ON audit_entries`: in a database of the test's own.
pub async fn fail_trail(app: &TestApp, of: &Client) {
    let fail = format!(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$;
         CREATE TRIGGER fail BEFORE INSERT ON audit_entries FOR EACH ROW
           WHEN (NEW.tenant_id = '{}') EXECUTE FUNCTION fail()",
        of.viewer().tenant_id
    );
    app.superuser().await.batch_execute(&fail).await.unwrap();
}

/// Waits until somebody waits for a row that a transaction has changed or locked.
pub async fn is_waited_for(app: &TestApp, transaction: &tokio_postgres::Transaction<'_>) {
    let pid = transaction.query_one("SELECT pg_backend_pid()", &[]).await;
    let pid: i32 = pid.unwrap().get(0);
    let others = app.superuser().await;
    let waits = "SELECT FROM pg_locks l JOIN pg_locks h ON l.transactionid = h.transactionid
                  WHERE NOT l.granted AND h.granted AND h.pid = $1";
    let waiting = async {
        while others.execute(waits, &[&pid]).await.unwrap() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await;
    waited.expect("somebody waits");
}
