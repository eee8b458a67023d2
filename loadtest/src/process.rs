//! CPU time and memory of a process, from /proc (proc(5)).

use std::fs;

use serde::{Deserialize, Serialize};

use crate::error::LoadError;
use crate::sys;

/// CPU time and resident memory of a process at one moment.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ProcessSample {
    /// CPU time in user mode, in seconds.
    pub user_s: f64,
    /// CPU time in the kernel on behalf of the process, in seconds.
    pub system_s: f64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// Threads.
    pub threads: u64,
}

impl ProcessSample {
    /// Reads process `pid`.
    ///
    /// # Errors
    /// [`LoadError::Process`] when there is no such process, or its entries can't be read.
    pub fn read(pid: u32) -> Result<Self, LoadError> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_err(|error| LoadError::Process { pid, reason: error.to_string() })?;
        let (ticks_per_s, page_bytes) = sys::proc_units();
        parse_stat(&text, ticks_per_s, page_bytes)
            .ok_or_else(|| LoadError::Process { pid, reason: "unknown form of stat".to_owned() })
    }

    /// User and system time together, in seconds.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

/// Fields 14, 15, 20 and 24 of /proc/pid/stat; the name in field 2 may hold blanks and brackets.
fn parse_stat(text: &str, ticks_per_s: f64, page_bytes: u64) -> Option<ProcessSample> {
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(ProcessSample {
        user_s: field(14)? as f64 / ticks_per_s,
        system_s: field(15)? as f64 / ticks_per_s,
        rss_bytes: field(24)? * page_bytes,
        threads: field(20)?,
    })
}

/// The server's process over a run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ServerUsage {
    /// Before the first connection.
    pub before: ProcessSample,
    /// With all connections ready, before the first event.
    pub ready: ProcessSample,
    /// When the measured part was over.
    pub after: ProcessSample,
    /// After all connections were closed.
    pub closed: ProcessSample,
    /// Seconds between `ready` and `after`.
    pub measured_s: f64,
}

impl ServerUsage {
    /// CPU seconds of the measured part.
    pub fn cpu_s(&self) -> f64 {
        self.after.cpu_s() - self.ready.cpu_s()
    }

    /// CPU of the measured part, in percent of one core.
    pub fn cpu_percent(&self) -> f64 {
        if self.measured_s > 0.0 { self.cpu_s() / self.measured_s * 100.0 } else { 0.0 }
    }

    /// Growth of resident memory per connection while they were opened, in bytes.
    pub fn rss_per_connection_bytes(&self, connections: u64) -> f64 {
        (self.ready.rss_bytes as f64 - self.before.rss_bytes as f64) / connections.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_also_when_the_name_holds_brackets_and_blanks() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 7 0 1000 5000000 321 184 1 1 0";
        let sample = parse_stat(line, 100.0, 4096).unwrap();
        assert_eq!(sample, ProcessSample { user_s: 2.5, system_s: 0.5, rss_bytes: 321 * 4096, threads: 7 });
        assert!(parse_stat("42 (a) S 1", 100.0, 4096).is_none());
    }

    #[test]
    fn this_process_can_be_read_and_one_that_is_not_there_can_not() {
        let sample = ProcessSample::read(std::process::id()).unwrap();
        assert!(sample.rss_bytes > 0 && sample.threads > 0);
        assert!(ProcessSample::read(u32::MAX).unwrap_err().to_string().contains("/proc"));
    }
}
