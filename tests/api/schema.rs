//! The schema keeps its promises: it is committed, described, and guarded.

use std::collections::BTreeMap;
use std::path::Path;

use async_graphql::parser::types::{InputValueDefinition, TypeKind};
use dealstream::auth::{Means, Permission, Permissions, Reach, Rights, Role, Viewer};
use dealstream::error::Error;
use serde_json::{Value, json};

use crate::support::TestApp;
use crate::support::recipes::{Records, Sdl, arguments, operation};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_committed_schema_is_current() {
    let committed = std::fs::read_to_string(root().join("schema.graphql")).unwrap_or_default();
    let current = dealstream::api::sdl();
    if committed.trim_end() != current.trim_end() {
        let written = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schema.graphql");
        std::fs::write(&written, &current).unwrap();
        panic!(
            "schema.graphql is not current: run `make schema`, or take {}",
            written.display()
        );
    }
}

const BUILT_IN: [&str; 5] = ["Boolean", "Float", "ID", "Int", "String"];

/// What has no description, or one that is not of the right form.
#[derive(Default)]
struct Undescribed(Vec<String>);

impl Undescribed {
    fn sentence(&mut self, what: String, text: Option<&str>) {
        let text = text.unwrap_or_default().trim();
        let begins = text.chars().next().is_some_and(char::is_uppercase);
        if !begins || !text.ends_with('.') {
            self.0.push(format!("{what} wants full sentences: {text:?}"));
        }
    }

    fn arguments(&mut self, of: &str, arguments: &[async_graphql::Positioned<InputValueDefinition>]) {
        for argument in arguments {
            let text = argument.node.description.as_ref().map(|text| text.node.as_str());
            self.sentence(format!("{of}({})", argument.node.name), text);
        }
    }
}

#[test]
fn everything_in_the_schema_is_described() {
    let sdl = Sdl::get();
    let mut undescribed = Undescribed::default();
    for ty in sdl
        .types()
        .filter(|ty| !BUILT_IN.contains(&ty.name.node.as_str()))
    {
        let name = ty.name.node.as_str();
        undescribed.sentence(
            name.to_owned(),
            ty.description.as_ref().map(|text| text.node.as_str()),
        );
        for field in sdl.fields(name) {
            let of = format!("{name}.{}", field.name);
            undescribed.sentence(
                of.clone(),
                field.description.as_ref().map(|text| text.node.as_str()),
            );
            undescribed.arguments(&of, &field.arguments);
        }
        match &ty.kind {
            TypeKind::Enum(values) => {
                for value in &values.values {
                    let text = value.node.description.as_ref().map(|text| text.node.as_str());
                    undescribed.sentence(format!("{name}.{}", value.node.value), text);
                }
            }
            TypeKind::InputObject(input) => undescribed.arguments(name, &input.fields),
            _ => {}
        }
    }
    undescribed.0.sort();
    assert!(undescribed.0.is_empty(), "{:#?}", undescribed.0);
}

#[test]
fn every_custom_scalar_says_where_it_is_specified() {
    let sdl = Sdl::get();
    let scalars = sdl.types().filter(|ty| matches!(ty.kind, TypeKind::Scalar));
    let custom: Vec<_> = scalars
        .filter(|ty| !BUILT_IN.contains(&ty.name.node.as_str()))
        .collect();
    assert!(custom.len() >= 4);
    for ty in custom {
        let specified = ty
            .directives
            .iter()
            .any(|directive| directive.node.name.node == "specifiedBy");
        assert!(specified, "{}", ty.name);
    }
    assert!(sdl.ty("Date").is_some() && sdl.ty("DateTime").is_some());
}

