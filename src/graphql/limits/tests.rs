use async_graphql::connection::{Connection, EmptyFields};
use async_graphql::futures_util::stream::{self, Stream};
use async_graphql::{
    EmptyMutation, Enum, ID, InputObject, Object, OneofObject, Schema, SimpleObject, Subscription, Value,
    value,
};
use proptest::prelude::*;

use super::*;

struct Query;

#[derive(SimpleObject)]
struct Deal {
    id: ID,
    title: String,
}

#[derive(SimpleObject)]
#[graphql(complex)]
struct Stage {
    name: String,
}

type Deals = Connection<String, Deal, EmptyFields, EmptyFields>;

#[async_graphql::ComplexObject]
impl Stage {
    async fn deals(&self, first: Option<i32>, last: Option<i32>) -> Deals {
        let _ = (first, last);
        Connection::new(false, false)
    }
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
enum Colour {
    Red,
    Green,
}

#[derive(InputObject)]
struct Filter {
    colour: Option<Colour>,
    min: i32,
    #[graphql(default = 5)]
    max: i32,
    names: Option<Vec<String>>,
}

#[derive(OneofObject)]
enum By {
    Id(ID),
    Title(String),
}

#[Object]
impl Query {
    async fn hello(&self) -> &str {
        "hello"
    }
    async fn me(&self) -> Query {
        Query
    }
    async fn deal(&self, id: ID) -> Option<Deal> {
        Some(Deal {
            id,
            title: "t".into(),
        })
    }
    async fn deals(&self, first: Option<i32>, last: Option<i32>, filter: Option<Filter>) -> Deals {
        let _ = (first, last, filter.map(|f| (f.colour, f.min, f.max, f.names)));
        Connection::new(false, false)
    }
    async fn deals_by(&self, ids: Vec<ID>) -> Vec<Deal> {
        let _ = ids;
        Vec::new()
    }
    async fn find(&self, by: By) -> String {
        match by {
            By::Id(id) => id.0,
            By::Title(title) => title,
        }
    }
    async fn stages(&self) -> Vec<Stage> {
        Vec::new()
    }
    async fn page(&self, #[graphql(default = 10)] size: i32, ratio: Option<f64>) -> i32 {
        let _ = ratio;
        size
    }
}

struct Mutation;

#[Object]
impl Mutation {
    async fn set_title(&self, id: ID, title: Option<String>) -> Deal {
        Deal {
            id,
            title: title.unwrap_or_default(),
        }
    }
}

struct Ticks;

#[Subscription]
impl Ticks {
    async fn tick(&self) -> impl Stream<Item = i32> {
        stream::iter([1])
    }
    async fn tock(&self) -> impl Stream<Item = i32> {
        stream::iter([1])
    }
}

fn builder() -> async_graphql::SchemaBuilder<Query, Mutation, Ticks> {
    Schema::build(Query, Mutation, Ticks)
}

fn documents_with(limits: Limits) -> Documents {
    let sdl = builder().finish().sdl();
    Documents::new(limits, &sdl, validator(builder()))
}

fn documents() -> Documents {
    documents_with(Limits::default())
}

fn vars(value: Value) -> Variables {
    Variables::from_value(value)
}

fn prepare(query: &str) -> Result<Prepared, Refusal> {
    documents().prepare(query, None, Variables::default())
}

fn code(query: &str) -> String {
    match prepare(query) {
        Ok(_) => "passed".to_owned(),
        Err(refusal) => refusal.code().to_owned(),
    }
}

fn cost(query: &str, variables: Value) -> u64 {
    documents()
        .prepare(query, None, vars(variables))
        .unwrap_or_else(|refusal| panic!("{refusal}"))
        .cost()
}

async fn run(query: &str, variables: Value) -> async_graphql::Response {
    let prepared = documents()
        .prepare(query, None, vars(variables))
        .unwrap_or_else(|refusal| panic!("{refusal}"));
    builder()
        .extension(CheckedBefore)
        .finish()
        .execute(prepared.request())
        .await
}

#[tokio::test]
async fn only_what_has_passed_the_guard_is_not_checked_again() {
    let schema = builder().extension(CheckedBefore).finish();
    let past_the_guard = schema.execute("{ hello { nonsense } }").await;
    assert!(past_the_guard.is_err(), "{past_the_guard:?}");
    assert_eq!(past_the_guard.data, async_graphql::Value::Null);
    // What only a check would refuse shows that there was none.
    let mut prepared = documents()
        .prepare("{ hello }", None, Variables::default())
        .unwrap()
        .request();
    prepared.set_parsed_query(async_graphql::parser::parse_query("{ hello(nonsense: 1) }").unwrap());
    assert!(schema.execute(prepared).await.is_ok());
}

/// `depth` fragments below one another, each spread `width` times by the one before.
fn bomb(width: usize, depth: usize) -> String {
    let mut query = format!("{{{}}}", " ...f0".repeat(width));
    for level in 0..depth {
        let body = if level + 1 == depth {
            "hello".to_owned()
        } else {
            format!("...f{} ", level + 1).repeat(width)
        };
        query.push_str(&format!(" fragment f{level} on Query {{ {body} }}"));
    }
    query
}

#[test]
fn fragment_bombs_are_refused_with_work_in_proportion_to_their_text() {
    for (width, depth) in [(2, 22), (10, 7), (2, 30), (50, 90), (3, 25)] {
        let query = bomb(width, depth);
        let document = async_graphql::parser::parse_query(&query).unwrap();
        let mut work = 0;
        let refusal = measure::measure_counted(&document, &Limits::default(), &mut work).unwrap_err();
        assert_eq!(refusal.code(), TOO_COMPLEX);
        // Each selection is seen once for the order and once for the measure.
        let selections = width * depth + 1;
        assert!(
            work <= 2 * selections,
            "{work} looked at for {selections} selections"
        );
        assert_eq!(code(&query), TOO_COMPLEX);
    }
    assert_eq!(code(&bomb(2, 5)), TOO_COMPLEX, "64 times the same root field");
    assert_eq!(code(&bomb(2, 2)), "passed");
}

#[test]
fn fragments_that_lead_round_in_circles_or_nowhere_are_refused() {
    for query in [
        "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }",
        "{ ...a } fragment a on Query { hello ...a }",
        "{ hello } fragment a on Query { me { ...a } }",
        "{ ...nowhere }",
        "{ me { ... { ...nowhere } } }",
    ] {
        assert_eq!(code(query), VALIDATION_FAILED, "{query}");
    }
}

#[test]
fn each_limit_refuses_what_is_one_over_it_and_no_less() {
    let many = |n: usize, f: &dyn Fn(usize) -> String| (0..n).map(f).collect::<Vec<_>>().join(" ");
    let nested =
        |n: usize| format!("{}hello{}", "{ me ".repeat(n), "}".repeat(n)).replace("hello", "{ hello } ");
    type Maker = Box<dyn Fn(usize) -> String>;
    let cases: Vec<(&str, Maker, usize)> = vec![
        ("depth", Box::new(move |n| nested(n - 1)), 16),
        (
            "aliases",
            Box::new(move |n| format!("{{ me {{ {} }} }}", many(n, &|i| format!("a{i}: hello")))),
            50,
        ),
        (
            "same root field",
            Box::new(move |n| format!("{{ {} }}", many(n, &|i| format!("a{i}: hello")))),
            10,
        ),
        (
            "repeated root field",
            Box::new(move |n| format!("{{ {} }}", many(n, &|_| "hello".into()))),
            10,
        ),
        (
            "directives",
            Box::new(move |n| {
                format!(
                    "{{ hello ...@include(if: true) {{ me {{ {} }} }} }}",
                    many(n - 1, &|_| "hello @skip(if: false)".into())
                )
            }),
            50,
        ),
        (
            "fragments",
            Box::new(move |n| {
                format!(
                    "{{ me {{ {} }} }} {}",
                    many(n, &|i| format!("...f{i}")),
                    many(n, &|i| format!("fragment f{i} on Query {{ hello }}"))
                )
            }),
            100,
        ),
        (
            "fields",
            Box::new(move |n| format!("{{ me {{ {} }} }}", many(n - 1, &|_| "hello".into()))),
            2_000,
        ),
    ];
    for (name, query, limit) in cases {
        assert_eq!(code(&query(limit)), "passed", "{name} at the limit");
        assert_eq!(code(&query(limit + 1)), TOO_COMPLEX, "{name} over the limit");
    }
    let operations = |n: usize| many(n, &|i| format!("query q{i} {{ hello }}"));
    let documents = documents();
    assert!(
        documents
            .prepare(&operations(10), Some("q3"), Variables::default())
            .is_ok()
    );
    assert!(
        documents
            .prepare(&operations(11), Some("q3"), Variables::default())
            .is_err()
    );
    let variables = |n: usize| {
        let declared = many(n, &|i| format!("$v{i}: Boolean = true"));
        format!("query ({declared}) {{ hello }}")
    };
    let refusal = documents
        .prepare(&variables(101), None, Variables::default())
        .err()
        .unwrap();
    assert_eq!(refusal.code(), TOO_COMPLEX);
    assert!(refusal.errors[0].message.contains("101 variables"), "{refusal}");
}

#[test]
fn text_is_bounded_before_it_is_parsed() {
    assert_eq!(code(&format!("{{ hello }} #{}", "x".repeat(70_000))), TOO_COMPLEX);
    assert_eq!(code(&format!("{{ {} }}", "a ".repeat(5_000))), TOO_COMPLEX);
    for bracket in ["{a", "[", "(a:", "{a(b:["] {
        assert_eq!(
            code(&format!("{{ x {}", bracket.repeat(500))),
            TOO_COMPLEX,
            "{bracket}"
        );
    }
}

#[test]
fn what_is_not_graphql_is_told_with_its_place() {
    for (query, line, column) in [
        ("{", 1, 2),
        ("{ hello ", 1, 9),
        ("", 1, 1),
        ("{ hello }}", 1, 10),
        ("{\r\n  hello(id: \"x)\r\n}", 2, 13),
        ("{ ä }", 1, 3),
        ("# ä {\n{ # hello\r\n hello }}", 3, 9),
        ("query() { hello }", 1, 7),
        ("{\n deal(id: ) { id } }", 2, 11),
        ("{ hello(a: \"\\u{110000}\") }", 1, 13),
        ("{ hello(a: \"\\uD83D\") }", 1, 13),
        ("\"described\" { hello }", 1, 13),
    ] {
        let refusal = prepare(query).err().unwrap_or_else(|| panic!("passed: {query}"));
        assert_eq!(refusal.code(), PARSE_FAILED, "{query}");
        assert_eq!(
            refusal.errors[0].locations,
            [Pos { line, column }],
            "{query}: {refusal}"
        );
        assert!(!refusal.errors[0].message.contains('\n'), "{refusal}");
    }
}

#[tokio::test]
async fn forms_of_the_current_specification_are_understood() {
    let answer = run(
        "\"\"\"What \\\"\"\" it\n is for\"\"\" query q(\"the name\" $by: By! = {title: \"x\"} \"\" $n: Int) { find(by: $by) page(size: $n) @skip(if: true) }",
        value!({}),
    )
    .await;
    assert_eq!(answer.data, value!({"find": "x"}), "{:?}", answer.errors);
    let answer = run(
        r#"{ a: find(by: {title: "\u{1F600} \uD83D\uDE00 \u00e4 \u{A}\u{22}"}) b: find(by: {title: """plain \u{zz}"""}) }"#,
        value!({}),
    )
    .await;
    assert_eq!(answer.data, value!({"a": "😀 😀 ä \n\"", "b": "plain \\u{zz}"}));
}

#[test]
fn the_operation_is_chosen_by_name() {
    let documents = documents();
    let two = "query a { hello } mutation b { setTitle(id: 1) { id } }";
    let choose = |query, name| documents.prepare(query, name, Variables::default());
    assert_eq!(choose(two, Some("a")).ok().unwrap().kind(), OperationType::Query);
    assert_eq!(
        choose(two, Some("b")).ok().unwrap().kind(),
        OperationType::Mutation
    );
    assert_eq!(choose("{ hello }", Some("")).ok().unwrap().operation_name(), None);
    for (query, name) in [
        (two, None),
        (two, Some("")),
        (two, Some("c")),
        ("{ hello }", Some("a")),
    ] {
        assert_eq!(
            choose(query, name).err().unwrap().code(),
            OPERATION_RESOLUTION_FAILURE,
            "{name:?}"
        );
    }
}

#[tokio::test]
async fn a_named_operation_runs_with_the_fragments_it_reaches() {
    let query = "query a { ...f } query b { me { ...g } } fragment f on Query { hello me { ...g } } fragment g on Query { page }";
    let prepared = documents()
        .prepare(query, Some("b"), Variables::default())
        .ok()
        .unwrap();
    assert_eq!(prepared.operation().document.fragments.len(), 1);
    let answer = builder().finish().execute(prepared.request()).await;
    assert_eq!(answer.data, value!({"me": {"page": 10}}));
}

#[tokio::test]
async fn conditions_see_the_defaults_of_variables() {
    let query = "query ($on: Boolean! = true, $off: Boolean = false) { hello @include(if: $on) page @skip(if: $off) }";
    assert_eq!(
        run(query, value!({})).await.data,
        value!({"hello": "hello", "page": 10})
    );
    assert_eq!(
        run(query, value!({"on": false, "off": true})).await.data,
        value!({})
    );
    let typename = "query ($on: Boolean!) { hello __typename @include(if: $on) }";
    assert_eq!(
        run(typename, value!({"on": true})).await.data,
        value!({"hello": "hello", "__typename": "Query"})
    );
    assert_eq!(
        run(typename, value!({"on": false})).await.data,
        value!({"hello": "hello"})
    );
}

#[test]
fn null_is_no_condition() {
    let documents = documents();
    for query in [
        "query ($off: Boolean = false) { hello @skip(if: $off) }",
        "query ($off: Boolean = false) { ...a } fragment a on Query { ... @skip(if: $off) { hello } }",
    ] {
        let with = |variables: Value| documents.prepare(query, None, vars(variables));
        assert!(with(value!({})).is_ok() && with(value!({"off": true})).is_ok());
        let refusal = with(value!({"off": null})).err().unwrap();
        assert_eq!(refusal.code(), BAD_USER_INPUT);
    }
}

#[test]
fn variables_are_coerced_before_anything_runs() {
    let documents = documents();
    let query = "query ($id: ID!, $filter: Filter, $by: By, $n: Int! = 3, $ratio: Float) {
        deal(id: $id) { id } deals(filter: $filter) { nodes { id } } page(size: $n, ratio: $ratio) }";
    let query = query.replace("$by: By, ", "");
    let with = |variables: Value| {
        documents
            .prepare(&query, None, vars(variables))
            .map(|p| p.variables().clone())
    };
    let seen = with(value!({"id": 7, "unknown": {"a": [1]}})).ok().unwrap();
    assert_eq!(seen, vars(value!({"id": 7, "n": 3})));
    assert!(
        with(value!({"id": "a", "filter": {"min": 1, "colour": "RED", "names": "one"}, "ratio": 1})).is_ok()
    );
    assert!(with(value!({"id": "a", "n": 4.0})).ok().unwrap()["n"] == value!(4));
    for (variables, place) in [
        (value!({}), "\"$id\""),
        (value!({"id": null}), "\"$id\""),
        (value!({"id": 1.5}), "\"$id\""),
        (value!({"id": ["a"]}), "\"$id\""),
        (value!({"id": "a", "n": null}), "\"$n\""),
        (value!({"id": "a", "n": "3"}), "\"$n\""),
        (value!({"id": "a", "n": 3000000000i64}), "\"$n\""),
        (value!({"id": "a", "n": 1.5}), "\"$n\""),
        (value!({"id": "a", "ratio": "1"}), "\"$ratio\""),
        (value!({"id": "a", "filter": 5}), "\"$filter\""),
        (value!({"id": "a", "filter": {}}), "\"min\" of Filter is required"),
        (value!({"id": "a", "filter": {"min": "x"}}), "at \"min\""),
        (
            value!({"id": "a", "filter": {"min": 1, "max": null}}),
            "at \"max\"",
        ),
        (
            value!({"id": "a", "filter": {"min": 1, "colour": "BLUE"}}),
            "at \"colour\"",
        ),
        (
            value!({"id": "a", "filter": {"min": 1, "names": ["a", 5]}}),
            "at \"names.1\"",
        ),
        (
            value!({"id": "a", "filter": {"min": 1, "nothing": 5}}),
            "at \"nothing\"",
        ),
    ] {
        let refusal = with(variables.clone())
            .err()
            .unwrap_or_else(|| panic!("passed: {variables}"));
        assert_eq!(refusal.code(), BAD_USER_INPUT, "{variables}");
        assert!(
            refusal.errors[0].message.contains(place),
            "{variables}: {refusal}"
        );
        assert!(!refusal.errors[0].locations.is_empty());
    }
    let by = "query ($by: By!) { find(by: $by) }";
    for (variables, fine) in [
        (value!({"by": {"id": "a"}}), true),
        (value!({"by": {"id": "a", "title": "b"}}), false),
        (value!({"by": {"id": null}}), false),
        (value!({"by": {}}), false),
    ] {
        assert_eq!(
            documents.prepare(by, None, vars(variables.clone())).is_ok(),
            fine,
            "{variables}"
        );
    }
    let ids = Value::List(vec![value!("x"); 501]);
    let refusal = documents.prepare(
        "query ($ids: [ID!]!) { dealsBy(ids: $ids) { id } }",
        None,
        vars(value!({"ids": (ids)})),
    );
    assert_eq!(refusal.err().unwrap().code(), BAD_USER_INPUT);
}

