//! The program `sleepers`, small: what it measures is done, and within a memory that grows with what waits, only.
#![allow(clippy::unwrap_used)]

use std::process::Command;

/// At the measured 8 KiB for each of them, the empty process included, half of this is used.
const LIMIT_MIB: u32 = 128;

#[test]
fn thousands_wait_and_are_recovered_in_little_memory() {
    let output = Command::new(env!("CARGO_BIN_EXE_sleepers"))
        .args(["--n", "5000", "--idle-secs", "1"])
        .args(["--limit-mib", &LIMIT_MIB.to_string()])
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    println!("{table}");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{table}{complaints}");
    // A row for each database, way of waiting, and whether it was started or recovered.
    let rows = |database: &str| {
        table
            .lines()
            .filter(|row| row.starts_with(database))
            .count()
    };
    assert_eq!(
        (rows("| postgres |"), rows("| sqlite |")),
        (4, 4),
        "{table}"
    );
}