/// GraphQL's `Int` has 32 bits; a wider integer behind it fails only on the day when it is large.
#[test]
fn no_int_in_the_schema_is_wider_than_32_bits() {
    let wide = ["i64", "u64", "u32", "i128", "u128", "usize", "isize"];
    let mut found = Vec::new();
    for file in super::architecture::sources() {
        let in_schema = ["types.rs", "mutations.rs", "subscriptions.rs"]
            .iter()
            .any(|name| file.path.ends_with(name))
            || file.path.starts_with("graphql/") && !file.path.starts_with("graphql/limits");
        if !in_schema {
            continue;
        }
        let mut object = false;
        let mut shown = false;
        for (number, line) in file.code.lines().enumerate() {
            match line.trim_end() {
                "}" => (object, shown) = (false, false),
                it if it.starts_with("#[Object") || it.starts_with("#[Subscription") => object = true,
                it if it.starts_with("#[derive(") => {
                    shown = it.contains("SimpleObject") || it.contains("InputObject");
                }
                _ => {}
            }
            let ty = if object && line.contains("async fn ") {
                line.rsplit_once("->").map(|(_, ty)| ty)
            } else if shown && line.starts_with("    ") {
                line.split_once(':').map(|(_, ty)| ty)
            } else {
                None
            };
            let is_wide = |ty: &str| {
                ty.split(|c: char| !c.is_alphanumeric())
                    .any(|word| wide.contains(&word))
            };
            if ty.is_some_and(is_wide) {
                found.push(format!("{}:{}", file.path, number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:?}");
}

/// What each root field needs. `None` is for everybody who has signed in.
const NEEDS: &[(&str, Option<Permission>)] = {
    use Permission as P;
    &[
        ("viewer", None),
        // What they find decides; so far every role may read every kind.
        ("node", None),
        ("nodes", None),
        ("tenant", Some(P::TenantRead)),
        ("sessions", None),
        ("signOut", None),
        ("revokeSession", None),
        ("revokeOtherSessions", None),
        ("changePassword", None),
        ("role", Some(P::UsersRead)),
        ("roles", Some(P::UsersRead)),
        ("createRole", Some(P::RolesWrite)),
        ("updateRole", Some(P::RolesWrite)),
        ("deleteRole", Some(P::RolesWrite)),
        ("team", Some(P::UsersRead)),
        ("teams", Some(P::UsersRead)),
        ("createTeam", Some(P::TeamsWrite)),
        ("updateTeam", Some(P::TeamsWrite)),
        ("deleteTeam", Some(P::TeamsWrite)),
        ("linkedIdentities", None),
        ("unlinkProvider", None),
        ("beginTotpEnrolment", None),
        ("confirmTotpEnrolment", None),
        ("disableTotp", None),
        ("regenerateRecoveryCodes", None),
        ("resetSecondFactor", Some(P::UsersWrite)),
        ("updateTenant", Some(P::TenantWrite)),
        ("user", Some(P::UsersRead)),
        ("users", Some(P::UsersRead)),
        ("createUser", Some(P::UsersWrite)),
        ("requestEmailVerification", None),
        ("verifyEmail", None),
        ("switchTenant", None),
        ("leaveTenant", None),
        ("invitations", Some(P::UsersWrite)),
        ("inviteUser", Some(P::UsersWrite)),
        ("resendInvitation", Some(P::UsersWrite)),
        ("revokeInvitation", Some(P::UsersWrite)),
        ("updateUser", Some(P::UsersWrite)),
        ("deleteUser", Some(P::UsersWrite)),
        ("company", Some(P::CompaniesRead)),
        ("companies", Some(P::CompaniesRead)),
        ("createCompany", Some(P::CompaniesWrite)),
        ("updateCompany", Some(P::CompaniesWrite)),
        ("deleteCompany", Some(P::CompaniesDelete)),
        ("contact", Some(P::ContactsRead)),
        ("contacts", Some(P::ContactsRead)),
        ("createContact", Some(P::ContactsWrite)),
        ("updateContact", Some(P::ContactsWrite)),
        ("deleteContact", Some(P::ContactsDelete)),
        ("pipeline", Some(P::PipelinesRead)),
        ("pipelines", Some(P::PipelinesRead)),
        ("pipelineStage", Some(P::PipelinesRead)),
        ("createPipeline", Some(P::PipelinesWrite)),
        ("updatePipeline", Some(P::PipelinesWrite)),
        ("deletePipeline", Some(P::PipelinesWrite)),
        ("createPipelineStage", Some(P::PipelinesWrite)),
        ("updatePipelineStage", Some(P::PipelinesWrite)),
        ("deletePipelineStage", Some(P::PipelinesWrite)),
        ("deal", Some(P::DealsRead)),
        ("deals", Some(P::DealsRead)),
        ("dealStageChange", Some(P::DealsRead)),
        ("companyChanged", Some(P::CompaniesRead)),
        ("contactChanged", Some(P::ContactsRead)),
        ("dealChanged", Some(P::DealsRead)),
        ("dealStageChanged", Some(P::DealsRead)),
        ("createDeal", Some(P::DealsWrite)),
        ("updateDeal", Some(P::DealsWrite)),
        ("moveDeal", Some(P::DealsWrite)),
        ("deleteDeal", Some(P::DealsDelete)),
        ("interaction", Some(P::InteractionsRead)),
        ("interactions", Some(P::InteractionsRead)),
        ("interactionLogged", Some(P::InteractionsRead)),
        // What one may not read is left out.
        ("changes", None),
        ("createInteraction", Some(P::InteractionsWrite)),
        ("updateInteraction", Some(P::InteractionsWrite)),
        ("completeInteraction", Some(P::InteractionsWrite)),
        ("auditEvents", Some(P::AuditRead)),
        ("companiesByTaxId", Some(P::SensitiveRead)),
        ("updateSensitiveCompanyFields", Some(P::SensitiveWrite)),
        ("deleteInteraction", Some(P::InteractionsDelete)),
        ("apiKeys", Some(P::ApiKeysWrite)),
        ("createApiKey", Some(P::ApiKeysWrite)),
        ("revokeApiKey", Some(P::ApiKeysWrite)),
    ]
};

/// Root fields for who has no token yet.
const OPEN: [&str; 11] = [
    "signInProviders",
    "completeProviderSignIn",
    "signIn",
    "verifySecondFactor",
    "signUp",
    "refreshSession",
    "completeSignUp",
    "invitation",
    "acceptInvitation",
    "requestPasswordReset",
    "resetPassword",
];

fn root_fields() -> Vec<(&'static str, String)> {
    let sdl = Sdl::get();
    let of = |root: &'static str| {
        let fields = sdl.fields(root);
        fields
            .into_iter()
            .map(move |field| (root, field.name.to_string()))
            .collect::<Vec<_>>()
    };
    ["Query", "Mutation", "Subscription"]
        .into_iter()
        .flat_map(of)
        .collect()
}

/// The first answer of a root field, asked about records that do not exist.
async fn first_answer(client: &crate::support::Client, root: &str, field: &str) -> Value {
    let (document, variables) = operation(root, field, arguments(field, &Records::unknown()));
    if root == "Subscription" {
        use futures::StreamExt;
        return client.subscribe(&document, variables).next().await.unwrap();
    }
    client.answer(&document, variables).await
}

#[tokio::test]
async fn every_root_field_but_signing_in_and_up_needs_a_token() {
    let app = TestApp::new().await;
    for (root, field) in root_fields() {
        let answer = first_answer(&app.anon(), root, &field).await;
        let code = &answer["errors"][0]["extensions"]["code"];
        match field.as_str() {
            "invitation" => assert_eq!(answer["data"]["invitation"], Value::Null, "{answer}"),
            "acceptInvitation" | "resetPassword" | "completeSignUp" => assert_eq!(
                answer["data"][&field]["userErrors"][0]["code"], "NOT_FOUND",
                "{answer}"
            ),
            "signInProviders" => assert_eq!(answer["data"][&field], json!([])),
            "requestPasswordReset" => assert_eq!(answer["data"][&field]["userErrors"], json!([])),
            // Nobody has this address, or this token.
            "signIn" | "refreshSession" | "verifySecondFactor" | "completeProviderSignIn" => {
                assert_eq!(code, "UNAUTHENTICATED")
            }
            "signUp" => assert_eq!(
                answer["data"]["signUp"]["userErrors"][0]["code"], "INVALID",
                "{answer}"
            ),
            _ => {
                assert_eq!(code, "UNAUTHENTICATED", "{field}: {answer}");
                let message = answer["errors"][0]["message"].as_str().unwrap();
                assert!(message.starts_with("Sign in first"), "{message}");
            }
        }
    }
}

/// What else a field needs: for the kind of record that it is asked for here, and for those that it finds by a secret.
const ALSO: [(&str, Permission); 3] = [
    ("node", Permission::DealsRead),
    ("nodes", Permission::DealsRead),
    ("companiesByTaxId", Permission::CompaniesRead),
];

#[tokio::test]
async fn each_role_gets_exactly_what_the_policy_says() {
    let app = TestApp::unlimited().await;
    let admin = app.tenant().await;
    let needs: BTreeMap<_, _> = NEEDS.iter().copied().collect();
    assert_eq!(needs.len(), NEEDS.len(), "no field is named twice");
    let fields = root_fields();
    for name in needs.keys() {
        assert!(
            fields.iter().any(|(_, field)| field == name),
            "{name} is no root field"
        );
    }
    let mut clients = Vec::new();
    for role in &Role::BUILT_IN {
        clients.push(app.user(&admin, *role).await);
    }
    // Roles of the tenant's own: whatever one permits, the other does not.
    for odd in [false, true] {
        let user = app.user(&admin, Role::Viewer).await;
        let half = Permission::ALL
            .iter()
            .enumerate()
            .filter(|(at, _)| (at % 2 == 1) == odd);
        let half = half.map(|(_, permission)| *permission).collect();
        let role = Some(uuid::Uuid::now_v7());
        clients.push(user.with_rights(Rights::custom(Role::Custom, role, half, Reach::ALL)));
    }
    for client in clients {
        let rights = &client.viewer().rights;
        let role = rights.role;
        for (root, field) in fields.iter().filter(|(_, field)| !OPEN.contains(&field.as_str())) {
            let need = needs
                .get(field.as_str())
                .unwrap_or_else(|| panic!("say what {field} needs"));
            let answer = first_answer(&client, root, field).await;
            // What the record refers to may need more.
            let of_the_field = |error: &&Value| {
                error["path"]
                    .as_array()
                    .is_none_or(|path| path[1..].iter().all(Value::is_number))
            };
            let errors = answer["errors"].as_array();
            let error = errors.and_then(|errors| errors.iter().find(of_the_field));
            let also = ALSO
                .iter()
                .find(|(name, _)| name == field)
                .map(|(_, needed)| *needed);
            let lacks = need
                .iter()
                .chain(&also)
                .find(|permission| !rights.permits(**permission));
            match lacks {
                Some(permission) => {
                    let error = &error.unwrap_or_else(|| panic!("{role:?} {field}: {answer}"))["extensions"];
                    assert_eq!(error["code"], "FORBIDDEN", "{role:?} {field}: {answer}");
                    assert_eq!(error["permission"], permission.name(), "{role:?} {field}");
                }
                None => assert!(error.is_none(), "{role:?} {field}: {answer}"),
            }
        }
        let data = client.query("{ viewer { role permissions } }", json!({})).await;
        let permissions: Vec<_> = rights.permissions().iter().map(Permission::name).collect();
        assert_eq!(
            data["viewer"],
            json!({ "role": role.as_str(), "permissions": permissions })
        );
    }
}

/// Root fields that need no permission and are for programs too: they show what the rights of who asks allow.
const FOR_EVERYBODY: [&str; 4] = ["viewer", "node", "nodes", "changes"];

/// What is for everybody who has signed in concerns one's own account and sessions, and so is for people: a key that has
/// come into wrong hands must not get at them.
#[tokio::test]
async fn whatever_needs_no_permission_is_for_people_or_on_a_short_list() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let key = |rights: Rights| {
        app.acting_as(Viewer {
            means: Means::ApiKey,
            rights: std::sync::Arc::new(rights),
            ..admin.viewer().clone()
        })
    };
    let powerless = key(Rights::of(Role::Admin).only(Permissions::NONE));
    let in_person = Error::InPerson.message();
    let first_error = |answer: &Value| answer["errors"][0].clone();
    let mut for_people = Vec::new();
    for (root, field) in root_fields() {
        if OPEN.contains(&field.as_str()) || FOR_EVERYBODY.contains(&field.as_str()) {
            continue;
        }
        let error = first_error(&first_answer(&powerless, root, &field).await);
        assert_eq!(error["extensions"]["code"], "FORBIDDEN", "{field}: {error}");
        if error["extensions"]["permission"].is_null() {
            assert_eq!(error["message"], in_person, "{field}");
            for_people.push(field);
        }
    }
    for field in [
        "sessions",
        "signOut",
        "revokeSession",
        "revokeOtherSessions",
        "switchTenant",
        "leaveTenant",
        "changePassword",
        "verifyEmail",
        "requestEmailVerification",
    ] {
        assert!(for_people.iter().any(|it| it == field), "{field}");
    }
    // And what makes further keys is so whatever a key permits.
    let mighty = key(Rights::of(Role::Admin));
    for field in ["createApiKey", "revokeApiKey"] {
        let error = first_error(&first_answer(&mighty, "Mutation", field).await);
        assert_eq!(error["message"], in_person, "{field}");
    }
}

/// The policy, said a second time in other words: a slip in it shows here.
#[test]
fn the_policy_is_what_it_is_meant_to_be() {
    let may = |role: Role, end: &str| -> Vec<&str> {
        let permissions = role.permissions().into_iter().map(Permission::name);
        permissions.filter_map(|name| name.strip_suffix(end)).collect()
    };
    let all = [
        "TENANT",
        "USERS",
        "COMPANIES",
        "CONTACTS",
        "PIPELINES",
        "DEALS",
        "INTERACTIONS",
    ];
    let with_details = [&all[..], &["CONTACT_DETAILS"]].concat();
    for role in [Role::Manager, Role::Sales, Role::Marketing] {
        assert_eq!(may(role, "_READ"), with_details, "{role:?}");
    }
    assert_eq!(may(Role::Viewer, "_READ"), all);
    let reserved = ["SENSITIVE", "TOKENS", "AUDIT"];
    assert_eq!(may(Role::Admin, "_READ"), [&with_details[..], &reserved].concat());
    let reserved = ["SENSITIVE", "ROLES", "TEAMS", "API_KEYS"];
    assert_eq!(may(Role::Admin, "_WRITE"), [&all[..], &reserved].concat());
    assert_eq!(may(Role::Manager, "_WRITE"), all[2..]);
    assert_eq!(
        may(Role::Sales, "_WRITE"),
        ["COMPANIES", "CONTACTS", "DEALS", "INTERACTIONS"]
    );
    assert_eq!(
        may(Role::Marketing, "_WRITE"),
        ["COMPANIES", "CONTACTS", "INTERACTIONS"]
    );
    assert_eq!(may(Role::Viewer, "_WRITE"), [""; 0]);
    let records = ["COMPANIES", "CONTACTS", "DEALS", "INTERACTIONS"];
    assert_eq!(may(Role::Admin, "_DELETE"), records);
    assert_eq!(may(Role::Manager, "_DELETE"), records);
    assert_eq!(may(Role::Sales, "_DELETE"), ["DEALS", "INTERACTIONS"]);
    assert_eq!(may(Role::Marketing, "_DELETE"), [""; 0]);
    assert_eq!(may(Role::Viewer, "_DELETE"), [""; 0]);
}

/// The columns of a table: name, diesel's type.
type Columns = BTreeMap<String, Vec<(String, String)>>;

/// The tables that `db/schema.rs` tells diesel of, each with its primary key.
fn known_tables() -> (Columns, BTreeMap<String, String>) {
    let text = std::fs::read_to_string(root().join("src/db/schema.rs")).unwrap();
    let (mut tables, mut keys) = (Columns::new(), BTreeMap::new());
    for table in text.split("diesel::table! {").skip(1) {
        let (head, rest) = table.split_once(") {").unwrap();
        let (name, key) = head.trim().split_once(" (").unwrap();
        let (columns, _) = rest.split_once('}').unwrap();
        let column = |line: &str| {
            let (name, ty) = line.trim().trim_end_matches(',').split_once(" -> ")?;
            Some((name.to_owned(), ty.to_owned()))
        };
        tables.insert(name.to_owned(), columns.lines().filter_map(column).collect());
        keys.insert(name.to_owned(), key.to_owned());
    }
    (tables, keys)
}

#[tokio::test]
async fn what_diesel_knows_of_the_tables_is_what_the_migrations_made() {
    let app = TestApp::new().await;
    let client = app.superuser().await;
    let rows = client
        .query(
            "SELECT c.relname::text, a.attname::text, a.attnotnull, t.typname::text
               FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
              WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0
                AND NOT a.attisdropped AND a.attgenerated = '' AND c.relname <> '__diesel_schema_migrations'
              ORDER BY c.relname, a.attnum",
            &[],
        )
        .await
        .unwrap();
    let mut made = Columns::new();
    for row in rows {
        let (table, column, not_null, ty): (String, String, bool, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let capital = |ty: &str| ty[..1].to_uppercase() + &ty[1..];
        // PostgreSQL names an array by its elements.
        let mut ty = match ty.strip_prefix('_') {
            Some(element) => format!("Array<{}>", capital(element)),
            None => capital(&ty),
        };
        if !not_null {
            ty = format!("Nullable<{ty}>");
        }
        made.entry(table).or_default().push((column, ty));
    }
    let (known, known_keys) = known_tables();
    assert_eq!(known, made);
    let rows = client
        .query(
            "SELECT c.relname::text, string_agg(a.attname, ', ' ORDER BY k.place)
               FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
               CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
              WHERE i.indisprimary AND c.relnamespace = 'public'::regnamespace
                AND c.relname <> '__diesel_schema_migrations'
              GROUP BY c.relname",
            &[],
        )
        .await
        .unwrap();
    let keys: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(known_keys, keys);
}

/// What the README shows to send must work as it stands there.
#[tokio::test]
async fn what_the_readme_sends_is_json_and_fits_the_schema() {
    let readme = include_str!("../../README.md");
    let client = TestApp::new().await.tenant().await;
    let mut sent = 0;
    for part in readme.split("'{\"query\":").skip(1) {
        let (body, _) = part.split_once("}'").unwrap();
        let body = format!("{{\"query\":{body}}}");
        let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        let document = body["query"].as_str().unwrap();
        let answer = client.answer(document, json!({})).await;
        // Only what is left to the reader to fill in may be missing.
        let told = answer["errors"].to_string();
        let expected =
            document.contains("$input") || document.contains("signIn") || answer["errors"].is_null();
        assert!(
            expected && !told.contains("Unknown") && !told.contains("parse"),
            "{document}: {told}"
        );
        sent += 1;
    }
    assert_eq!(sent, 3);
}
