//! Short runs of what is too long for a test: every benchmark once, every load scenario, and the demo as the README
//! starts it.

mod benchmarks;
mod demo;
mod load;
mod process;

use serde_json::Value;

pub use benchmarks::benchmarks;
pub use demo::demo;
pub use load::load;

use crate::repository::cargo;

/// What cargo knows about this workspace's own packages.
pub(crate) fn metadata() -> Result<Value, String> {
    let output = cargo(&["metadata", "--format-version", "1", "--locked", "--no-deps"])
        .output()
        .map_err(|error| format!("`cargo metadata` does not run: {error}"))?;
    serde_json::from_slice(&output.stdout).map_err(|error| {
        format!("`cargo metadata` printed no JSON ({error}): {}", String::from_utf8_lossy(&output.stderr).trim())
    })
}
