//! CPU time of single threads, from `/proc/PID/task/*/stat` (proc(5)), sampled while a load runs.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, io};

/// Time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// A thread and the CPU time it has used since its start.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ThreadTime {
    pub(crate) name: String,
    pub(crate) cpu_s: f64,
}

/// Threads by id.
type Threads = BTreeMap<u32, ThreadTime>;

/// Reads all threads of process `pid`; one that ends meanwhile is left out.
fn read(pid: u32, ticks_per_s: f64) -> io::Result<Threads> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
    let threads = entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        Some((id, parse_stat(&stat, ticks_per_s)?))
    });
    Ok(threads.collect())
}

/// Fields 2 (name, in brackets, with anything inside), 14 and 15 (user and system time in clock ticks).
fn parse_stat(stat: &str, ticks_per_s: f64) -> Option<ThreadTime> {
    let (start, fields) = stat.rsplit_once(')')?;
    let (_, name) = start.split_once('(')?;
    let mut times = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some(ThreadTime { name: name.to_owned(), cpu_s: (user + system) as f64 / ticks_per_s })
}

/// User, nice and system time of the whole machine: the first line of `/proc/stat`.
fn parse_machine(stat: &str, ticks_per_s: f64) -> Option<f64> {
    let times = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().take(3);
    let ticks = times.map(str::parse::<u64>).sum::<Result<u64, _>>().ok()?;
    Some(ticks as f64 / ticks_per_s)
}

/// What the threads of both processes used in one stretch of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Length of the stretch in seconds.
    pub(crate) elapsed_s: f64,
    /// Threads of the gateway.
    pub(crate) gateway: Vec<ThreadTime>,
    /// Threads of this process.
    pub(crate) own: Vec<ThreadTime>,
    /// All processes of the machine together, in CPU seconds.
    pub(crate) everything_s: f64,
}

impl Usage {
    /// The largest share of a core among threads whose name starts with `prefix`.
    pub(crate) fn busiest(&self, threads: &[ThreadTime], prefix: &str) -> f64 {
        let named = threads.iter().filter(|thread| thread.name.starts_with(prefix));
        self.share(named.map(|thread| thread.cpu_s).fold(0.0, f64::max))
    }

    /// Share of `cores` cores that all threads whose name starts with `prefix` used.
    pub(crate) fn together(&self, threads: &[ThreadTime], prefix: &str, cores: usize) -> f64 {
        let named = threads.iter().filter(|thread| thread.name.starts_with(prefix));
        self.share(named.map(|thread| thread.cpu_s).sum::<f64>() / cores.max(1) as f64)
    }

    /// CPU seconds of the gateway.
    pub(crate) fn gateway_cpu_s(&self) -> f64 {
        self.gateway.iter().map(|thread| thread.cpu_s).sum()
    }

    /// Share of `cores` cores that both processes used.
    pub(crate) fn machine(&self, cores: usize) -> f64 {
        let own: f64 = self.own.iter().map(|thread| thread.cpu_s).sum();
        self.share((own + self.gateway_cpu_s()) / cores.max(1) as f64)
    }

    /// Share of `cores` cores that all other processes used. On a machine with more cores than these it may be too high:
    /// the kernel does not say where they ran.
    pub(crate) fn others(&self, cores: usize) -> f64 {
        let own: f64 = self.own.iter().map(|thread| thread.cpu_s).sum();
        self.share((self.everything_s - own - self.gateway_cpu_s()).max(0.0) / cores.max(1) as f64)
    }

