//! What Tidegate needs from the machine.

use std::io;
use std::path::Path;

use super::{Finding, uring};
use crate::config::Config;
use crate::cores;
use crate::limits::{self, Limit};

/// Locked memory below which io_uring can't start, in bytes.
const MIN_LOCKED_BYTES: u64 = 512 << 10;
/// Open files below which a busy gateway runs out.
const RECOMMENDED_OPEN_FILES: u64 = 65_536;
/// Open files below which even a small one does.
const MIN_OPEN_FILES: u64 = 1_024;
/// Oldest kernel whose io_uring is complete enough.
const MIN_KERNEL: (u32, u32) = (5, 8);

/// All checks of the machine.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = requirements();
    findings.push(open_files(limits::open_files()));
    findings.push(shards(config));
    findings.push(backlog(read_number("/proc/sys/net/core/somaxconn")));
    findings
}

/// Those without which no shard starts.
pub(super) fn requirements() -> Vec<Finding> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let disabled = read_number("/proc/sys/kernel/io_uring_disabled");
    vec![kernel(release.trim()), locked_memory(limits::locked_memory()), io_uring(uring::probe(), disabled)]
}

fn read_number(path: &str) -> Option<u64> {
    std::fs::read_to_string(Path::new(path)).ok()?.trim().parse().ok()
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    let (minimum_major, minimum_minor) = MIN_KERNEL;
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= MIN_KERNEL => Finding::ok("kernel", release),
        (Some(_), Some(_)) => Finding::fail(
            "kernel",
            format!("{release} is too old"),
            format!("Run Linux {minimum_major}.{minimum_minor} or later"),
        ),
        _ => Finding::warn("kernel", format!("can't tell the version of {release:?}"), "Run it on Linux"),
    }
}

fn locked_memory(limit: io::Result<Limit>) -> Finding {
    const REMEDY: &str = "Shell: ulimit -l unlimited; systemd: LimitMEMLOCK=infinity; Docker: --ulimit memlock=-1:-1";
    match limit {
        Ok(limit) if limit.soft == u64::MAX => Finding::ok("locked memory", "unlimited"),
        Ok(limit) if limit.soft >= MIN_LOCKED_BYTES => {
            Finding::ok("locked memory", format!("{} KiB", limit.soft >> 10))
        }
        Ok(limit) => Finding::fail(
            "locked memory",
            format!("{} KiB; io_uring needs {} KiB", limit.soft >> 10, MIN_LOCKED_BYTES >> 10),
            REMEDY,
        ),
        Err(error) => Finding::warn("locked memory", format!("can't be read: {error}"), REMEDY),
    }
}

fn io_uring(probe: io::Result<()>, disabled: Option<u64>) -> Finding {
    let Err(error) = probe else { return Finding::ok("io_uring", "usable") };
    let remedy = match (error.raw_os_error(), disabled) {
        (Some(libc::EPERM), Some(1..)) => "sysctl -w kernel.io_uring_disabled=0",
        (Some(libc::EPERM | libc::EACCES), _) => {
            "The seccomp profile of the container engine forbids it. Docker: --security-opt seccomp=unconfined, or a profile \
             that allows io_uring_setup, io_uring_enter and io_uring_register; Kubernetes: securityContext.seccompProfile"
        }
        (Some(libc::ENOSYS), _) => {
            "Run a kernel with CONFIG_IO_URING; in a container, a seccomp profile that allows io_uring_setup, \
             io_uring_enter and io_uring_register (gVisor has none)"
        }
        (Some(libc::ENOMEM), _) => "Allow more locked memory: ulimit -l unlimited",
        _ => "Run Linux 5.8 or later without restrictions on io_uring",
    };
    Finding::fail("io_uring", format!("denied: {error}"), remedy)
}

fn open_files(limit: io::Result<Limit>) -> Finding {
    const REMEDY: &str =
        "Shell: ulimit -n 1048576; systemd: LimitNOFILE=1048576; Docker: --ulimit nofile=1048576:1048576";
    match limit {
        Ok(limit) if limit.hard >= RECOMMENDED_OPEN_FILES => Finding::ok("open files", limit.hard.to_string()),
        Ok(limit) if limit.hard >= MIN_OPEN_FILES => {
            Finding::warn("open files", format!("{}: as many connections at most", limit.hard), REMEDY)
        }
        Ok(limit) => Finding::fail("open files", format!("only {}", limit.hard), REMEDY),
        Err(error) => Finding::warn("open files", format!("can't be read: {error}"), REMEDY),
    }
}

fn shards(config: &Config) -> Finding {
    let plan = cores::allowed().map_err(|error| error.to_string()).and_then(|allowed| {
        let plan = cores::plan(config.shards, config.cpus.as_deref(), &allowed, cores::siblings);
        plan.map(|plan| (plan, allowed)).map_err(|error| error.to_string())
    });
    match plan {
        Err(error) => Finding::fail("cores", error, "Set CPUS to cores of this process, or leave it unset"),
        Ok((plan, allowed)) if plan.len() > allowed.len() => Finding::warn(
            "cores",
            format!("{} shards on {} cores", plan.len(), allowed.len()),
            format!("Set SHARDS to at most {}", allowed.len()),
        ),
        Ok((plan, allowed)) => Finding::ok(
            "cores",
            format!("{} for shards; this process may use {}", plan.len(), cores::format_list(&allowed)),
        ),
    }
}

fn backlog(somaxconn: Option<u64>) -> Finding {
    match somaxconn {
        Some(backlog) if backlog < 4_096 => Finding::warn(
            "backlog",
            format!("net.core.somaxconn is {backlog}: bursts of new connections are dropped"),
            "sysctl -w net.core.somaxconn=4096",
        ),
        Some(backlog) => Finding::ok("backlog", backlog.to_string()),
        None => Finding::warn("backlog", "net.core.somaxconn can't be read", "Check it on the host"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        for (release, verdict) in [
            ("5.7.19", Verdict::Fail),
            ("5.8.0-1", Verdict::Ok),
            ("5.15.0", Verdict::Ok),
            ("6.18", Verdict::Ok),
            ("x", Verdict::Warn),
        ] {
            assert_eq!(kernel(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn too_little_locked_memory_fails_with_the_command_that_mends_it() {
        let finding = locked_memory(Ok(Limit { soft: 64 << 10, hard: 64 << 10 }));
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.remedy.contains("ulimit -l"));
        assert_eq!(locked_memory(Ok(Limit { soft: 512 << 10, hard: 0 })).verdict, Verdict::Ok);
    }

    #[test]
    fn a_denied_io_uring_names_the_one_who_denies_it() {
        let denied = |code| Err(io::Error::from_raw_os_error(code));
        assert!(io_uring(denied(libc::EPERM), Some(2)).remedy.contains("kernel.io_uring_disabled=0"));
        assert!(io_uring(denied(libc::EPERM), Some(0)).remedy.contains("seccomp"));
        assert!(io_uring(denied(libc::ENOSYS), None).remedy.contains("CONFIG_IO_URING"));
        assert_eq!(io_uring(Ok(()), None).verdict, Verdict::Ok);
    }

    #[test]
    fn few_open_files_are_a_warning_and_very_few_a_failure() {
        for (hard, verdict) in [(1_048_576, Verdict::Ok), (4_096, Verdict::Warn), (256, Verdict::Fail)] {
            assert_eq!(open_files(Ok(Limit { soft: 256, hard })).verdict, verdict, "{hard}");
        }
    }
}
