//! Where things lie, and cargo started there.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Root of the repository that cargo runs this in; without cargo, of the one that this crate was built in. The two differ
/// where clones share a target directory: cargo doesn't build a crate anew because its folder has moved.
#[must_use]
pub fn root() -> PathBuf {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run_in = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let holds_us = |folder: &&Path| folder.join("xtask/Cargo.toml").is_file();
    run_in
        .as_deref()
        .and_then(|folder| folder.ancestors().find(holds_us))
        .unwrap_or_else(|| built_in.parent().unwrap_or(built_in))
        .to_path_buf()
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
