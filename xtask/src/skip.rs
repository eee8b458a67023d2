//! What a test does when something it needs is missing: skip loudly, or fail where nothing may be skipped.

use std::env;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};

/// Environment variable that names a file to which every skipped test adds a line, for `cargo xtask test`'s summary.
pub const RECORD: &str = "TIDEGATE_SKIPPED";

/// True if `CI=true`: whatever a test needs must then be there.
#[must_use]
pub fn forbidden() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}

/// Announces that the test `what` is skipped, and why: on standard error even where the test harness captures output, and
/// in the file that [`RECORD`] names.
///
/// # Panics
/// With `CI=true`, where a skipped test counts as a failed one.
pub fn announce(what: &str, reason: &dyn Display) {
    assert!(!forbidden(), "{what} can't run, and CI=true forbids skipping it: {reason}");
    let line = format!("SKIPPED {what}: {reason}\n");
    // Not `eprintln!`: the harness hides what a passing test prints with it.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(path) = env::var_os(RECORD)
        && let Ok(mut record) = File::options().create(true).append(true).open(path)
    {
        let _ = record.write_all(line.as_bytes());
    }
}
