//! Servers as real processes, each bound to one CPU, ended with the value that holds them.

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tidegate_load::ProcessSample;

use super::cpu;
use super::error::FigureError;

const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A server under measurement.
#[derive(Debug)]
pub struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts `program` on [`cpu::SERVER`] with these arguments and this environment alone, and waits until it prints
    /// a line with `clients` and the address it listens on.
    ///
    /// # Errors
    /// It is not there, ends, or says nothing within 20 seconds.
    pub fn start(program: &Path, arguments: &[String], environment: &[(&str, String)]) -> Result<Self, FigureError> {
        Self::start_on(cpu::SERVER, program, arguments, environment)
    }

    /// As [`Self::start`], on a CPU of choice.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(
        cpu: usize,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, String)],
    ) -> Result<Self, FigureError> {
        Self::start_saying(cpu, program, arguments, environment, Stdio::null(), address_in)
    }

    /// As [`Self::start_on`], and waits for a line in which `ready` finds an address (or nothing that is needed as one).
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_saying(
        cpu: usize,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, String)],
        stdin: Stdio,
        ready: fn(&str) -> Option<String>,
    ) -> Result<Self, FigureError> {
        let mut command = pinned(cpu, program, arguments)?;
        command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(stdin).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(FigureError::system("starting a server"))?;
        let refused = |reason: &str| refused(program, arguments, reason);
        let Some(stdout) = child.stdout.take() else { return Err(refused("it has no standard output")) };
        let (sender, addresses) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(url) = ready(&line) {
                    // Nobody waits any more once the first has come; the pipe is drained all the same.
                    let _ = sender.send(url);
                }
            }
        });
        let mut server = Self { child, url: String::new() };
        match addresses.recv_timeout(START_PATIENCE) {
            Ok(url) => {
                server.url = url;
                Ok(server)
            }
            Err(RecvTimeoutError::Disconnected) => Err(refused("it ended; its reason stands above")),
            Err(RecvTimeoutError::Timeout) => Err(refused("it named no address within 20 s")),
        }
    }

    /// Starts `program` on [`cpu::SERVER`] and waits until `address` takes connections; for programs that say nothing.
    ///
    /// # Errors
    /// It is not there, ends, or takes no connection within 20 seconds.
    pub fn start_listening(program: &Path, arguments: &[String], address: SocketAddr) -> Result<Self, FigureError> {
        let mut command = pinned(cpu::SERVER, program, arguments)?;
        let child = command.stdin(Stdio::null()).spawn().map_err(FigureError::system("starting a server"))?;
        let mut server = Self { child, url: format!("http://{address}") };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if !matches!(server.ended(), Ok(None)) {
                return Err(refused(program, arguments, "it ended; its reason stands above"));
            }
            if began.elapsed() > START_PATIENCE {
                return Err(refused(program, arguments, "it took no connection within 20 s"));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(server)
    }

    /// Address for clients, `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host and port of [`Self::url`].
    #[must_use]
    pub fn authority(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time and memory so far.
    ///
    /// # Errors
    /// The process has ended.
    pub fn sample(&self) -> Result<ProcessSample, FigureError> {
        Ok(ProcessSample::read(self.pid())?)
    }

    /// Asks the process to end.
    ///
    /// # Errors
    /// It has ended.
    pub fn terminate(&mut self) -> Result<(), FigureError> {
        let running = matches!(self.ended(), Ok(None));
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).filter(|_| running);
        let pid = pid.ok_or_else(|| FigureError::Invalid("a server ended too early".to_owned()))?;
        kill_process(pid, Signal::TERM).map_err(|error| FigureError::system("ending a server")(error.into()))
    }

    /// Waits until the process has ended, and says how.
    ///
    /// # Errors
    /// It runs on.
    pub fn wait_until_ended(&mut self, patience: Duration) -> Result<ExitStatus, FigureError> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended().map_err(FigureError::system("waiting for a server's end"))? {
                return Ok(status);
            }
            if began.elapsed() > patience {
                return Err(FigureError::Late { what: "a server's end".to_owned(), waited_s: patience.as_secs() });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        // Either may fail only because it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw)
            && matches!(self.ended(), Ok(None))
        {
            // It may have ended just now.
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < STOP_PATIENCE {
            if !matches!(self.ended(), Ok(None)) {
                return;
            }
            thread::sleep(POLL_INTERVAL);
        }
        eprintln!("process {} did not obey SIGTERM and is killed", self.pid());
        self.kill();
    }
}

/// `program`, run on `cpu` by way of this program, so that it ends with it.
fn pinned(cpu: usize, program: &Path, arguments: &[String]) -> Result<Command, FigureError> {
    if !program.exists() {
        return Err(FigureError::NoProgram(program.to_owned()));
    }
    let this = std::env::current_exe().map_err(FigureError::system("finding this program"))?;
    let mut command = Command::new(this);
    command.args(["pinned", "--cpu", &cpu.to_string(), "--"]).arg(program).args(arguments);
    Ok(command)
}

fn refused(program: &Path, arguments: &[String], reason: &str) -> FigureError {
    FigureError::Server {
        program: program.display().to_string(),
        reason: format!("{reason} (arguments: {})", arguments.join(" ")),
    }
}

/// The first address in a line like `clients   http://127.0.0.1:4000 (…)`.
fn address_in(line: &str) -> Option<String> {
    let (_, rest) = line.trim_start().strip_prefix("clients")?.split_once("http://")?;
    let authority: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || ".:[]".contains(*c)).collect();
    authority.rsplit_once(':')?.1.parse::<u16>().ok()?;
    Some(format!("http://{authority}"))
}

/// Turns this process into `program`, bound to `cpu`; it ends when the process that started it ends.
///
/// # Errors
/// It comes back only if the program can't be run.
pub fn become_pinned(cpu: usize, program: &Path, arguments: &[String]) -> io::Error {
    cpu::bind_thread(cpu);
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    Command::new(program).args(arguments).exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_for_clients_is_found_in_what_a_server_prints() {
        let line = "  clients   http://127.0.0.1:4000, http://[::1]:4000 (event streams)";
        assert_eq!(address_in(line).as_deref(), Some("http://127.0.0.1:4000"));
        assert_eq!(address_in("  internal  http://127.0.0.1:4010 (/health)"), None);
    }
}