#[test]
fn variables_stand_only_where_their_types_allow() {
    for (query, fine) in [
        ("query ($id: ID) { deal(id: $id) { id } }", false),
        ("query ($id: ID = \"x\") { deal(id: $id) { id } }", true),
        ("query ($id: ID = null) { deal(id: $id) { id } }", false),
        ("query ($id: String!) { deal(id: $id) { id } }", false),
        ("query ($n: Int) { page(size: $n) }", true),
        ("query ($n: Int!) { deals(first: $n) { nodes { id } } }", true),
        (
            "query ($n: Int!) { deals(filter: {min: $n}) { nodes { id } } }",
            true,
        ),
        (
            "query ($n: Int) { deals(filter: {min: $n}) { nodes { id } } }",
            false,
        ),
        (
            "query ($n: Int!) { deals(filter: {min: $n, colour: BLUE}) { nodes { id } } }",
            false,
        ),
        (
            "query ($n: Int!) { deals(filter: {min: $n, colour: \"RED\"}) { nodes { id } } }",
            false,
        ),
        (
            "query ($n: Int!) { deals(filter: {min: $n, other: 1}) { nodes { id } } }",
            false,
        ),
        (
            "query ($n: Int!) { deals(filter: {max: $n}) { nodes { id } } }",
            false,
        ),
        (
            "query ($s: String) { deals(filter: {min: 1, names: [$s]}) { nodes { id } } }",
            false,
        ),
        (
            "query ($s: [String!]!) { deals(filter: {min: 1, names: $s}) { nodes { id } } }",
            true,
        ),
        ("query ($s: String!) { find(by: {title: $s}) }", true),
        ("query ($s: String = \"x\") { find(by: {title: $s}) }", false),
        ("query ($b: Boolean) { hello @skip(if: $b) }", false),
        (
            "query ($b: String!) { ...f @skip(if: $b) } fragment f on Query { hello }",
            false,
        ),
        (
            "query ($id: ID) { ...f } fragment f on Query { deal(id: $id) { id } }",
            false,
        ),
        (
            "query ($id: ID!) { ...f } fragment f on Query { me { ...g } } fragment g on Query { deal(id: $id) { id } }",
            true,
        ),
        ("query ($name: String!) { __type(name: $name) { name } }", true),
        ("query { deal(id: $id) { id } }", false),
        ("query ($id: ID!) { hello }", false),
    ] {
        let given = vars(value!({"id": "a", "n": 1, "s": "s", "b": true, "name": "Deal"}));
        let given = if query.contains("[String!]!") {
            vars(value!({"s": ["s"]}))
        } else {
            given
        };
        let result = documents().prepare(query, None, given);
        match result {
            Ok(_) => assert!(fine, "passed: {query}"),
            Err(refusal) => {
                assert!(!fine, "{query}: {refusal}");
                assert_eq!(refusal.code(), VALIDATION_FAILED, "{query}: {refusal}");
            }
        }
    }
}

