//! Following histories: what it costs PostgreSQL, and what followers are told besides events.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dealstream::config::Pace;
use dealstream::events::feed::{Reason, Signal};
use dealstream::events::{Hub, Position};
use futures::{Stream, StreamExt, future};

use crate::support::counter::{self, Counts};
use crate::support::{Client, TestApp};

const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any test: what happens then happens without it.
const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(20);

type Signals = Pin<Box<dyn Stream<Item = Signal> + Send>>;

/// A hub of its own, as another instance would have it.
fn hub(app: &TestApp, pace: Pace) -> Arc<Hub> {
    Hub::new(app.app.db.clone(), pace)
}

fn follow(hub: &Arc<Hub>, client: &Client, after: Option<Position>) -> Signals {
    Box::pin(hub.follow(client.viewer().tenant_id, after))
}

async fn next(signals: &mut Signals) -> Signal {
    let signal = tokio::time::timeout(PATIENCE, signals.next()).await;
    signal.expect("a signal comes").expect("the stream goes on")
}

async fn up_to_date(signals: &mut Signals) -> Position {
    match next(signals).await {
        Signal::UpToDate(position) => position,
        other => panic!("{other:?}"),
    }
}

/// The positions of events up to `UpToDate`.
async fn replayed(signals: &mut Signals) -> Vec<i64> {
    let mut positions = Vec::new();
    loop {
        match next(signals).await {
            Signal::Event { event, .. } => positions.push(event.position),
            Signal::UpToDate(_) => return positions,
            other => panic!("{other:?}"),
        }
    }
}

async fn position(client: &Client) -> Position {
    client.position().await.parse().unwrap()
}

/// Appends events of no particular meaning, as another instance would: without a hint to anybody.
async fn append(app: &TestApp, client: &Client, count: i64) {
    let tenant = client.viewer().tenant_id;
    app.superuser()
        .await
        .batch_execute(&format!(
            "WITH counted AS (UPDATE histories SET position = position + {count} WHERE tenant_id = '{tenant}' RETURNING position)
             INSERT INTO events (tenant_id, position, id, occurred_at, entity, record_id, kind, change)
             SELECT '{tenant}', counted.position - {count} + n, gen_random_uuid(), now(), 'deal', gen_random_uuid(), 'UPDATED', '{{}}'
               FROM counted, generate_series(1, {count}) AS n"
        ))
        .await
        .unwrap();
}

/// The statements that read; the others begin and end transactions, and prepare connections.
fn questions(counts: &Counts) -> Vec<&str> {
    let statements = counts.statements.iter().map(String::as_str);
    statements.filter(|it| it.contains("SELECT")).collect()
}

/// Lets time pass until something has been sent to PostgreSQL.
async fn until_sent(what: impl Fn(&Counts) -> bool) -> Counts {
    let mut sent = Counts::default();
    let wait = async {
        while !what(&sent) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            sent.statements.extend(counter::take().statements);
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("waited in vain"));
    sent
}

fn is_poll(statement: &str) -> bool {
    statement.contains("unnest") && statement.contains("histories")
}

