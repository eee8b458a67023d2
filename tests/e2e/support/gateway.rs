//! One gateway process per test, on ports of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::http::{Connection, Request, Response};
use super::metrics::Metrics;
use super::{DEADLINE, wait_for};

/// Start of the line that says that the gateway serves, and where.
const READY: &str = "tidegate ready ";

/// A running gateway; killed when dropped. Its log is printed if the test fails.
pub(crate) struct Gateway {
    child: Child,
    inbound: SocketAddr,
    internal: SocketAddr,
    inbound_tls: Option<SocketAddr>,
    internal_tls: Option<SocketAddr>,
    log: Log,
}

/// What a gateway that refused to start left behind.
pub(crate) struct Refusal {
    pub(crate) status: ExitStatus,
    pub(crate) text: String,
}

impl Gateway {
    /// Starts a gateway with the local hub and default settings on one shard.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a gateway with these environment variables besides the defaults.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        Self::with_arguments(&[], settings)
    }

    /// Starts a gateway with command-line arguments and environment variables.
    pub(crate) fn with_arguments(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let (mut child, log, ready) = spawn(arguments, settings);
        let line = match ready.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(reason) => {
                let _ = child.kill();
                let status = child.wait();
                let why = match reason {
                    RecvTimeoutError::Timeout => "did not get ready in time",
                    RecvTimeoutError::Disconnected => "ended before it was ready",
                };
                panic!("the gateway {why} ({status:?}):\n{}", log.text());
            }
        };
        let [inbound, internal] = ["inbound=", "internal="]
            .map(|name| address(&line, name).unwrap_or_else(|| panic!("no {name}ADDRESS in {line:?}")));
        let [inbound_tls, internal_tls] = ["inbound-tls=", "internal-tls="].map(|name| address(&line, name));
        Self { inbound, internal, inbound_tls, internal_tls, child, log }
    }

    /// Starts a gateway that must refuse its settings, and waits for its end.
    pub(crate) fn refused(settings: &[(&str, &str)]) -> Refusal {
        Self::refused_with_arguments(&[], settings)
    }

    /// [`Gateway::refused`] with command-line arguments.
    pub(crate) fn refused_with_arguments(arguments: &[&str], settings: &[(&str, &str)]) -> Refusal {
        let (mut child, mut log, ready) = spawn(arguments, settings);
        match ready.recv_timeout(DEADLINE) {
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().expect("the child can be waited for");
                log.join();
                Refusal { status, text: log.text() }
            }
            outcome => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the gateway should have refused its settings, but: {outcome:?}\n{}", log.text());
            }
        }
    }

    /// Address of the inbound port.
    pub(crate) fn inbound(&self) -> SocketAddr {
        self.inbound
    }

    /// Address of the internal port.
    pub(crate) fn internal(&self) -> SocketAddr {
        self.internal
    }

    /// Address of the inbound TLS port.
    pub(crate) fn inbound_tls(&self) -> SocketAddr {
        self.inbound_tls.expect("the gateway has a certificate")
    }

    /// Address of the internal TLS port.
    pub(crate) fn internal_tls(&self) -> SocketAddr {
        self.internal_tls.expect("the gateway has a certificate")
    }

    /// Calls of clients go to this address from now on, which leads to the gateway.
    pub(crate) fn call_through(&mut self, address: SocketAddr) {
        self.inbound = address;
    }

    /// Process id, for a look into `/proc`.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One call to the inbound port on a connection of its own.
    pub(crate) fn call(&self, request: Request) -> Response {
        request.send_to(self.inbound)
    }

    /// One call to the internal port on a connection of its own.
    pub(crate) fn call_internal(&self, request: Request) -> Response {
        request.send_to(self.internal)
    }

    /// The metrics as they are now.
    pub(crate) fn metrics(&self) -> Metrics {
        let response = self.call_internal(Request::get("/metrics"));
        assert_eq!(response.status, 200, "/metrics answers");
        Metrics::parse(response.text())
    }

    /// Waits until the sum of all samples with this name reaches `value`.
    pub(crate) fn wait_for_metric(&self, name: &str, value: f64) {
        wait_for(&format!("{name} to reach {value}"), || (self.metrics().sum(name) >= value).then_some(()));
    }

    /// Waits until no request waits for a correlated answer: shards set that gauge at each turn of their wheels.
    pub(crate) fn wait_until_nothing_is_pending(&self) {
        let pending = || self.metrics().sum("tidegate_pending_requests");
        wait_for("no request to wait", || (pending() == 0.0).then_some(()));
    }

    /// Waits until connections that say nothing have been closed, one after the other, so often that whatever began before
    /// has outlived `HEADER_TIMEOUT_MS`, 500 here, and the look at it once a second.
    pub(crate) fn outlast_header_timeout(&self) {
        for _ in 0..4 {
            Connection::open(self.inbound).until_end();
        }
    }

    /// Standard output and error up to now.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until the log contains this text: what a process wrote may arrive after its answers.
    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_for(&format!("{text:?} in the log"), || self.log().contains(text).then_some(()));
    }

    /// Ends the process at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends the process a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} can be sent");
    }

    /// Stops the process until it gets `CONT`. A signal stops no thread before one of them has run to take it, so that on a
    /// busy machine the others go on for a while: waits until all have stopped.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        let has_stopped = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
        wait_for("all threads to stop", || {
            let mut threads = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the process lives");
            threads
                .all(|thread| fs::read_to_string(thread.expect("a thread").path().join("stat")).is_ok_and(has_stopped))
                .then_some(())
        });
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        wait_for("the gateway to end", || self.child.try_wait().expect("the child can be asked"))
    }

    /// Fails the test if the process has ended.
    pub(crate) fn assert_alive(&mut self) {
        let ended = self.child.try_wait().expect("the child can be asked");
        assert!(ended.is_none(), "the gateway ended: {ended:?}");
        let health = self.call(Request::get("/_rig/health"));
        assert_eq!(health.status, 200, "the gateway still serves");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        self.log.join();
        if std::thread::panicking() {
            eprintln!("--- log of the gateway ---\n{}--------------------------", self.log.text());
        }
    }
}

