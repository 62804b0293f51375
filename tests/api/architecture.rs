//! The house keeps its order: what may know what, and where SQL is.

use std::fs;
use std::path::Path;

use dealstream::auth::Policy;

/// A file of the library, without its comments and its tests.
pub struct Source {
    /// Below `src`.
    pub path: String,
    pub code: String,
}

/// Every source file of the library.
pub fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                sources.push(Source {
                    path,
                    code: code(&text),
                });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// The text with comments emptied, line by line, up to a module of tests.
fn code(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    let lines = lines.map(|line| {
        if line.trim_start().starts_with("//") {
            ""
        } else {
            line
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Top to bottom; modules of one line do not know each other.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["http", "demo"],
    &["app"],
    &["api"],
    &["founding"],
    &["crm"],
    &["audit"],
    &["identity"],
    &["graphql"],
    &["sensitive"],
    &["events"],
    &["auth", "mail"],
    &["db"],
    &["crypto"],
    &["telemetry"],
    &["config"],
    &["error"],
];

fn layer(module: &str) -> usize {
    let found = LAYERS.iter().position(|layer| layer.contains(&module));
    found.unwrap_or_else(|| panic!("say in LAYERS where the module `{module}` stands"))
}

fn module(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The modules that a file names, with `crate::{a, b}` taken apart.
fn named(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (place, _) in code.match_indices("crate::") {
        let before = code[..place].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[place + "crate::".len()..];
        let word = |text: &str| -> String {
            text.trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        };
        if let Some(group) = rest.strip_prefix('{') {
            names.extend(group.split('}').next().unwrap().split(',').map(word));
        } else {
            names.push(word(rest));
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn arrows_point_down_only() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| file.path != "lib.rs") {
        let own = module(&file.path);
        for name in named(&file.code) {
            if name != own && layer(&name) <= layer(own) {
                wrong.push(format!("{} uses {name}", file.path));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Inside an entity: who may use whom, by file.
const ANATOMY: &[(&str, &[&str])] = &[
    ("model", &[]),
    // A filter is a type of the schema, and a condition at the same time.
    ("queries", &["model", "types"]),
    ("types", &["model", "queries"]),
    ("mutations", &["model", "queries", "types"]),
    ("subscriptions", &["model", "queries", "types"]),
];

#[test]
fn inside_an_entity_model_comes_before_queries_before_types_before_changes() {
    let mut wrong = Vec::new();
    for file in sources() {
        // A section that has grown is a folder.
        let folder = file.path.find("/mutations/").map(|at| at + "/mutations".len());
        let section = &file.path[..folder.unwrap_or(file.path.len())];
        let Some((_, name)) = section.rsplit_once('/') else {
            continue;
        };
        let is_entity = section.starts_with("crm/") && section.matches('/').count() == 2
            || section.starts_with("identity/");
        if !is_entity || name == "mod.rs" {
            continue;
        }
        let name = name.trim_end_matches(".rs");
        let Some((_, may)) = ANATOMY.iter().find(|(it, _)| *it == name) else {
            wrong.push(format!("{} has no place in an entity", file.path));
            continue;
        };
        for (other, _) in ANATOMY {
            let uses = file.code.contains(&format!("super::{other}::"));
            if uses && !may.contains(other) && *other != name {
                wrong.push(format!("{} uses {other}", file.path));
            }
        }
        if name == "queries" {
            let of_types = file.code.lines().filter(|line| line.contains("super::types::"));
            let other = of_types.filter(|line| !line.contains("Filter"));
            wrong.extend(other.map(|line| format!("{}: {line}", file.path)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_mod_of_an_entity_is_used_by_its_siblings() {
    let mut wrong = Vec::new();
    for file in sources() {
        for (number, line) in file.code.lines().enumerate() {
            for inner in ["model", "queries", "types", "mutations", "subscriptions"] {
                let of_another = line.contains("crate::") && line.contains(&format!("::{inner}::"));
                if of_another && !line.contains("sql_types") {
                    wrong.push(format!("{}:{}", file.path, number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Files with SQL besides `db` and the `queries.rs` of entities.
const WITH_SQL: &[&str] = &[
    "events/mod.rs",
    "events/retention.rs",
    "events/work.rs",
    "graphql/mutation.rs",
];

#[test]
fn sql_is_where_it_belongs() {
    let mut wrong = Vec::new();
    for file in sources() {
        let allowed = file.path.starts_with("db/")
            || file.path.starts_with("demo")
            || file.path.ends_with("/queries.rs")
            || WITH_SQL.contains(&file.path.as_str());
        if allowed {
            continue;
        }
        for sign in [
            "diesel_async",
            "RunQueryDsl",
            "::table",
            "insert_into(",
            "diesel::update(",
            "diesel::delete(",
            "diesel::select(",
            "sql_query(",
            "statement(",
        ] {
            // Conditions of filters and pages are put together in the kit; entities hand them columns.
            let kit = file.path.starts_with("graphql/") && sign == "diesel_async";
            let conversion = file.path == "error.rs" && sign == "diesel_async";
            let row = file.path.ends_with("/model.rs") && sign == "::table";
            if file.code.contains(sign) && !kit && !row && !conversion {
                wrong.push(format!("{} has {sign}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn statements_of_the_hot_path_can_be_cached() {
    // diesel prepares these anew at each call. Where they are left, they run once in a while.
    let documented = [
        "db/migrate.rs: sql_query(",
        "db/sealed.rs: sql_query(",
        "identity/queries.rs: diesel::update(",
        "crm/pipelines/queries.rs: diesel::update(",
    ];
    let mut found = Vec::new();
    for file in sources().iter().filter(|file| !file.path.starts_with("demo")) {
        for sign in ["sql_query(", "diesel::update("] {
            if file.code.contains(sign) {
                found.push(format!("{}: {sign}", file.path));
            }
        }
    }
    let unknown: Vec<_> = found
        .iter()
        .filter(|it| !documented.contains(&it.as_str()))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn a_connection_and_a_tenant_come_from_one_place_each() {
    let mut wrong = Vec::new();
    for file in sources() {
        let own = |of: &[&str]| of.contains(&file.path.as_str());
        for (sign, of) in [
            // What migrate.rs has is what it expects of policies.
            ("app.tenant_id", &["db/reach.rs", "db/migrate.rs"][..]),
            ("app.sees_", &["db/reach.rs"]),
            ("set_config", &["db/reach.rs"]),
            ("SET SESSION", &[]),
            ("pool.get()", &["db/mod.rs"]),
            (
                ".connection().await",
                &[
                    "db/mod.rs",
                    "db/session.rs",
                    "db/directory.rs",
                    "db/signing_keys.rs",
                    "db/sealed.rs",
                    "db/migrate.rs",
                ],
            ),
            ("AsyncPgConnection::establish", &["db/mod.rs", "db/migrate.rs"]),
            ("tokio_postgres", &["db/mod.rs", "db/embedded/mod.rs"]),
            (
                "SET LOCAL ROLE",
                &["db/directory.rs", "db/migrate.rs", "db/reach.rs"],
            ),
            (
                "std::env::var",
                &[
                    "config.rs",
                    "main.rs",
                    "db/embedded/cluster.rs",
                    "db/embedded/owner.rs",
                ],
            ),
        ] {
            if file.code.contains(sign) && !own(of) {
                wrong.push(format!("{} has {sign}", file.path));
            }
        }
        if file.path == "db/reach.rs" {
            let sets = file.code.lines().filter(|line| line.contains("app.tenant_id"));
            let other = sets.filter(|line| !line.contains("SET LOCAL app.tenant_id = '{tenant}'"));
            wrong.extend(other.map(str::to_owned));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_limit_is_counted_somewhere() {
    let unused: Vec<_> = Policy::ALL
        .into_iter()
        .filter(|policy| {
            let used = format!("Policy::{policy:?}");
            let elsewhere = |source: &Source| !source.path.starts_with("auth/throttle");
            let names = |source: &Source| {
                let after = source.code.split(&used).skip(1);
                after
                    .into_iter()
                    .any(|rest| !rest.starts_with(char::is_alphanumeric))
            };
            !sources().iter().any(|source| elsewhere(source) && names(source))
        })
        .collect();
    assert!(unused.is_empty(), "{unused:?} can be set and bounds nothing");
}
