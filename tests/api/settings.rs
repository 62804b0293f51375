//! The settings as people meet them.

use std::collections::BTreeSet;

use clap::{Args, Command};
use dealstream::config::Config;

/// Variables of the example that are not the server's own settings: the private PostgreSQL and `compose.yaml` read them.
const OTHERS: [&str; 2] = ["PG_BINDIR", "POSTGRES_PASSWORD"];

#[test]
fn the_example_of_settings_names_every_setting_and_nothing_else() {
    let example = include_str!("../../.env.example");
    let shown: BTreeSet<&str> = example
        .lines()
        .filter_map(|line| line.strip_prefix("# ")?.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(|it| it.is_ascii_uppercase() || it == '_') && !OTHERS.contains(name))
        .collect();
    let command = Config::augment_args(Command::new("dealstream"));
    let settings: BTreeSet<&str> = command
        .get_arguments()
        .filter_map(|it| it.get_env()?.to_str())
        .collect();
    assert_eq!(shown, settings);
}

#[test]
fn the_example_of_settings_shows_the_defaults() {
    let example = include_str!("../../.env.example");
    let command = Config::augment_args(Command::new("dealstream"));
    for setting in command.get_arguments() {
        let (Some(name), [default]) = (
            setting.get_env().and_then(|it| it.to_str()),
            setting.get_default_values(),
        ) else {
            continue;
        };
        let line = format!("# {name}={}", default.to_str().unwrap());
        assert!(
            example.lines().any(|it| it == line),
            "`{line}` is not in .env.example"
        );
    }
}

#[test]
fn there_are_connections_for_each_thread_unless_it_is_told_how_many() {
    let of = |threads, database_connections| {
        let config = Config {
            threads: Some(threads),
            database_connections,
            ..Config::defaults()
        };
        config.database_connections()
    };
    let usual = [1, 2, 3, 8, 100].map(|threads| of(threads, None));
    assert_eq!(usual, [16, 16, 24, 64, 64]);
    assert_eq!(of(4, Some(5)), 5);
}

#[test]
fn the_wire_keeps_to_how_many_may_subscribe() {
    let config = Config {
        streams_per_user: 7,
        streams_per_tenant: 11,
        ..Config::defaults()
    };
    let settings = dealstream::http::Settings::of(&config, false);
    assert_eq!((settings.streams_per_user, settings.streams_per_tenant), (7, 11));
}
