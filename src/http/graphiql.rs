//! The GraphiQL page: self-hosted, embedded in the binary, under a Content-Security-Policy that lets nothing else in.
//!
//! Its third-party files are fetched once (`make setup`) and embedded by the next build. A build without them serves
//! a page that says so.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderName, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// What the page may do: run its own files and speak to its own origin, sockets included. `data:` is for the fonts and
/// marks inside GraphiQL's stylesheet. The hash is of the one style that GraphiQL inserts itself, which keeps the page
/// from scrolling under an open menu; the browser test tells when another version inserts another.
const POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self' 'sha256-nzTgYzXYDNe6BAHiiI7NNlfK8n/auuOAhh2t92YvuXo='; font-src 'self' data:; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("../../web/graphiql/index.html");

/// A file of the page, with its gzip form where compressing it pays.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    body: &'static [u8],
    gzip: Option<&'static [u8]>,
}

const OURS: &[Asset] = &[
    Asset {
        name: "page.js",
        content_type: JAVASCRIPT,
        body: include_bytes!("../../web/graphiql/page.js"),
        gzip: None,
    },
    Asset {
        name: "examples.js",
        content_type: JAVASCRIPT,
        body: include_bytes!("../../web/graphiql/examples.js"),
        gzip: None,
    },
    Asset {
        name: "page.css",
        content_type: CSS,
        body: include_bytes!("../../web/graphiql/page.css"),
        gzip: None,
    },
    Asset {
        name: "icon.svg",
        content_type: SVG,
        body: include_bytes!("../../web/graphiql/icon.svg"),
        gzip: None,
    },
];

#[cfg(not(graphiql_vendored))]
const VENDORED: &[Asset] = &[];

#[cfg(graphiql_vendored)]
const VENDORED: &[Asset] = &[
    Asset {
        name: "graphiql.min.js",
        content_type: JAVASCRIPT,
        body: include_bytes!("../../web/graphiql/vendor/graphiql.min.js"),
        gzip: Some(include_bytes!("../../web/graphiql/vendor/graphiql.min.js.gz")),
    },
    Asset {
        name: "graphiql.min.css",
        content_type: CSS,
        body: include_bytes!("../../web/graphiql/vendor/graphiql.min.css"),
        gzip: Some(include_bytes!("../../web/graphiql/vendor/graphiql.min.css.gz")),
    },
    Asset {
        name: "react.production.min.js",
        content_type: JAVASCRIPT,
        body: include_bytes!("../../web/graphiql/vendor/react.production.min.js"),
        gzip: Some(include_bytes!(
            "../../web/graphiql/vendor/react.production.min.js.gz"
        )),
    },
    Asset {
        name: "react-dom.production.min.js",
        content_type: JAVASCRIPT,
        body: include_bytes!("../../web/graphiql/vendor/react-dom.production.min.js"),
        gzip: Some(include_bytes!(
            "../../web/graphiql/vendor/react-dom.production.min.js.gz"
        )),
    },
    Asset {
        name: "graphql-ws.min.js",
        content_type: JAVASCRIPT,
        body: include_bytes!("../../web/graphiql/vendor/graphql-ws.min.js"),
        gzip: Some(include_bytes!("../../web/graphiql/vendor/graphql-ws.min.js.gz")),
    },
    Asset {
        name: "licenses.txt",
        content_type: PLAIN,
        body: include_bytes!("../../web/graphiql/vendor/licenses.txt"),
        gzip: None,
    },
];

/// `/graphiql` and its assets, or [`missing`] where the build had nothing to embed. With `demo`, the page offers the
/// demo users: only for a server that runs on demo data.
pub fn routes<S: Clone + Send + Sync + 'static>(demo: bool) -> Router<S> {
    if VENDORED.is_empty() {
        return missing();
    }
    let html = PAGE.replace("data-demo=\"false\"", &format!("data-demo=\"{demo}\""));
    let page = Arc::new(File::new(HTML, Bytes::from(html), None));
    let assets: Arc<HashMap<&'static str, File>> = Arc::new(
        OURS.iter()
            .chain(VENDORED)
            .map(|asset| {
                let gzip = asset.gzip.map(Bytes::from_static);
                (
                    asset.name,
                    File::new(asset.content_type, Bytes::from_static(asset.body), gzip),
                )
            })
            .collect(),
    );

    Router::new()
        .route(
            "/graphiql",
            get(async move |headers: HeaderMap| page.respond(&headers)),
        )
        .route(
            "/graphiql/assets/{*name}",
            get(
                async move |Path(name): Path<String>, headers: HeaderMap| match assets.get(name.as_str()) {
                    Some(file) => file.respond(&headers),
                    None => plain(StatusCode::NOT_FOUND, PLAIN, "No such file.\n"),
                },
            ),
        )
}

/// `/graphiql` of a build without the third-party files: how to get them.
pub fn missing<S: Clone + Send + Sync + 'static>() -> Router<S> {
    const HOW: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
        <title>Dealstream · GraphiQL</title>\n<h1>GraphiQL is not part of this build</h1>\n\
        <p>Its files come from npm and are embedded at build time. Run <code>make setup</code>, build again and restart \
        the server.</p>\n<p>The API itself is there: <code>POST /graphql</code>.</p>\n</html>\n";
    Router::new().route(
        "/graphiql",
        get(async || plain(StatusCode::SERVICE_UNAVAILABLE, HTML, HOW)),
    )
}

/// A file ready to be sent.
struct File {
    content_type: &'static str,
    /// Weak, because it names the content and not the bytes of either encoding.
    etag: String,
    body: Bytes,
    gzip: Option<Bytes>,
}

impl File {
    fn new(content_type: &'static str, body: Bytes, gzip: Option<Bytes>) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(&body);
        let etag = format!("W/\"{:016x}\"", hasher.finish());
        Self {
            content_type,
            etag,
            body,
            gzip,
        }
    }

    /// 304 when the client has this content already; gzip when the client takes it.
    fn respond(&self, request: &HeaderMap) -> Response {
        let caching = [
            (ETAG, self.etag.as_str()),
            (CACHE_CONTROL, "no-cache"),
            (VARY, "accept-encoding"),
        ];
        if is_known(request, &self.etag) {
            return (StatusCode::NOT_MODIFIED, caching, guards()).into_response();
        }
        let content_type = [(CONTENT_TYPE, self.content_type)];
        match &self.gzip {
            Some(gzip) if takes_gzip(request) => (
                caching,
                guards(),
                content_type,
                [(CONTENT_ENCODING, "gzip")],
                gzip.clone(),
            )
                .into_response(),
            _ => (caching, guards(), content_type, self.body.clone()).into_response(),
        }
    }
}

fn plain(status: StatusCode, content_type: &'static str, body: &'static str) -> Response {
    (
        status,
        guards(),
        [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")],
        body,
    )
        .into_response()
}

/// The headers that every answer carries.
fn guards() -> [(HeaderName, &'static str); 3] {
    [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ]
}

/// The items of a list header, over all its lines.
fn items(request: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    request
        .get_all(name)
        .into_iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

fn is_known(request: &HeaderMap, etag: &str) -> bool {
    // If-None-Match compares weakly: a proxy may have dropped the mark.
    let content = etag.trim_start_matches("W/");
    items(request, IF_NONE_MATCH).any(|known| known == "*" || known.trim_start_matches("W/") == content)
}

fn takes_gzip(request: &HeaderMap) -> bool {
    items(request, ACCEPT_ENCODING).any(|item| {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let refused = weight
            .trim()
            .strip_prefix("q=")
            .and_then(|q| q.parse::<f32>().ok())
            == Some(0.0);
        coding.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}
