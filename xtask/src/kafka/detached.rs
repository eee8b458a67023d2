//! A broker that stays when the command that started it has ended: `cargo xtask kafka`, until `cargo xtask kafka --stop`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::broker::{Kafka, Options};
use super::error::Error;
use crate::repository;

/// A broker of `cargo xtask kafka`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Value for `bootstrap.servers`.
    pub brokers: String,
    /// Its process.
    pub pid: u32,
    /// Its settings, data and log.
    pub folder: PathBuf,
}

impl Detached {
    fn render(&self) -> String {
        format!("{}\n{}\n{}\n", self.brokers, self.pid, self.folder.display())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let brokers = lines.next()?.to_owned();
        let pid = lines.next()?.parse().ok()?;
        let folder = PathBuf::from(lines.next()?);
        Some(Self { brokers, pid, folder })
    }

    /// True if the process is still that broker: its command line names its own folder.
    fn is_alive(&self) -> bool {
        let command_line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&command_line).contains(&*self.folder.to_string_lossy())
    }
}

fn state_path() -> PathBuf {
    repository::tools().join("kafka-running")
}

fn recorded(path: &Path) -> Option<Detached> {
    Detached::parse(&fs::read_to_string(path).ok()?)
}

/// Starts a broker that stays after this process, and records it for [`stop_detached`].
///
/// # Errors
/// [`Error::Running`] if one runs already; else as [`Kafka::start`].
pub fn start_detached(options: Options) -> Result<Detached, Error> {
    let path = state_path();
    if let Some(running) = recorded(&path).filter(Detached::is_alive) {
        return Err(Error::Running { brokers: running.brokers, pid: running.pid });
    }
    let kafka = Kafka::start_own(options, false)?;
    let brokers = kafka.brokers().to_owned();
    let (pid, folder) = kafka.detach().ok_or_else(|| Error::External(brokers.clone()))?;
    let detached = Detached { brokers, pid, folder };
    fs::write(&path, detached.render()).map_err(Error::io("can't write", &path))?;
    Ok(detached)
}

/// Ends the broker of [`start_detached`] and removes its data; `None` if none runs.
///
/// # Errors
/// [`Error::Io`] if it can't be ended.
pub fn stop_detached() -> Result<Option<Detached>, Error> {
    let path = state_path();
    let Some(detached) = recorded(&path) else { return Ok(None) };
    let alive = detached.is_alive();
    if alive {
        let status = Command::new("kill").arg("-9").arg(detached.pid.to_string()).status();
        status.map_err(Error::io("can't run", "kill"))?;
    }
    let _ = fs::remove_dir_all(&detached.folder);
    fs::remove_file(&path).map_err(Error::io("can't remove", &path))?;
    Ok(alive.then_some(detached))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read_back() {
        let detached = Detached { brokers: "127.0.0.1:20000".to_owned(), pid: 17, folder: "/tmp/a b".into() };
        assert_eq!(Detached::parse(&detached.render()), Some(detached));
        assert_eq!(Detached::parse("127.0.0.1:20000\nnot a number\n/tmp\n"), None);
    }

    #[test]
    fn a_process_number_that_now_belongs_to_someone_else_is_not_the_broker() {
        let detached =
            Detached { brokers: String::new(), pid: std::process::id(), folder: "/tmp/tidegate-kafka-gone".into() };
        assert!(!detached.is_alive());
    }
}