    fn share(&self, cpu_s: f64) -> f64 {
        if self.elapsed_s > 0.0 { (cpu_s / self.elapsed_s).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// Both processes at one moment.
#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    gateway: Threads,
    own: Threads,
    everything_s: f64,
}

/// Samples the gateway and this process in the background until it is stopped.
#[derive(Debug)]
pub(crate) struct Sampler {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<io::Result<Vec<Sample>>>,
}

impl Sampler {
    pub(crate) fn start(gateway_pid: u32) -> io::Result<Self> {
        let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
        let (stop, stopped) = mpsc::channel();
        let sample = move || -> io::Result<Sample> {
            let at = Instant::now();
            let (gateway, own) = (read(gateway_pid, ticks_per_s)?, read(std::process::id(), ticks_per_s)?);
            let everything_s = parse_machine(&fs::read_to_string("/proc/stat")?, ticks_per_s).unwrap_or(0.0);
            Ok(Sample { at, gateway, own, everything_s })
        };
        let run = move || {
            let mut samples = vec![sample()?];
            while stopped.recv_timeout(SAMPLE_EVERY) == Err(RecvTimeoutError::Timeout) {
                samples.push(sample()?);
            }
            Ok(samples)
        };
        Ok(Self { stop, thread: thread::Builder::new().name("sampler".to_owned()).spawn(run)? })
    }

    /// Stops, and says what was used between the two moments.
    pub(crate) fn stop(self, from: Instant, to: Instant) -> io::Result<Usage> {
        drop(self.stop);
        let samples = self.thread.join().map_err(|_| io::Error::other("the sampling thread ended unexpectedly"))??;
        Ok(between(&samples, from, to))
    }
}

/// What was used from the sample closest to `from` to the one closest to `to`.
fn between(samples: &[Sample], from: Instant, to: Instant) -> Usage {
    let closest = |moment: Instant| {
        let distance = |sample: &&Sample| sample.at.max(moment).duration_since(sample.at.min(moment));
        samples.iter().min_by_key(distance)
    };
    let (Some(first), Some(last)) = (closest(from), closest(to)) else { return Usage::default() };
    let window: Vec<&Sample> = samples.iter().filter(|sample| sample.at >= first.at && sample.at <= last.at).collect();
    Usage {
        elapsed_s: last.at.saturating_duration_since(first.at).as_secs_f64(),
        gateway: used(window.iter().map(|sample| &sample.gateway)),
        own: used(window.iter().map(|sample| &sample.own)),
        everything_s: (last.everything_s - first.everything_s).max(0.0),
    }
}

/// The difference for each thread. One that started within the window counts from zero, one that ended (the load
/// generators do) up to the last sample that has it.
fn used<'a>(mut window: impl Iterator<Item = &'a Threads>) -> Vec<ThreadTime> {
    let Some(first) = window.next() else { return Vec::new() };
    let mut last = first.clone();
    for sample in window {
        last.extend(sample.iter().map(|(id, thread)| (*id, thread.clone())));
    }
    let since = |(id, thread): (u32, ThreadTime)| {
        let before_s = first.get(&id).map_or(0.0, |before| before.cpu_s);
        ThreadTime { name: thread.name, cpu_s: (thread.cpu_s - before_s).max(0.0) }
    };
    last.into_iter().map(since).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(entries: &[(u32, &str, f64)]) -> Threads {
        entries.iter().map(|(id, name, cpu_s)| (*id, ThreadTime { name: (*name).to_owned(), cpu_s: *cpu_s })).collect()
    }

    #[test]
    fn a_stat_line_is_read_also_when_the_name_holds_brackets_and_blanks() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 7 0 1000 5000000 321";
        assert_eq!(parse_stat(line, 100.0), Some(ThreadTime { name: "a) b (c".to_owned(), cpu_s: 3.0 }));
        assert_eq!(parse_stat("42 (a) S 1", 100.0), None);
        assert_eq!(parse_stat("", 100.0), None);
    }

    #[test]
    fn the_time_of_the_whole_machine_leaves_idling_out() {
        let stat = "cpu  100 20 30 9999 5 0 7 0 0 0\ncpu0 1 2 3 4\n";
        assert_eq!(parse_machine(stat, 100.0), Some(1.5));
        assert_eq!(parse_machine("", 100.0), None);
        assert_eq!(parse_machine("cpu  x 1 2", 100.0), None);
    }

    #[test]
    fn a_thread_of_this_process_is_found_by_its_name() {
        let (stop, stopped) = mpsc::channel::<()>();
        let (start, started) = mpsc::channel();
        let named = thread::Builder::new().name("load-77".to_owned());
        // A thread takes its name itself, so it must have begun.
        let run = move || start.send(()).is_ok() && stopped.recv().is_err();
        let thread = named.spawn(run).unwrap();
        started.recv().unwrap();
        let found = read(std::process::id(), 100.0).unwrap();
        assert!(found.values().any(|thread| thread.name == "load-77"), "{found:?}");
        drop(stop);
        assert!(thread.join().unwrap());
    }

    #[test]
    fn usage_is_the_difference_of_the_samples_closest_to_the_window() {
        let start = Instant::now();
        let sample = |at_ms: u64, shard_s: f64, own_s: f64| Sample {
            at: start + Duration::from_millis(at_ms),
            gateway: threads(&[(1, "shard-0", shard_s), (2, "ingress", shard_s / 4.0)]),
            own: threads(&[(9, "load-0", own_s)]),
            everything_s: 2.0 * shard_s,
        };
        let samples = [sample(0, 5.0, 0.0), sample(1_000, 5.0, 0.0), sample(3_000, 7.0, 1.0), sample(9_000, 7.0, 1.0)];
        let at = |ms| start + Duration::from_millis(ms);
        let usage = between(&samples, at(1_100), at(2_900));
        assert_eq!(usage.elapsed_s, 2.0);
        assert_eq!(usage.busiest(&usage.gateway, "shard-"), 1.0);
        assert_eq!(usage.busiest(&usage.gateway, "ingress"), 0.25);
        assert_eq!(usage.busiest(&usage.own, "load-"), 0.5);
        assert_eq!(usage.together(&usage.gateway, "", 2), (2.0 + 0.5) / 2.0 / 2.0);
        assert_eq!(usage.machine(2), (2.0 + 0.5 + 1.0) / 2.0 / 2.0);
        assert_eq!(usage.others(2), (4.0 - 3.5) / 2.0 / 2.0);
    }

    #[test]
    fn threads_that_start_or_end_within_the_window_count_for_as_long_as_they_were_seen() {
        let window = [
            threads(&[(1, "a", 2.0), (2, "b", 2.0)]),
            threads(&[(1, "a", 2.25), (2, "b", 2.25)]),
            threads(&[(2, "b", 2.5), (3, "c", 1.0)]),
        ];
        let expected =
            [("a", 0.25), ("b", 0.5), ("c", 1.0)].map(|(name, cpu_s)| ThreadTime { name: name.to_owned(), cpu_s });
        assert_eq!(used(window.iter()), expected);
        assert_eq!(used(std::iter::empty()), []);
    }

    #[test]
    fn a_window_without_length_uses_nothing() {
        let usage = between(&[], Instant::now(), Instant::now());
        assert_eq!((usage.machine(4), usage.busiest(&usage.gateway, "shard-")), (0.0, 0.0));
    }
}
