//! WebSocket conformance: the Autobahn cases, driven by kosoku against an echo on the production codec.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::gateway::Gateway;

/// Groups of the suite that must pass: framing, pings, reserved bits, opcodes, fragments, UTF-8,
/// close handshake, limits, auto-fragmentation. (12 and 13 are compression, which isn't offered.)
const GROUPS: [&str; 9] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"];

/// The suite has more cases in these groups than this; fewer mean that it did not run whole.
const LEAST_CASES: usize = 290;

/// Room for the suite's largest message, 16 MiB.
const MAX_MESSAGE_BYTES: &str = "33554432";

/// `KOSOKU`, or the environment that `cargo xtask` prepares.
fn kosoku() -> Option<PathBuf> {
    let prepared = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/venv/bin/kosoku");
    std::env::var_os("KOSOKU").map(PathBuf::from).or_else(|| prepared.exists().then_some(prepared))
}

#[test]
fn every_autobahn_case_of_groups_1_to_7_9_and_10_passes() {
    let Some(kosoku) = kosoku() else {
        xtask::skip::announce("autobahn", &"kosoku is missing; `cargo xtask test` installs it, or set KOSOKU");
        return;
    };
    let gateway = Gateway::with(&[
        ("TEST_ECHO_ENDPOINT", "true"),
        ("MAX_MESSAGE_BYTES", MAX_MESSAGE_BYTES),
        ("MAX_QUEUE_BYTES", MAX_MESSAGE_BYTES),
        ("MAX_CONNECTIONS_PER_MINUTE", "100000"),
    ]);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut command = Command::new(kosoku);
    command.args(["--mode", "fuzzingclient", "--parallelism", "4", "--outdir"]).arg(folder.path());
    for group in GROUPS {
        command.args(["--include", group]);
    }
    command.arg(format!("ws://{}/_tidegate/test/echo", gateway.inbound()));
    let output = command.output().expect("kosoku can be started");
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));

    let report = std::fs::read(folder.path().join("index.json")).unwrap_or_else(|error| panic!("{error}: {printed}"));
    let report: Value = serde_json::from_slice(&report).expect("the report is JSON");
    let cases: Vec<_> = report
        .as_object()
        .expect("the report maps agents to cases")
        .values()
        .flat_map(|cases| cases.as_object().expect("cases by id"))
        .collect();
    assert!(cases.len() >= LEAST_CASES, "only {} cases ran: {printed}", cases.len());
    let failed: Vec<_> = cases
        .iter()
        .filter(|(_, case)| !passed(case))
        .map(|(id, case)| format!("{id}: {} / close {}", case["behavior"], case["behaviorClose"]))
        .collect();
    assert!(failed.is_empty(), "{} of {} cases failed: {failed:#?}", failed.len(), cases.len());
}

/// Strict, or informational where the protocol leaves it open; `NON-STRICT` is not good enough.
fn passed(case: &Value) -> bool {
    ["behavior", "behaviorClose"].iter().all(|key| matches!(case[*key].as_str(), Some("OK" | "INFORMATIONAL")))
}

#[test]
fn the_echo_endpoint_is_hidden_unless_asked_for() {
    let gateway = Gateway::start();
    let response = gateway.call(crate::support::websocket_frames::upgrade("/_tidegate/test/echo"));
    assert_eq!(response.status, 404);
}
