//! What this machine has: kernel settings from `/proc/sys`, limits of this process from `/proc/self/limits` (proc(5)).

use std::fs;
use std::path::PathBuf;

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    proc: PathBuf,
}

/// The row of `/proc/self/limits` for an item of limits.conf, and the bytes in one unit of that item (limits.conf(5):
/// memlock is in KiB).
fn row_of(item: &str) -> Option<(&'static str, u64)> {
    match item {
        "nofile" => Some(("Max open files", 1)),
        "memlock" => Some(("Max locked memory", 1 << 10)),
        "core" => Some(("Max core file size", 1 << 10)),
        "nproc" => Some(("Max processes", 1)),
        _ => None,
    }
}

/// The unit of an item of limits.conf, where its value is no plain count.
pub(super) fn unit_name(item: &str) -> Option<&'static str> {
    row_of(item).filter(|(_, unit)| *unit > 1).map(|_| "KiB")
}

impl Machine {
    /// The one this runs on.
    pub(super) fn this() -> Self {
        Self { proc: PathBuf::from("/proc") }
    }

    #[cfg(test)]
    pub(super) fn at(proc: PathBuf) -> Self {
        Self { proc }
    }

    /// The value of a kernel setting, several numbers parted by one blank; `None` where it can't be read.
    pub(super) fn sysctl(&self, key: &str) -> Option<String> {
        let path = self.proc.join("sys").join(key.replace('.', "/"));
        let value = fs::read_to_string(path).ok()?;
        Some(value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The hard limit of this process in the unit of limits.conf: Tidegate raises the soft one to it by itself.
    pub(super) fn limit(&self, item: &str) -> Option<String> {
        let (name, unit) = row_of(item)?;
        let table = fs::read_to_string(self.proc.join("self/limits")).ok()?;
        let row = table.lines().find_map(|line| line.strip_prefix(name))?;
        let hard = row.split_ascii_whitespace().nth(1)?;
        let Ok(bytes) = hard.parse::<u64>() else { return Some(hard.to_owned()) };
        Some((bytes / unit).to_string())
    }
}