#[test]
fn a_subscription_has_one_root_field() {
    for (query, fine) in [
        ("subscription { tick }", true),
        ("subscription { ...f } fragment f on Ticks { tick }", true),
        ("subscription { tick tick }", true),
        ("subscription { tick tock }", false),
        ("subscription { tick other: tick }", false),
        ("subscription { ...f tock } fragment f on Ticks { tick }", false),
        ("subscription { __typename }", false),
        ("subscription { tick __typename }", false),
        (
            "subscription ($b: Boolean! = true) { tick @include(if: $b) }",
            false,
        ),
        ("subscription { ... @skip(if: false) { tick } }", false),
    ] {
        assert_eq!(prepare(query).is_ok(), fine, "{query}");
    }
}

#[test]
fn rules_that_validation_leaves_out_are_kept() {
    for query in [
        "{ __typename(a: 1) }",
        "{ __typename { a } }",
        "{ __typename @unknown }",
        "{ ...on } fragment on on Query { hello }",
        "{ nothing }",
        "{ hello { a } }",
        "{ me }",
        "{ hello hello: page }",
        "{ hello } { page }",
        "query a { hello } query a { page }",
        "{ hello } fragment f on Query { page }",
    ] {
        assert_eq!(code(query), VALIDATION_FAILED, "{query}");
    }
    let sdl = Schema::new(Query, EmptyMutation, Ticks).sdl();
    let documents = Documents::new(
        Limits::default(),
        &sdl,
        validator(Schema::build(Query, EmptyMutation, Ticks)),
    );
    let refusal = documents
        .prepare("mutation { a }", None, Variables::default())
        .err()
        .unwrap();
    assert_eq!(refusal.code(), VALIDATION_FAILED);
}

