//! A gateway process under measurement.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::error::TuneError;
use crate::measurement::Traffic;
use crate::orphan;

/// Longest wait for its ports.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// What is kept of its standard error.
const MAX_STDERR_BYTES: u64 = 4_096;
/// No limit to the rate of connections: the generator opens them all at once.
const CONNECTIONS_PER_MINUTE: &str = "100000000";

/// A running gateway; ended when dropped.
#[derive(Debug)]
pub(crate) struct GatewayProcess {
    child: Child,
    url: String,
}

impl GatewayProcess {
    /// Starts `binary serve` with one shard on each of `cores`, on free loopback ports, with the local hub. Nothing of
    /// this process's environment reaches it, so that settings of a production gateway don't either.
    pub(crate) fn start(binary: &Path, cores: &[usize], event_types: &[String]) -> Result<Self, TuneError> {
        let shards = cores.len();
        let fail = |reason: String| TuneError::Gateway { shards, reason };
        let mut command = Command::new(binary);
        command
            .env_clear()
            .arg("serve")
            .args(["--inbound-host", "127.0.0.1", "--inbound-port", "0"])
            .args(["--internal-host", "127.0.0.1", "--api-http-port", "0"])
            .args(["--max-connections-per-minute", CONNECTIONS_PER_MINUTE])
            .args(["--log-level", "error", "--prometheus-metrics-enabled=false"])
            .args(["--shards", &shards.to_string(), "--cpus", &list(cores)])
            .args(["--extractors", &extractors(event_types)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = orphan::end_with_parent(&mut command)
            .spawn()
            .map_err(|error| fail(format!("{} can't be run: {error}", binary.display())))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut gateway = Self { child, url: String::new() };
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(fail("its output can't be read".to_owned()));
        };
        let address = watch_stdout(stdout).map_err(TuneError::system("starting a thread"))?;
        let complaint = watch_stderr(stderr).map_err(TuneError::system("starting a thread"))?;
        match address.recv_timeout(START_TIMEOUT) {
            Ok(url) => gateway.url = url,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(fail(format!("it named no address within {} s", START_TIMEOUT.as_secs())));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let said = complaint.recv_timeout(START_TIMEOUT).unwrap_or_default();
                let said = said.trim();
                let reason = if said.is_empty() { "it ended without a word".to_owned() } else { said.to_owned() };
                return Err(fail(reason));
            }
        }
        Ok(gateway)
    }

    /// Its address for clients, `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for GatewayProcess {
    fn drop(&mut self) {
        // It holds nothing that must be saved, and waiting for its clients to leave would take time from the measuring.
        // Both calls fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends the client address as soon as the ready line names it, and reads on so that the pipe never fills.
fn watch_stdout(stdout: impl Read + Send + 'static) -> io::Result<Receiver<String>> {
    let (found, address) = mpsc::channel();
    thread::Builder::new().name("gateway-stdout".to_owned()).spawn(move || {
        let mut found = Some(found);
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let (Some(found_now), Some(url)) = (&found, client_address(&line)) {
                let _receiver_is_gone = found_now.send(url);
                found = None;
            }
        }
    })?;
    Ok(address)
}

/// Sends the beginning of what stands on standard error once that is closed.
fn watch_stderr(mut stderr: impl Read + Send + 'static) -> io::Result<Receiver<String>> {
    let (sender, complaint) = mpsc::channel();
    thread::Builder::new().name("gateway-stderr".to_owned()).spawn(move || {
        let mut start = Vec::new();
        let read = stderr.by_ref().take(MAX_STDERR_BYTES).read_to_end(&mut start);
        let rest = io::copy(&mut stderr, &mut io::sink());
        let mut text = String::from_utf8_lossy(&start).into_owned();
        if let Err(error) = read.and(rest.map(|_| 0)) {
            let _infallible = write!(text, " (its standard error broke off: {error})");
        }
        let _receiver_is_gone = sender.send(text);
    })?;
    Ok(complaint)
}

/// The client side in the line `tidegate ready inbound=127.0.0.1:4000 internal=…`, of several addresses the first.
fn client_address(line: &str) -> Option<String> {
    let mut words = line.strip_prefix("tidegate ready ")?.split_ascii_whitespace();
    let addresses = words.find_map(|word| word.strip_prefix("inbound="))?;
    let first = addresses.split(',').next().filter(|first| !first.is_empty())?;
    Some(format!("http://{first}"))
}

fn list(cores: &[usize]) -> String {
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Extractors that let clients filter the unicast events of `event_types` by their key.
fn extractors(event_types: &[String]) -> String {
    let field = || serde_json::json!({ "key": { "stable_field_index": 1, "event": { "json_pointer": "/data/key" } } });
    serde_json::Value::Object(event_types.iter().map(|name| (name.clone(), field())).collect()).to_string()
}

/// The type of the events of one generator.
pub(crate) fn event_type(traffic: Traffic, generator: usize) -> String {
    format!("tune.{}.{generator}", traffic.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_address_is_found_in_the_ready_line() {
        let line = "tidegate ready inbound=127.0.0.1:35211 internal=127.0.0.1:4010";
        assert_eq!(client_address(line).as_deref(), Some("http://127.0.0.1:35211"));
        let two = "tidegate ready inbound=127.0.0.1:1,127.0.0.2:1 internal=127.0.0.1:2";
        assert_eq!(client_address(two).as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(client_address("tidegate ready internal=127.0.0.1:2"), None);
        assert_eq!(client_address("tidegate ready inbound="), None);
        assert_eq!(client_address("  clients   http://127.0.0.1:4000 (event streams)"), None);
    }

    #[test]
    fn unicast_keys_are_extracted_from_the_events() {
        let json: serde_json::Value = serde_json::from_str(&extractors(&["tune.unicast.0".to_owned()])).unwrap();
        assert_eq!(json["tune.unicast.0"]["key"]["event"]["json_pointer"], "/data/key");
    }

    #[test]
    fn a_gateway_that_ends_at_once_is_reported_with_what_it_said() {
        let error = GatewayProcess::start(Path::new("/bin/cat"), &[0], &[]).unwrap_err().to_string();
        assert!(error.contains("1 shards did not start") && error.contains("cat:"), "{error}");
        assert!(error.contains("tidegate check"), "{error}");
    }

    #[test]
    fn a_binary_that_is_not_there_is_named() {
        let error = GatewayProcess::start(Path::new("/nowhere/tidegate"), &[0], &[]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/tidegate"), "{error}");
    }
}
