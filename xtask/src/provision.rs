//! What the tests need beside Rust: build tools, Java and Maven for Kafka, a Chromium, and kosoku's WebSocket cases.
//!
//! On Debian and as root, packages that are missing are installed; elsewhere it is said which they are. What comes from
//! Maven and PyPI goes to the tools folder and nowhere else.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::kafka;
use crate::repository;

/// kosoku's version: the Autobahn cases that the WebSocket codec is held against.
const KOSOKU: &str = "kosoku==0.1.0";

/// Names under which a Chromium may be installed, best first.
const CHROMIUMS: [&str; 5] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome"];

/// A command that must be there, and the Debian packages that bring it.
struct Need {
    what: &'static str,
    packages: &'static [&'static str],
    is_met: fn() -> bool,
}

const NEEDS: [Need; 7] = [
    Need { what: "a C compiler and make", packages: &["build-essential"], is_met: || runs("cc") && runs("make") },
    Need { what: "perl, to build OpenSSL", packages: &["perl"], is_met: || on_path("perl").is_some() },
    Need { what: "Java 17 or later", packages: &["openjdk-17-jre-headless"], is_met: || kafka::find_java().is_ok() },
    Need { what: "Maven", packages: &["maven"], is_met: || on_path("mvn").is_some() },
    Need { what: "Chromium", packages: &["chromium"], is_met: || chromium().is_some() },
    Need { what: "nginx, to compare the proxy with", packages: &["nginx-light"], is_met: || nginx().is_some() },
    Need { what: "Python 3 with venv", packages: &["python3", "python3-venv"], is_met: python_has_venv },
];

/// Installs or fetches everything that is missing. Gives what stays missing, one line each.
#[must_use]
pub fn everything() -> Vec<String> {
    let mut missing = install_packages();
    if let Err(error) = kafka::ensure_jars() {
        missing.push(error.to_string());
    }
    if let Err(reason) = kosoku() {
        missing.push(reason);
    }
    missing
}

/// The Chromium to test with: `CHROMIUM`, or the first that is installed.
#[must_use]
pub fn chromium() -> Option<PathBuf> {
    match env::var_os("CHROMIUM") {
        Some(path) => Some(PathBuf::from(path)).filter(|path| path.is_file()),
        None => CHROMIUMS.iter().find_map(|name| on_path(name)),
    }
}

/// The nginx to compare with.
#[must_use]
pub fn nginx() -> Option<PathBuf> {
    // Debian keeps it where only root's PATH leads.
    let usual = Path::new("/usr/sbin/nginx");
    on_path("nginx").or_else(|| usual.is_file().then(|| usual.to_owned()))
}

/// The kosoku command, fetched from PyPI into the tools folder if it isn't there yet.
///
/// # Errors
/// What went wrong, as text.
pub fn kosoku() -> Result<PathBuf, String> {
    let venv = repository::tools().join("venv");
    let kosoku = venv.join("bin/kosoku");
    if kosoku.is_file() {
        return Ok(kosoku);
    }
    eprintln!("fetching {KOSOKU} into {}", venv.display());
    quietly(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    quietly(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", KOSOKU]))?;
    if kosoku.is_file() { Ok(kosoku) } else { Err(format!("{KOSOKU} brought no command {}", kosoku.display())) }
}

fn install_packages() -> Vec<String> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.is_met)()).collect();
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages.iter().copied()).collect();
    if packages.is_empty() {
        return Vec::new();
    }
    if can_install()
        && let Err(reason) = apt_get(&["update"]).and_then(|()| apt_get(&[&["install"], &packages[..]].concat()))
    {
        eprintln!("{reason}");
    }
    let still = missing.iter().filter(|need| !(need.is_met)());
    still.map(|need| format!("{} is missing: apt-get install {}", need.what, need.packages.join(" "))).collect()
}

fn apt_get(arguments: &[&str]) -> Result<(), String> {
    eprintln!("apt-get {}", arguments.join(" "));
    let mut command = Command::new("apt-get");
    command.args(["--quiet=2", "--yes", "--no-install-recommends"]).args(arguments);
    quietly(command.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// True on a Debian where we are root (user id 0 owns our own process).
fn can_install() -> bool {
    use std::os::unix::fs::MetadataExt;
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    is_root && Path::new("/etc/debian_version").exists() && on_path("apt-get").is_some()
}

fn python_has_venv() -> bool {
    quietly(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_ok()
}

fn runs(program: &str) -> bool {
    quietly(Command::new(program).arg("--version")).is_ok()
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// Runs a command without showing its output, unless it fails: then that is the error.
fn quietly(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("`{program}` does not run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("`{program}` ended with {}: {}", output.status, String::from_utf8_lossy(&said).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_says_why() {
        let error = quietly(Command::new("sh").args(["-c", "echo no disk left >&2; exit 3"])).unwrap_err();
        assert_eq!(error, "`sh` ended with exit status: 3: no disk left");
    }

    #[test]
    fn a_program_is_found_on_the_path_or_not_at_all() {
        assert!(on_path("sh").is_some());
        assert_eq!(on_path("tidegate-has-no-such-program"), None);
    }
}
