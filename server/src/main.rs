//! The `segno` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    segno_server::cli::main()
}
