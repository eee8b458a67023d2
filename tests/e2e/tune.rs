//! `tidegate tune`: measures this machine in a few seconds and recommends a shard count.

use std::process::{Command, Output};

/// Runs `tidegate tune` for two seconds and returns what it printed.
fn tune(arguments: &[&str]) -> Output {
    let binary = std::env::var_os("TIDEGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into());
    let mut command = Command::new(binary);
    command.env_clear().args(["tune", "--seconds", "2"]).args(arguments);
    let output = command.output().expect("the gateway's binary can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn the_table_ends_with_a_recommendation_and_the_picture_is_drawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = folder.path().join("tune.svg");
    let output = tune(&["--svg", picture.to_str().expect("UTF-8")]);
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(table.starts_with("shards  traffic"), "{table}");
    for traffic in ["broadcast", "unicast"] {
        let rows = table.lines().filter(|line| line.trim_start().starts_with(&format!("1  {traffic}")));
        assert_eq!(rows.count(), 1, "one row of {traffic} at one shard: {table}");
    }
    assert!(table.contains("Recommended: --shards "), "{table}");
    assert!(!table.contains("WARNING: events were missing"), "every event arrived: {table}");
    let progress = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(progress.starts_with("1 shard     broadcast"), "{progress}");
    let picture = std::fs::read_to_string(picture).expect("the picture was written");
    assert!(picture.starts_with("<svg ") && picture.contains("class=\"best\""), "{picture}");
}

#[test]
fn the_same_is_given_as_json() {
    let output = tune(&["--json"]);
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    let measurements = outcome["measurements"].as_array().expect("measurements");
    assert!(measurements.len() >= 2, "{outcome:#}");
    for found in measurements {
        let positive = |name: &str| found[name].as_f64().is_some_and(|figure| figure > 0.0);
        for name in ["deliveries_per_s", "p99_us", "cpu_ms_per_thousand", "payload_bytes_per_s"] {
            assert!(positive(name), "{name} in {found:#}");
        }
        assert_eq!(found["complete"], true, "{found:#}");
    }
    let shards = outcome["recommendation"]["shards"].as_u64().expect("a count");
    assert!((1..=outcome["cores"].as_u64().expect("cores")).contains(&shards), "{outcome:#}");
    assert_eq!(outcome["recommendation"]["reasons"].as_array().map(Vec::len), Some(2), "{outcome:#}");
}

#[test]
fn a_core_that_is_not_there_is_refused() {
    let binary = std::env::var_os("TIDEGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into());
    let output = Command::new(binary).args(["tune", "--cpus", "4000"]).output().expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("4000"), "{said}");
}
