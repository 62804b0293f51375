//! The six workloads: what is asked, as GraphQL.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use crate::data::{Choices, Place, Tenant, id};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// A contact by its id, with its company.
    ById,
    /// 20 deals with stage and contact.
    List,
    /// 20 deals with stage, contact, the contact's company and the 5 latest interactions of each.
    Nested,
    /// A pipeline with its stages, their counts and sums, and the first 10 deals of each.
    Board,
    /// The first 20 contacts that a word is found in, and how many there are.
    Search,
    /// A deal goes to another stage: with history, position and idempotency key.
    Move,
}

impl Workload {
    /// All of them; the one that writes comes last, so that what the others read has been vacuumed.
    pub const ALL: [Self; 6] = [
        Self::ById,
        Self::List,
        Self::Nested,
        Self::Board,
        Self::Search,
        Self::Move,
    ];

    /// The name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::ById => "by id",
            Self::List => "list",
            Self::Nested => "nested",
            Self::Board => "board",
            Self::Search => "search",
            Self::Move => "moveDeal",
        }
    }

    /// How much more processor time than the plain database's a request may need, at most.
    pub fn aim(self) -> f64 {
        match self {
            Self::ById => 2.5,
            Self::List => 2.2,
            Self::Nested => 1.5,
            Self::Board => 1.4,
            Self::Search => 1.2,
            Self::Move => 2.2,
        }
    }

    /// The document.
    pub fn document(self) -> &'static str {
        match self {
            Self::ById => {
                "query Contact($id: ID!) { contact(id: $id) { id name email jobTitle company { id name domain } } }"
            }
            Self::List => {
                "query Deals($after: Cursor) { deals(first: 20, after: $after) { nodes { id name amount { amount currencyCode } \
                 stage { id name } contact { id name } } pageInfo { hasNextPage endCursor } } }"
            }
            Self::Nested => {
                "query Deals($after: Cursor) { deals(first: 20, after: $after) { nodes { id name amount { amount currencyCode } \
                 stage { id name } contact { id name email company { id name } } \
                 interactions(first: 5) { nodes { id kind subject occurredAt } } } pageInfo { hasNextPage endCursor } } }"
            }
            Self::Board => {
                "query Board($id: ID!) { pipeline(id: $id) { id name stages { id name dealCount \
                 totalAmount { amount currencyCode } weightedAmount { amount currencyCode } \
                 deals(first: 10) { nodes { id name amount { amount currencyCode } } } } } }"
            }
            Self::Search => {
                "query Find($search: String!) { contacts(search: $search, first: 20) { totalCount nodes { id name email } } }"
            }
            Self::Move => {
                "mutation Move($input: MoveDealInput!) { moveDeal(input: $input) { deal { id status version } position \
                 userErrors { code message } } }"
            }
        }
    }

    /// Chooses what one request is about. Of `workers` that run side by side each has deals of its own to move.
    pub fn choose<'t>(
        self,
        tenants: &'t [Tenant],
        choices: &mut Choices,
        (worker, workers): (usize, usize),
    ) -> (&'t Tenant, About<'t>) {
        static MOVES: AtomicU64 = AtomicU64::new(0);
        let tenant = choices.of(tenants);
        let about = match self {
            Self::ById => About::Contact(*choices.of(&tenant.contacts)),
            Self::List | Self::Nested => About::Place(choices.of(&tenant.places)),
            Self::Board => About::Pipeline(*choices.of(&tenant.pipelines)),
            Self::Search => About::Word(choices.of(&tenant.words).as_str()),
            Self::Move => {
                let mover = &tenant.movers[choices.below(tenant.movers.len() / workers) * workers + worker];
                About::Move {
                    deal: mover.id,
                    stage: mover.next(),
                    key: format!(
                        "bench-{}-{}",
                        std::process::id(),
                        MOVES.fetch_add(1, Ordering::Relaxed)
                    ),
                }
            }
        };
        (tenant, about)
    }

    /// The body of the request. Nothing in it needs escaping: ids, cursors and plain words.
    pub fn body(self, about: &About<'_>) -> String {
        let document = self.document();
        let variables = match about {
            About::Contact(contact) => format!(r#"{{"id":"{}"}}"#, id("contact", *contact)),
            About::Place(place) => format!(r#"{{"after":"{}"}}"#, place.cursor),
            About::Pipeline(pipeline) => format!(r#"{{"id":"{}"}}"#, id("pipeline", *pipeline)),
            About::Word(word) => format!(r#"{{"search":"{word}"}}"#),
            About::Move { deal, stage, key } => format!(
                r#"{{"input":{{"dealId":"{}","stageId":"{}","idempotencyKey":"{key}"}}}}"#,
                id("deal", *deal),
                id("stage", *stage)
            ),
        };
        format!(r#"{{"query":"{document}","variables":{variables}}}"#)
    }
}

/// What a request is about.
pub enum About<'t> {
    Contact(Uuid),
    Place(&'t Place),
    Pipeline(Uuid),
    Word(&'t str),
    Move { deal: Uuid, stage: Uuid, key: String },
}
