//! Logging: text for people, or one JSON object a line for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{Config, LogFormat};

/// Begins to log as configured.
///
/// # Errors
/// A sentence for the operator when the filter cannot be read.
pub fn init(config: &Config) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(&config.log).map_err(|error| format!("RUST_LOG is not a log filter: {error}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    match config.log_format {
        // Colours are for people who watch; in a file they are noise.
        LogFormat::Text if !std::io::stderr().is_terminal() => log.with_ansi(false).init(),
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}