#[tokio::test]
async fn one_statement_asks_for_all_tenants_that_are_followed_and_none_when_nothing_is() {
    counter::install();
    let app = TestApp::new().await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(app.tenant().await);
    }
    let pace = Pace {
        poll: SOON,
        linger: Duration::ZERO,
        ..Pace::default()
    };
    let hub = hub(&app, pace);
    let mut all: Vec<_> = clients.iter().map(|client| follow(&hub, client, None)).collect();
    for signals in &mut all {
        up_to_date(signals).await;
    }
    app.settle().await;
    counter::take();
    let polls = |counts: &Counts| counts.statements.iter().filter(|it| is_poll(it)).count();
    let sent = until_sent(|counts| polls(counts) == 3).await;
    assert_eq!(questions(&sent).len(), 3, "the polls, and nothing else: {sent:?}");
    // Of those that moved on, each is read, and no other.
    for client in &clients[..2] {
        append(&app, client, 1).await;
    }
    for signals in &mut all[..2] {
        assert!(matches!(next(signals).await, Signal::Event { .. }));
    }
    let sent = until_sent(|counts| polls(counts) >= 2).await;
    let strangers: Vec<_> = sent
        .statements
        .iter()
        .filter(|it| it.contains("app.tenant_id"))
        .filter(|it| {
            let of = |client: &Client| it.contains(&client.viewer().tenant_id.to_string());
            !clients[..2].iter().any(of)
        })
        .collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    drop(all);
    // The poll that finds nobody is the last thing that happens.
    let held = Arc::downgrade(&hub);
    drop(hub);
    let settled = async {
        loop {
            counter::take();
            tokio::time::sleep(SOON * 5).await;
            if counter::take().statements.is_empty() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.unwrap();
    assert!(held.upgrade().is_none(), "and nothing holds the hub");
}

#[tokio::test]
async fn those_who_begin_at_once_share_a_read_and_those_who_resume_from_memory_need_none() {
    counter::install();
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let pace = Pace {
        poll: NEVER,
        ..Pace::default()
    };
    let hub = hub(&app, pace);
    app.settle().await;
    counter::take();
    let mut all: Vec<_> = (0..200).map(|_| follow(&hub, &client, None)).collect();
    let begin = future::join_all(all.iter_mut().map(up_to_date)).await[0];
    let sent = counter::take();
    assert!(
        questions(&sent).len() <= 3,
        "the first who asks, and all who ask meanwhile: {sent:?}"
    );

    append(&app, &client, 20).await;
    let reached = position(&client).await;
    hub.hint(client.viewer().tenant_id, reached);
    for signals in &mut all {
        for _ in 0..20 {
            assert!(matches!(next(signals).await, Signal::Event { .. }));
        }
    }
    app.settle().await;
    counter::take();
    for back in 0..=20 {
        let after = Position {
            position: begin.position + back,
            ..begin
        };
        let mut signals = follow(&hub, &client, Some(after));
        let expected: Vec<_> = (after.position + 1..=reached.position).collect();
        assert_eq!(replayed(&mut signals).await, expected);
    }
    // Nor when nobody followed meanwhile: most come back soon.
    drop(all);
    let mut signals = follow(&hub, &client, Some(begin));
    assert_eq!(replayed(&mut signals).await.len(), 20);
    assert_eq!(counter::take().statements, Vec::<String>::new());
}

#[tokio::test]
async fn who_begins_sees_what_was_committed_before_though_no_hint_told_of_it() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let pace = Pace {
        poll: NEVER,
        ..Pace::default()
    };
    let hub = hub(&app, pace);
    let mut first = follow(&hub, &client, None);
    let begin = up_to_date(&mut first).await;
    for round in 0..20 {
        append(&app, &client, 1).await;
        let at = up_to_date(&mut follow(&hub, &client, None)).await;
        assert_eq!(at.position, begin.position + round * 3 + 1);
        // Ahead of all that this process has heard of.
        append(&app, &client, 1).await;
        let ahead = position(&client).await;
        let at = up_to_date(&mut follow(&hub, &client, Some(ahead))).await;
        assert_eq!(at, ahead);
        append(&app, &client, 1).await;
        hub.hint(client.viewer().tenant_id, position(&client).await);
        let mut signals = follow(&hub, &client, Some(ahead));
        assert_eq!(replayed(&mut signals).await, [ahead.position + 1]);
    }
}

#[tokio::test]
async fn a_storm_of_those_who_missed_something_is_served_from_few_reads() {
    counter::install();
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let begin = position(&client).await;
    append(&app, &client, 900).await;
    // A server that has just started: nothing is in memory.
    let pace = Pace {
        poll: NEVER,
        ..Pace::default()
    };
    let hub = hub(&app, pace);
    app.settle().await;
    counter::take();
    let mut all: Vec<_> = (0..300)
        .map(|number| {
            let after = Position {
                position: begin.position + (number * 37) % 900,
                ..begin
            };
            (after.position, follow(&hub, &client, Some(after)))
        })
        .collect();
    let told = future::join_all(all.iter_mut().map(|(_, signals)| replayed(signals))).await;
    for ((after, _), told) in all.iter().zip(told) {
        assert_eq!(told, (after + 1..=begin.position + 900).collect::<Vec<_>>());
    }
    let sent = counter::take();
    let read = questions(&sent).len();
    assert!(
        read <= 2 * (1 + 900 / 128 + 2),
        "{read} statements for 300 followers: {sent:?}"
    );
}