/// The reference implementation's introspection query, as clients send it.
const INTROSPECTION: &str = "query IntrospectionQuery { __schema { description queryType { name kind } mutationType { name kind }
  subscriptionType { name kind } types { ...FullType } directives { name description isRepeatable locations
  args(includeDeprecated: true) { ...InputValue } } } }
  fragment FullType on __Type { kind name description specifiedByURL isOneOf
    fields(includeDeprecated: true) { name description args(includeDeprecated: true) { ...InputValue } type { ...TypeRef }
      isDeprecated deprecationReason }
    inputFields(includeDeprecated: true) { ...InputValue } interfaces { ...TypeRef }
    enumValues(includeDeprecated: true) { name description isDeprecated deprecationReason } possibleTypes { ...TypeRef } }
  fragment InputValue on __InputValue { name description type { ...TypeRef } defaultValue isDeprecated deprecationReason }
  fragment TypeRef on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name
    ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } } } } } } } }";

#[tokio::test]
async fn introspection_is_bounded_apart_from_data() {
    let answer = run(INTROSPECTION, value!({})).await;
    assert!(answer.errors.is_empty(), "{:?}", answer.errors);
    assert_eq!(cost(INTROSPECTION, value!({})), 50);
    for query in [
        "{ __schema { types { fields { type { fields { type { fields { name } } } } } } } }",
        "{ __type(name: \"Query\") { ...t } } fragment t on __Type { fields { type { ...u } } } fragment u on __Type { interfaces { possibleTypes { name } } }",
        "{ a: __schema { types { name } } b: __schema { types { name } } }",
    ] {
        assert_eq!(code(query), TOO_COMPLEX, "{query}");
    }
    let hidden = documents_with(Limits {
        introspection: false,
        ..Limits::default()
    });
    let code = |query| match hidden.prepare(query, None, Variables::default()) {
        Ok(_) => "passed".to_owned(),
        Err(refusal) => refusal.code().to_owned(),
    };
    assert_eq!(code(INTROSPECTION), INTROSPECTION_DISABLED);
    assert_eq!(
        code("{ ...f } fragment f on Query { __type(name: \"Deal\") { name } }"),
        INTROSPECTION_DISABLED
    );
    assert_eq!(code("{ __typename hello }"), "passed");
}

