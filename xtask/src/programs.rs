//! The workspace's programs, built by cargo.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::repository::cargo;
use crate::steps::{self, Outcome};

/// How they are built: a profile of the workspace's `Cargo.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As users run them.
    Release,
    /// As tests run them.
    Ci,
}

impl Profile {
    /// Its name, also of its folder under cargo's target directory.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Ci => "ci",
        }
    }
}

/// Builds all programs; returns the folder that holds them.
///
/// # Errors
/// What became of the build instead.
pub fn build(profile: Profile) -> Result<PathBuf, Outcome> {
    match steps::command(&mut cargo(&["build", "--workspace", "--locked", "--profile", profile.name()])) {
        Outcome::Passed => {}
        failure => return Err(failure),
    }
    let metadata = metadata().map_err(Outcome::failed)?;
    let target = metadata["target_directory"].as_str();
    let target = target.ok_or_else(|| Outcome::failed("`cargo metadata` names no target directory"))?;
    Ok(Path::new(target).join(profile.name()))
}

/// What cargo knows about this workspace's own packages.
pub(crate) fn metadata() -> Result<Value, String> {
    let output = cargo(&["metadata", "--format-version", "1", "--locked", "--no-deps"])
        .output()
        .map_err(|error| format!("`cargo metadata` does not run: {error}"))?;
    serde_json::from_slice(&output.stdout).map_err(|error| {
        format!("`cargo metadata` printed no JSON ({error}): {}", String::from_utf8_lossy(&output.stderr).trim())
    })
}