/// Everything the process wrote, collected by one thread per stream.
struct Log {
    text: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Log {
    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end of both streams; call only when the process has ended.
    fn join(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// `TIDEGATE_BIN` names another build to test, such as a release.
fn spawn(arguments: &[&str], settings: &[(&str, &str)]) -> (Child, Log, mpsc::Receiver<String>) {
    let binary = std::env::var_os("TIDEGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into());
    let mut command = Command::new(binary);
    command
        .args(arguments)
        .env_clear()
        .envs(["PATH", "HOME", "TMPDIR"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .envs([
            ("INBOUND_HOST", "127.0.0.1"),
            ("INBOUND_PORT", "0"),
            ("API_HTTP_PORT", "0"),
            ("INBOUND_HTTPS_PORT", "0"),
            ("API_HTTPS_PORT", "0"),
            ("SHARDS", "1"),
            ("LOG_LEVEL", "info"),
        ])
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the gateway's binary can be started");
    let text = Arc::new(Mutex::new(String::new()));
    let (sender, ready) = mpsc::channel();
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let readers = vec![collect(stdout, Arc::clone(&text), Some(sender)), collect(stderr, Arc::clone(&text), None)];
    (child, Log { text, readers }, ready)
}

/// Copies a stream into the log. `ready` gets the line with the addresses and hangs up when the stream ends.
fn collect(
    stream: impl Read + Send + 'static,
    log: Arc<Mutex<String>>,
    ready: Option<mpsc::Sender<String>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(stream.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            log.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            if let (Some(ready), Some(addresses)) = (&ready, text.strip_prefix(READY)) {
                let _ = ready.send(addresses.to_owned());
            }
        }
    })
}

fn address(line: &str, name: &str) -> Option<SocketAddr> {
    let text = line.split_whitespace().find_map(|word| word.strip_prefix(name))?;
    let address: SocketAddr = text.parse().ok()?;
    Some((Ipv4Addr::LOCALHOST, address.port()).into())
}