#[test]
fn the_cost_follows_the_objects_that_are_asked_for() {
    for (query, variables, expected) in [
        ("{ hello page }", value!({}), 2),
        ("{ deal(id: 1) { id title } }", value!({}), 1),
        ("{ deals(first: 10) { nodes { id } } }", value!({}), 11),
        (
            "{ deals(first: 10) { edges { cursor node { id } } pageInfo { hasNextPage } } }",
            value!({}),
            12,
        ),
        ("{ deals { nodes { id } } }", value!({}), 26),
        (
            "{ deals(last: 3) { ...f } } fragment f on DealConnection { nodes { id } }",
            value!({}),
            4,
        ),
        (
            "query ($n: Int) { deals(first: $n) { nodes { id } } }",
            value!({"n": 40}),
            41,
        ),
        (
            "query ($n: Int) { deals(first: $n) { nodes { id } } }",
            value!({}),
            26,
        ),
        (
            "query ($n: Int = 2) { deals(last: $n) { nodes { id } } }",
            value!({}),
            3,
        ),
        (
            "{ stages { name deals(first: 5) { nodes { id } } } }",
            value!({}),
            10 * (1 + 1 + 5),
        ),
        (
            "query ($n: Int!) { stages { name deals(first: $n) { nodes { id } } } }",
            value!({"n": 5}),
            70,
        ),
        ("{ dealsBy(ids: [1, 2, 3]) { id } }", value!({}), 3),
        (
            "query ($ids: [ID!]!) { dealsBy(ids: $ids) { id } }",
            value!({"ids": ["a", "b"]}),
            2,
        ),
        (
            "mutation { a: setTitle(id: 1) { id } b: setTitle(id: 2) { id } }",
            value!({}),
            20,
        ),
        ("{ me { me { hello } } }", value!({}), 2),
        ("subscription { tick }", value!({}), 1),
    ] {
        assert_eq!(cost(query, variables), expected, "{query}");
    }
    let documents = documents_with(Limits {
        cost: 100,
        ..Limits::default()
    });
    let query = "query ($n: Int!) { deals(first: $n) { nodes { id } } }";
    let with = |n: i32| documents.prepare(query, None, vars(value!({"n": n})));
    assert_eq!(with(99).ok().unwrap().cost(), 100);
    assert_eq!(with(100).err().unwrap().code(), TOO_COMPLEX);
    assert_eq!(with(101).err().unwrap().code(), BAD_USER_INPUT);
    assert_eq!(with(-1).err().unwrap().code(), BAD_USER_INPUT);
    assert_eq!(code("{ deals(first: 101) { nodes { id } } }"), BAD_USER_INPUT);
    assert_eq!(code("{ deals(last: -1) { nodes { id } } }"), BAD_USER_INPUT);
}

