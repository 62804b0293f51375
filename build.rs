//! Tells the crate whether the GraphiQL page's third-party files are there to be embedded (`web/graphiql/fetch.sh`).

use std::path::Path;

fn main() {
    // The folder, not vendor/ alone: Cargo would run this on every build while a watched path is missing.
    println!("cargo::rerun-if-changed=web/graphiql");
    println!("cargo::rustc-check-cfg=cfg(graphiql_vendored)");
    if Path::new("web/graphiql/vendor/.stamp").exists() {
        println!("cargo::rustc-cfg=graphiql_vendored");
    }
}
