//! Where things lie, and cargo started there.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Root of the repository that this crate was built in.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Folder of fetched tools: `TIDEGATE_TOOLS`, or `.tools` in the repository (which git ignores).
#[must_use]
pub fn tools() -> PathBuf {
    env::var_os("TIDEGATE_TOOLS").map_or_else(|| root().join(".tools"), PathBuf::from)
}

/// A cargo command in the repository's root, by the cargo that started us if one did.
#[must_use]
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}
