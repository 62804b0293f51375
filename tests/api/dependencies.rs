//! What others have written: under which licences, from where, and what must never come in.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// Licences under which a product may be built and sold with no duty but to name the authors.
const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that are left out on purpose, and why.
const BANNED: [(&str, &str); 3] = [
    (
        "openssl-sys",
        "TLS and cryptography come from one library, built with the program",
    ),
    (
        "pq-sys",
        "PostgreSQL is spoken to in Rust: no libpq on the machine that builds or runs",
    ),
    ("rsa", "RUSTSEC-2023-0071: its timing tells of the private key"),
];

/// Every crate that the program is made of on this kind of machine, as cargo tells.
fn packages() -> Vec<Value> {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let host = rustc
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    match metadata["packages"].take() {
        Value::Array(packages) => packages,
        other => panic!("{other}"),
    }
}

/// Whether one of the choices that a licence expression of SPDX leaves is allowed.
fn is_allowed(expression: &str) -> bool {
    let part = |part: &str| {
        part.trim_matches(['(', ')', ' '])
            .split(" OR ")
            .flat_map(|choice| choice.split('/'))
            .any(|choice| LICENCES.contains(&choice.trim_matches(['(', ')', ' '])))
    };
    expression.split(" AND ").all(part)
}

#[test]
fn licences_ask_no_more_than_to_be_named() {
    for (expression, allowed) in [
        ("MIT OR GPL-3.0", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("AGPL-3.0", false),
    ] {
        assert_eq!(is_allowed(expression), allowed, "{expression}");
    }
    let refused: BTreeSet<String> = packages()
        .iter()
        .filter(|package| {
            !is_allowed(package["license"].as_str().unwrap_or_default()) && package["source"].is_string()
        })
        .map(|package| {
            format!(
                "{} {}: {}",
                package["name"], package["version"], package["license"]
            )
        })
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn crates_come_from_the_registry_and_none_is_banned() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        if let Some(source) = package["source"].as_str() {
            assert!(source.starts_with("registry+"), "{name} comes from {source}");
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            panic!("{name} has come in: {why}");
        }
    }
}
