//! Which licences the dependencies come under, and whether an Apache-2.0 work may ship them.

mod expression;

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

pub use expression::{Expression, ParseError};

use crate::repository::{self, cargo};

/// Licences that dependencies may come under: permissive ones, and MPL-2.0, whose copyleft ends at the files it covers (we
/// change none of those).
pub const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "NCSA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// A dependency that may not be shipped, or of which that can't be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offender {
    /// Name and version of the package.
    pub package: String,
    /// Why.
    pub reason: String,
}

/// What the check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Packages per licence expression, for all that passed.
    pub accepted: BTreeMap<String, usize>,
    /// Those that did not.
    pub offenders: Vec<Offender>,
}

/// Why the dependencies could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `cargo metadata` did not run or failed.
    #[error("`cargo metadata` failed: {0}")]
    Metadata(String),
    /// It printed something unexpected.
    #[error("`cargo metadata` printed something unexpected: {0}")]
    Format(String),
}

/// Checks every package of this workspace's dependency tree on the platform it is built for.
///
/// # Errors
/// If cargo can't list them.
pub fn check() -> Result<Report, Error> {
    let platform = host_platform()?;
    judge(&metadata(&platform)?)
}

fn host_platform() -> Result<String, Error> {
    let output = Command::new("rustc")
        .args(["--print", "host-tuple"])
        .current_dir(repository::root())
        .output()
        .map_err(|error| Error::Metadata(format!("rustc does not run: {error}")))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn metadata(platform: &str) -> Result<String, Error> {
    let output = cargo(&["metadata", "--format-version", "1", "--locked", "--filter-platform", platform])
        .output()
        .map_err(|error| Error::Metadata(error.to_string()))?;
    if output.status.success() {
        return String::from_utf8(output.stdout).map_err(|error| Error::Format(error.to_string()));
    }
    Err(Error::Metadata(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn judge(metadata: &str) -> Result<Report, Error> {
    let metadata: Value = serde_json::from_str(metadata).map_err(|error| Error::Format(error.to_string()))?;
    let packages = metadata["packages"].as_array().ok_or_else(|| Error::Format("no list of packages".to_owned()))?;
    let mut report = Report::default();
    for package in packages {
        let text = package["license"].as_str();
        match verdict(text) {
            Ok(()) => *report.accepted.entry(text.unwrap_or_default().to_owned()).or_default() += 1,
            Err(reason) => {
                let field = |name: &str| package[name].as_str().unwrap_or("?").to_owned();
                let package = format!("{} {}", field("name"), field("version"));
                report.offenders.push(Offender { package, reason });
            }
        }
    }
    Ok(report)
}

fn verdict(licence: Option<&str>) -> Result<(), String> {
    let text = licence.ok_or("it names no licence expression; read its licence file and decide")?;
    let expression: Expression = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    if expression.allows(&ALLOWED) {
        return Ok(());
    }
    Err(format!("{text:?} can't be met with the licences that are allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_under_the_gpl_or_without_a_licence_is_reported() {
        let metadata = r#"{"packages": [
            {"name": "good", "version": "1.0.0", "license": "MIT OR GPL-3.0"},
            {"name": "viral", "version": "2.0.0", "license": "GPL-3.0-only"},
            {"name": "silent", "version": "3.0.0", "license": null}]}"#;
        let report = judge(metadata).unwrap();
        assert_eq!(report.accepted, BTreeMap::from([("MIT OR GPL-3.0".to_owned(), 1)]));
        let offenders: Vec<&str> = report.offenders.iter().map(|offender| offender.package.as_str()).collect();
        assert_eq!(offenders, ["viral 2.0.0", "silent 3.0.0"]);
    }

    #[test]
    fn output_without_packages_is_an_error() {
        assert!(matches!(judge("{}"), Err(Error::Format(_))));
        assert!(matches!(judge("not JSON"), Err(Error::Format(_))));
    }
}