#[test]
fn documents_are_checked_once_and_the_cache_is_bounded() {
    let documents = documents_with(Limits {
        cache_bytes: 200_000,
        ..Limits::default()
    });
    let first = documents
        .prepare("{ hello }", None, Variables::default())
        .ok()
        .unwrap();
    let second = documents
        .prepare("{ hello }", None, Variables::default())
        .ok()
        .unwrap();
    assert!(Arc::ptr_eq(&first.checked, &second.checked));
    for i in 0..2_000 {
        let query = format!("{{ a{i}: hello }} #{}", "x".repeat(1_000));
        assert!(documents.prepare(&query, None, Variables::default()).is_ok());
    }
    assert!(documents.cache.weight() <= 200_000);
    assert!(documents.cache.len() < 200);
}

/// A selection set of fields, inline fragments and spreads of `f0`–`f5`.
fn selection_set() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("hello".to_owned()),
        Just("x: hello".to_owned()),
        (0..6usize).prop_map(|i| format!("...f{i}")),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop::collection::vec(inner, 1..4).prop_flat_map(|items| {
            let set = items.join(" ");
            prop_oneof![
                Just(format!("me {{ {set} }}")),
                Just(format!("... {{ {set} }}")),
                Just(set.clone())
            ]
        })
    })
}