#[tokio::test]
async fn those_far_behind_get_everything_in_batches() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let begin = position(&client).await;
    append(&app, &client, 2600).await;
    let hub = hub(&app, Pace::default());
    let mut all: Vec<_> = [0, 1, 700, 1500, 1577, 2599]
        .into_iter()
        .map(|back| {
            let after = Position {
                position: begin.position + back,
                ..begin
            };
            (after.position, follow(&hub, &client, Some(after)))
        })
        .collect();
    // While more comes.
    let writing = async {
        for _ in 0..10 {
            append(&app, &client, 150).await;
        }
    };
    let end = begin.position + 2600 + 1500;
    let reading = future::join_all(all.iter_mut().map(async |(after, signals)| {
        let mut last = *after;
        while last < end {
            if let Signal::Event { event, .. } = next(signals).await {
                assert_eq!(event.position, last + 1);
                last += 1;
            }
        }
    }));
    futures::join!(writing, reading);
}

#[tokio::test]
async fn another_history_is_noticed_wherever_it_stands() {
    let app = TestApp::new().await;
    let pace = Pace {
        poll: SOON,
        ..Pace::default()
    };
    let hub = hub(&app, pace);
    let cases = [
        ("epoch = epoch / 2", Reason::HistoryReplaced),
        (
            "epoch = epoch / 2, position = position + 5",
            Reason::HistoryReplaced,
        ),
        (
            "epoch = epoch / 2, position = position - 1",
            Reason::HistoryReplaced,
        ),
        // Events are lost, and nobody said so.
        ("position = position - 1", Reason::PositionUnknown),
    ];
    for (change, reason) in cases {
        let client = app.tenant().await;
        let mut signals = follow(&hub, &client, None);
        let begin = up_to_date(&mut signals).await;
        let tenant = client.viewer().tenant_id;
        app.superuser()
            .await
            .batch_execute(&format!(
                "UPDATE histories SET {change} WHERE tenant_id = '{tenant}'"
            ))
            .await
            .unwrap();
        let told = next(&mut signals).await;
        assert!(
            matches!(told, Signal::MustRefetch(it) if it == reason),
            "{change}: {told:?}"
        );
        assert!(signals.next().await.is_none());
        let told = next(&mut follow(&hub, &client, Some(begin))).await;
        assert!(matches!(told, Signal::MustRefetch(it) if it == reason));
    }
}

#[tokio::test]
async fn a_stream_that_has_moved_on_says_again_how_far_it_has_come() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let pace = Pace {
        poll: SOON,
        retell: Duration::from_millis(200),
        ..Pace::default()
    };
    let hub = hub(&app, pace);
    let mut signals = follow(&hub, &client, None);
    let begin = up_to_date(&mut signals).await;
    for round in 1..=3 {
        append(&app, &client, 2).await;
        for _ in 0..2 {
            assert!(matches!(next(&mut signals).await, Signal::Event { .. }));
        }
        let moved_on = tokio::time::Instant::now();
        let told = up_to_date(&mut signals).await;
        assert_eq!(told.position, begin.position + round * 2);
        assert!(moved_on.elapsed() <= PATIENCE);
        // And not again while nothing happens.
        let more = tokio::time::timeout(pace.retell * 2, signals.next()).await;
        assert!(more.is_err(), "{more:?}");
    }
}

#[tokio::test]
async fn a_follower_who_waits_is_small() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let hub = hub(&app, Pace::default());
    let signals = hub.follow(client.viewer().tenant_id, None);
    assert!(size_of_val(&signals) <= 1024, "{} bytes", size_of_val(&signals));
}
