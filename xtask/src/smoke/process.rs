//! A program under observation: what it prints is shown and can be waited for; it ends with the value at the latest.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// Time for the line that is waited for. Cargo may have to build before.
const LINE_PATIENCE: Duration = Duration::from_secs(1_200);
/// Time to end after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    pub(super) fn start(command: &mut Command) -> Result<Self, String> {
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| format!("can't be started: {error}"))?;
        let (sender, lines) = mpsc::channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] =
            [child.stdout.take().map(|out| Box::new(out) as _), child.stderr.take().map(|err| Box::new(err) as _)];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    println!("  {line}");
                    // Nobody listens any more once the line has come; the pipe must be drained all the same.
                    let _ = sender.send(line);
                }
            });
        }
        Ok(Self { child, lines })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first line in which `find` finds something.
    pub(super) fn wait_for_line<T>(&self, find: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + LINE_PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if let Some(found) = find(&line) {
                return Ok(found);
            }
        }
        Err("ended, or never said that it was ready".to_owned())
    }

    /// Ends it with SIGTERM, which it must obey with exit code 0 (`cargo run` turns into what it runs by `exec`).
    pub(super) fn stop(mut self) -> Result<(), String> {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let deadline = Instant::now() + STOP_PATIENCE;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("ended with {status} after SIGTERM")),
                Ok(None) => thread::sleep(Duration::from_millis(50)),
                Err(error) => return Err(format!("can't be waited for: {error}")),
            }
        }
        Err(format!("did not end within {} s after SIGTERM", STOP_PATIENCE.as_secs()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::start(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn a_line_on_either_stream_is_waited_for() {
        let process = shell("echo one; echo ready 7 >&2");
        assert_eq!(process.wait_for_line(|line| line.strip_prefix("ready ").map(str::to_owned)), Ok("7".to_owned()));
    }

    #[test]
    fn a_program_that_ends_without_the_line_is_an_error() {
        let process = shell("echo one");
        assert!(process.wait_for_line(|line| line.strip_prefix("ready ").map(str::to_owned)).is_err());
    }

    #[test]
    fn a_program_must_obey_sigterm_with_exit_code_zero() {
        let obedient = shell("trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done");
        assert_eq!(obedient.wait_for_line(|line| (line == "ready").then_some(())), Ok(()));
        assert_eq!(obedient.stop(), Ok(()));
        let killed = shell("echo ready; exec sleep 60");
        assert_eq!(killed.wait_for_line(|line| (line == "ready").then_some(())), Ok(()));
        assert!(killed.stop().unwrap_err().contains("after SIGTERM"));
    }
}
