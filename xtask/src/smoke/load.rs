//! Every scenario of the load generator against a gateway of its own, for a second or two: do both still do their work,
//! and is nothing lost? Nothing is measured.

use std::path::Path;
use std::process::Command;

use super::process::Process;
use crate::programs::{self, Profile};
use crate::repository;
use crate::steps::{self, Outcome};

/// Arguments of `tidegate-load`, one line per run.
const RUNS: [&str; 8] = [
    "broadcast --connections 50 --rate 50 --duration 2 --transport ws",
    "broadcast --connections 50 --rate 50 --duration 2 --transport sse",
    "broadcast --connections 20 --rate 50 --duration 2 --transport longpolling",
    "unicast --connections 100 --rate 200 --duration 2",
    "drop --messages 5000 --batch 50",
    "idle --connections 500 --duration 1",
    "churn --total 500 --concurrency 16",
    "slow-clients --connections 20 --slow 2 --rate 100 --duration 2",
];

/// Arguments of `tidegate-load proxy`, one line per run, besides the address.
const CALLS: [&str; 3] = [
    "--connections 20 --duration 2",
    "--connections 20 --duration 2 --method POST --request-bytes 5000 --rate 500",
    "--connections 5 --total 500 --method HEAD",
];

/// Settings of the gateway: ports of its own, the local hub, and what the scenarios' help texts ask for.
const SETTINGS: [(&str, &str); 6] = [
    ("INBOUND_HOST", "127.0.0.1"),
    ("INBOUND_PORT", "0"),
    ("API_HTTP_PORT", "0"),
    ("SHARDS", "2"),
    ("MAX_CONNECTIONS_PER_MINUTE", "1000000"),
    ("EXTRACTORS", r#"{"load.unicast":{"key":{"stable_field_index":1,"event":{"json_pointer":"/data/key"}}}}"#),
];

/// Runs every scenario against a fresh gateway; stops at the first that fails.
#[must_use]
pub fn load() -> Outcome {
    match programs::build(Profile::Ci) {
        Ok(folder) => run_all(&folder).unwrap_or_else(Outcome::failed),
        Err(failure) => failure,
    }
}

fn run_all(binaries: &Path) -> Result<Outcome, String> {
    for run in RUNS {
        let mut command = Command::new(binaries.join("tidegate"));
        let gateway = Process::start(command.env_remove("KAFKA_BROKERS").envs(SETTINGS))
            .map_err(|reason| format!("the gateway {reason}"))?;
        let url = gateway.wait_for_line(url_in).map_err(|reason| format!("the gateway {reason}"))?;
        let mut load = Command::new(binaries.join("tidegate-load"));
        load.args(run.split(' ')).args(["--quiet", "--url", &url, "--server-pid", &gateway.id().to_string()]);
        let outcome = steps::command(load.current_dir(repository::root()));
        if outcome != Outcome::Passed {
            return Ok(outcome);
        }
        gateway.stop().map_err(|reason| format!("the gateway {reason}"))?;
    }
    calls(binaries)
}

/// Calls through the gateway to the load generator's backend.
fn calls(binaries: &Path) -> Result<Outcome, String> {
    let load = binaries.join("tidegate-load");
    let backend = Process::start(Command::new(&load).args(["backend", "--listen", "127.0.0.1:0"]))
        .map_err(|reason| format!("the backend {reason}"))?;
    let port = backend
        .wait_for_line(|line| line.strip_prefix("clients http://127.0.0.1:")?.parse::<u16>().ok())
        .map_err(|reason| format!("the backend {reason}"))?;
    let mut command = Command::new(binaries.join("tidegate"));
    command.env_remove("KAFKA_BROKERS").envs(SETTINGS).env("PROXY_CONFIG_FILE", definition(port));
    let gateway = Process::start(&mut command).map_err(|reason| format!("the gateway {reason}"))?;
    let url = gateway.wait_for_line(url_in).map_err(|reason| format!("the gateway {reason}"))?;
    for run in CALLS {
        let mut command = Command::new(&load);
        command.args(["proxy", "--quiet", "--url", &format!("{url}/load")]).args(run.split(' '));
        let outcome = steps::command(command.current_dir(repository::root()));
        if outcome != Outcome::Passed {
            return Ok(outcome);
        }
    }
    gateway.stop().map_err(|reason| format!("the gateway {reason}"))?;
    Ok(Outcome::Passed)
}

/// An API whose endpoints send `/load` to the backend on this port.
fn definition(port: u16) -> String {
    let endpoint =
        |method: &str| serde_json::json!({"id": method, "method": method, "path_regex": "/load", "target": "http"});
    serde_json::json!([{
        "id": "smoke", "name": "smoke", "auth_type": "none",
        "version_data": {"default": {"endpoints": [endpoint("GET"), endpoint("POST")]}},
        "proxy": {"use_env": false, "target_url": "http://127.0.0.1", "port": port},
    }])
    .to_string()
}

/// The inbound address in the line with which the gateway says that it serves, as a URL on loopback.
fn url_in(line: &str) -> Option<String> {
    let addresses = line.strip_prefix("tidegate ready ")?;
    let inbound = addresses.split_whitespace().find_map(|word| word.strip_prefix("inbound="))?;
    let (_, port) = inbound.rsplit_once(':')?;
    Some(format!("http://127.0.0.1:{port}"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_inbound_address_is_found_in_the_line_that_says_ready() {
        let line = "tidegate ready inbound=127.0.0.1:40123 internal=127.0.0.1:40124";
        assert_eq!(url_in(line).as_deref(), Some("http://127.0.0.1:40123"));
        assert_eq!(url_in("tidegate 0.1.0 inbound=127.0.0.1:1"), None);
    }

    #[test]
    fn the_definition_names_the_backends_port() {
        let definition: Value = serde_json::from_str(&definition(9_001)).unwrap();
        assert_eq!(definition[0]["proxy"]["port"], 9_001);
    }

    #[test]
    fn the_extractors_of_the_runs_are_json() {
        let (_, text) = SETTINGS.into_iter().find(|(name, _)| *name == "EXTRACTORS").unwrap();
        let extractors: Value = serde_json::from_str(text).unwrap();
        assert!(extractors["load.unicast"]["key"].is_object());
    }
}
