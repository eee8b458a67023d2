//! Gateway processes: started, watched, frozen, killed, and asked to go.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::LoadError;
use crate::process::ProcessSample;
use crate::sys::{self, ProcessSignal};

/// Lines of standard error that are kept for the report.
const KEPT_LINES: usize = 30;
const KILL_PATIENCE: Duration = Duration::from_secs(20);

/// Where a gateway listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Addresses {
    pub(super) inbound: SocketAddr,
    pub(super) internal: SocketAddr,
}

impl Addresses {
    /// The addresses in `tidegate ready inbound=127.0.0.1:1 internal=127.0.0.1:2`.
    fn read(line: &str) -> Option<Self> {
        let words = line.strip_prefix("tidegate ready ")?;
        let word = |name: &str| words.split_whitespace().find_map(|word| word.strip_prefix(name));
        // There may be several inbound addresses; the first is as good as any.
        let inbound = word("inbound=")?.split(',').next()?.parse().ok()?;
        Some(Self { inbound, internal: word("internal=")?.parse().ok()? })
    }
}

/// How to start a gateway.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) program: PathBuf,
    /// Its whole environment.
    pub(super) settings: Vec<(String, String)>,
}

/// A gateway's process. It is killed with this value.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    child: Child,
    lines: Receiver<Addresses>,
    errors: Arc<Mutex<VecDeque<String>>>,
    pub(super) started: Instant,
    pub(super) addresses: Option<Addresses>,
    pub(super) frozen: bool,
}

impl Node {
    /// Starts a process; [`Self::is_ready`] says when it listens. It dies with the thread that calls this.
    pub(super) fn start(name: &str, recipe: &Recipe) -> Result<Self, LoadError> {
        let mut command = Command::new(&recipe.program);
        command.env_clear().envs(recipe.settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::tie_to_this_thread(&mut command);
        let what = format!("starting {}", recipe.program.display());
        let mut child = command.spawn().map_err(LoadError::system(what))?;
        let (sender, lines) = mpsc::channel();
        let errors = Arc::<Mutex<VecDeque<String>>>::default();
        if let Some(stdout) = child.stdout.take() {
            drain(stdout, move |line| {
                if let Some(addresses) = Addresses::read(&line) {
                    // The pipe is drained to its end whether or not somebody still waits for this.
                    let _ = sender.send(addresses);
                }
            });
        }
        if let Some(stderr) = child.stderr.take() {
            let errors = Arc::clone(&errors);
            drain(stderr, move |line| {
                if let Ok(mut errors) = errors.lock() {
                    if errors.len() == KEPT_LINES {
                        errors.pop_front();
                    }
                    errors.push_back(line);
                }
            });
        }
        let name = name.to_owned();
        Ok(Self { name, child, lines, errors, started: Instant::now(), addresses: None, frozen: false })
    }

    /// Does it listen (by now)?
    pub(super) fn is_ready(&mut self) -> bool {
        if self.addresses.is_none() {
            self.addresses = self.lines.try_recv().ok();
        }
        self.addresses.is_some()
    }

    /// Waits until it listens.
    pub(super) fn wait_until_ready(&mut self, patience: Duration) -> Result<Addresses, String> {
        let began = Instant::now();
        while !self.is_ready() {
            if let Some(status) = self.ended() {
                return Err(format!("ended with {status} while it started; {}", self.last_words()));
            }
            if began.elapsed() > patience {
                return Err(format!("was not ready after {} s; {}", patience.as_secs(), self.last_words()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.addresses.ok_or_else(|| "has no address".to_owned())
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub(super) fn signal(&mut self, signal: ProcessSignal) {
        match signal {
            ProcessSignal::Stop => self.frozen = true,
            ProcessSignal::Continue => self.frozen = false,
            _ => {}
        }
        // A child that has ended stays a zombie until it is waited for, so the number is still its own.
        if self.ended().is_none() {
            let _ = sys::signal(self.pid(), signal);
        }
    }

    /// SIGKILL; returns when it is gone.
    pub(super) fn kill(&mut self) {
        // Either may fail only because it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Resident memory in bytes.
    pub(super) fn rss_bytes(&self) -> Option<u64> {
        ProcessSample::read(self.pid()).ok().map(|sample| sample.rss_bytes)
    }

    /// The end of what it wrote to standard error.
    pub(super) fn last_words(&self) -> String {
        let lines = self.errors.lock().map(|lines| Vec::from_iter(lines.iter().cloned())).unwrap_or_default();
        if lines.is_empty() { "it wrote nothing to standard error".to_owned() } else { lines.join("\n    ") }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn drain(stream: impl Read + Send + 'static, mut line: impl FnMut(String) + Send + 'static) {
    thread::spawn(move || {
        for text in BufReader::new(stream).lines().map_while(Result::ok) {
            line(text);
        }
    });
}

/// A Kafka broker that this process may kill: a command that runs it in the foreground, and again with the same data.
#[derive(Debug)]
pub(super) struct BrokerProcess {
    words: Vec<String>,
    child: Option<Child>,
    pub(super) frozen: bool,
}

impl BrokerProcess {
    /// Starts `command`, a program and its arguments with blanks between.
    pub(super) fn start(command: &str) -> Result<Self, LoadError> {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let mut broker = Self { words, child: None, frozen: false };
        broker.restart()?;
        Ok(broker)
    }

    /// Starts it (again).
    pub(super) fn restart(&mut self) -> Result<(), LoadError> {
        self.kill();
        let Some((program, arguments)) = self.words.split_first() else {
            return Err(LoadError::Scenario("the command that starts the broker is empty".to_owned()));
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        sys::tie_to_this_thread(&mut command);
        self.child = Some(command.spawn().map_err(LoadError::system(format!("starting {program}")))?);
        Ok(())
    }

    pub(super) fn signal(&mut self, signal: ProcessSignal) {
        self.frozen = matches!(signal, ProcessSignal::Stop);
        if let Some(child) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
        {
            let _ = sys::signal(child.id(), signal);
        }
    }

    /// SIGKILL; returns when it is gone.
    pub(super) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        let began = Instant::now();
        while matches!(child.try_wait(), Ok(None)) && began.elapsed() < KILL_PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How it ended, if it should run and does not.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("gateway");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = ("PATH".to_owned(), "/usr/bin:/bin".to_owned());
        let mut node = Node::start("node", &Recipe { program, settings: vec![path] }).unwrap();
        // The folder must stay until the shell has read the script.
        let _ = node.wait_until_ready(Duration::from_secs(20));
        node
    }

    #[test]
    fn a_node_that_says_ready_is_ready_and_a_killed_one_has_ended() {
        let mut node = shell("echo tidegate ready inbound=127.0.0.1:7,[::1]:7 internal=127.0.0.1:8; exec sleep 60");
        let addresses = node.addresses.unwrap();
        assert_eq!((addresses.inbound.port(), addresses.internal.port()), (7, 8));
        assert!(node.rss_bytes().unwrap() > 0);
        assert_eq!(node.ended(), None);
        node.kill();
        assert!(!node.ended().unwrap().success());
    }

    #[test]
    fn the_last_words_of_a_node_that_can_not_start_are_told() {
        let mut node = shell("echo no such luck >&2; exit 3");
        let reason = node.wait_until_ready(Duration::from_secs(20)).unwrap_err();
        assert!(reason.contains("exit status: 3"), "{reason}");
    }
}
