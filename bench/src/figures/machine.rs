//! What a report was measured on.

use std::fs;
use std::process::Command;

use xtask::report::Machine;

/// The machine that this process runs on.
pub(super) fn this_machine() -> Machine {
    let system = rustix::system::uname();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        memory: field(&read("/proc/meminfo"), "MemTotal").unwrap_or_else(|| "unknown".to_owned()),
        kernel: system.release().to_string_lossy().into_owned(),
    }
}

/// Versions of what was measured and what it was measured with.
pub(super) fn versions() -> Vec<(String, String)> {
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let rustc = Command::new("rustc").arg("--version").output().ok();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let mut versions = vec![
        ("tidegate".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("rustc".to_owned(), rustc.unwrap_or_default().trim_start_matches("rustc ").to_owned()),
        ("librdkafka".to_owned(), librdkafka),
        ("Apache Kafka".to_owned(), xtask::kafka::VERSION.to_owned()),
    ];
    // It says its version on standard error, as `nginx version: nginx/1.22.1`.
    let nginx = xtask::provision::nginx().and_then(|path| Command::new(path).arg("-v").output().ok());
    let said = nginx.map(|output| String::from_utf8_lossy(&output.stderr).trim().to_owned()).unwrap_or_default();
    versions.extend(said.rsplit_once('/').map(|(_, version)| ("nginx".to_owned(), version.to_owned())));
    versions
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_proc_is_found_by_its_name() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(field(text, "flags"), None);
    }
}