/// What a walk without memory finds, given up beyond a bound or on a circle.
fn unfolded(
    document: &ExecutableDocument,
    set: &async_graphql::parser::types::SelectionSet,
    left: &mut usize,
) -> Option<usize> {
    use async_graphql::parser::types::Selection;
    let mut fields = 0;
    for selection in &set.items {
        *left = left.checked_sub(1)?;
        fields += match &selection.node {
            Selection::Field(field) => 1 + unfolded(document, &field.node.selection_set.node, left)?,
            Selection::InlineFragment(inline) => unfolded(document, &inline.node.selection_set.node, left)?,
            Selection::FragmentSpread(spread) => {
                let fragment = document.fragments.get(&spread.node.fragment_name.node)?;
                unfolded(document, &fragment.node.selection_set.node, left)?
            }
        };
    }
    Some(fields)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_passes_unfolds_to_what_was_measured(sets in prop::collection::vec(selection_set(), 7)) {
        let limits = Limits { fields: 200, aliases: 1_000, ..Limits::default() };
        let mut query = format!("{{ {} }}", sets[0]);
        for (i, set) in sets[1..].iter().enumerate() {
            query.push_str(&format!(" fragment f{i} on Query {{ {set} }}"));
        }
        let document = async_graphql::parser::parse_query(&query).unwrap();
        let mut work = 0;
        let measured = measure::measure_counted(&document, &limits, &mut work);
        prop_assert!(work <= 2 * query.len(), "{work}");
        let set = match &document.operations {
            async_graphql::parser::types::DocumentOperations::Single(operation) => &operation.node.selection_set.node,
            async_graphql::parser::types::DocumentOperations::Multiple(_) => unreachable!(),
        };
        let walked = unfolded(&document, set, &mut 2_000);
        match measured {
            Ok(()) => prop_assert!(walked.is_some_and(|fields| fields <= 200), "{query}"),
            Err(refusal) if refusal.code() == TOO_COMPLEX => {
                // Refused for its fields, for the selections that lead to them, or for nesting.
                let deep = refusal.errors[0].message.contains("levels");
                let selections = refusal.errors[0].message.contains("selections");
                prop_assert!(deep || selections || walked.is_none_or(|fields| fields > 200), "{refusal} {query}");
            }
            Err(refusal) => prop_assert!(refusal.errors[0].message.contains("spreads itself"), "{refusal}"),
        }
    }

    #[test]
    fn no_text_breaks_the_guard(text in "[{}()\\[\\]a-c$:=!@\".\\\\u0-9 \n#ä]{0,200}") {
        let _ = SHARED.with(|documents| documents.prepare(&text, None, Variables::default()).map(|_| ()));
    }
}

thread_local! {
    static SHARED: Documents = documents();
}
