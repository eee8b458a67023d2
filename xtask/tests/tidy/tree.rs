//! The repository's files, and rules about their names.

use std::fs;
use std::path::{Path, PathBuf};

use xtask::repository;

use crate::assert_none;

/// Folders that hold no source: built, fetched or generated.
const FOREIGN: [&str; 5] = [".git", ".tools", "target", "corpus", "artifacts"];

/// Names that say nothing about what is inside.
const DRAWERS: [&str; 8] = ["util", "utils", "helper", "helpers", "common", "misc", "shared", "stuff"];

/// A file with its path from the root, and its text.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every file with this extension, in the order of their paths.
pub(crate) fn sources(extension: &str) -> Vec<Source> {
    let root = repository::root();
    let mut sources: Vec<Source> = files(&root)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| Source {
            path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
            text: fs::read_to_string(&path).unwrap(),
        })
        .collect();
    sources.sort_by(|left, right| left.path.cmp(&right.path));
    sources
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let kept = entries.filter(|entry| !FOREIGN.iter().any(|name| entry.file_name() == *name));
    kept.flat_map(|entry| if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { vec![entry.path()] })
        .collect()
}

#[test]
fn no_file_or_module_is_a_drawer() {
    let is_drawer = |path: &str| {
        let without_extension = path.trim_end_matches(".rs");
        without_extension.split('/').any(|part| DRAWERS.contains(&part))
    };
    assert!(is_drawer("shards/src/utils.rs") && is_drawer("src/common/mod.rs") && !is_drawer("src/command.rs"));
    let findings: Vec<String> =
        sources("rs").into_iter().map(|source| source.path).filter(|path| is_drawer(path)).collect();
    assert_none(&findings, "name a module after what it is, and put what belongs elsewhere there");
}

#[test]
fn the_repository_is_found() {
    for (extension, path) in [("rs", "xtask/src/lib.rs"), ("toml", "Cargo.toml"), ("md", "CHANGELOG.md")] {
        assert!(sources(extension).iter().any(|source| source.path == path), "{path} is not found");
    }
}
