//! Log output of the binary.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;

/// Installs the process's log output on stderr. `filter` has the syntax of `RUST_LOG`, for example
/// `info` or `info,segno_server::recovery=debug`.
pub fn init(format: LogFormat, filter: &str) -> Result<(), String> {
    let ansi = std::io::stderr().is_terminal();
    install(format, filter, std::io::stderr, ansi)
}

/// As [`init`], but into `writer`.
pub fn init_to<W>(format: LogFormat, filter: &str, writer: W) -> Result<(), String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    install(format, filter, writer, false)
}

fn install<W>(format: LogFormat, filter: &str, writer: W, ansi: bool) -> Result<(), String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| format!("SEGNO_LOG (--log) is not a log filter: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Reporting that stderr is gone, on stderr, would panic in the middle of a request.
        .log_internal_errors(false)
        .with_ansi(ansi)
        .with_writer(writer);
    let result = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|error| format!("cannot install the log output: {error}"))
}
