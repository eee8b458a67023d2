//! A million requests that nobody answers: does the gateway's memory come back?

use std::thread;
use std::time::Duration;

use tidegate_load::{CallLoad, CallPath, CallScenario, HttpCalls};
use xtask::report::{Bound, Finding, Unit};

use super::context::Context;
use super::error::FigureError;
use super::process::Server;

const CONNECTIONS: u32 = 1_000;
const EVENT_BYTES: usize = 200;
/// What the gateway waits for an answer, in milliseconds.
const TIMEOUT_MS: u64 = 50;
/// One part in this many of all requests comes before the first look at memory.
const WARMING_PART: u64 = 20;
/// Longest time for all requests of one look, in seconds.
const LONGEST_S: f64 = 600.0;
/// Time for timers to run out and the allocator to give back what was freed last.
const REST: Duration = Duration::from_secs(5);
const PATH: &str = "/ask";

pub(super) fn memory(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let requests: u64 = context.pick(1_000_000, 10_000);
    let mut finding = Finding::new(
        "unanswered",
        &format!(
            "RSS after {requests} requests to a kafka endpoint with response_from kafka that no service answers: growth since \
             the first {}",
            requests / WARMING_PART
        ),
        Bound::Below(10.0),
        Unit::Percent,
    );
    let gateway = gateway(context)?;
    let fresh = gateway.sample()?.rss_bytes;
    ask(context, &gateway, requests / WARMING_PART, &mut finding)?;
    let warm = gateway.sample()?.rss_bytes;
    ask(context, &gateway, requests, &mut finding)?;
    let after = gateway.sample()?.rss_bytes;
    finding.values.push((after as f64 / warm as f64 - 1.0) * 100.0);
    finding.details.insert(
        0,
        format!(
            "{:.1} MiB after the start, {:.1} after the first requests, {:.1} at the end",
            mebibytes(fresh),
            mebibytes(warm),
            mebibytes(after)
        ),
    );
    Ok(vec![finding])
}

/// Makes so many requests, each of which must time out, and waits until nothing of them can be left.
fn ask(context: &Context, gateway: &Server, requests: u64, finding: &mut Finding) -> Result<(), FigureError> {
    let calls = HttpCalls::events(&format!("{}{PATH}", gateway.url()), EVENT_BYTES);
    let load = CallLoad {
        concurrency: CONNECTIONS,
        duration_s: LONGEST_S,
        total: Some(requests),
        warmup_s: 0.0,
        ..CallLoad::default()
    };
    let report = context.calls(CallScenario::new(CallPath::Http(calls), load), gateway)?;
    if report.statuses != [(504, requests)] {
        let statuses: Vec<String> =
            report.statuses.iter().map(|(status, count)| format!("{count} times {status}")).collect();
        finding.problems.push(format!("each of {requests} requests should get 504; {}", statuses.join(", ")));
        finding.problems.extend(report.first_failure);
    }
    finding.details.push(format!("{requests} requests at {:.0} a second", report.calls_per_s));
    thread::sleep(REST);
    Ok(())
}

fn gateway(context: &Context) -> Result<Server, FigureError> {
    let (brokers, topic) = (context.kafka()?.brokers().to_owned(), context.new_topic("asked"));
    let definition = serde_json::json!([{
        "id": "figures", "name": "figures", "auth_type": "none",
        "version_data": {"default": {"endpoints": [
            {"id": "ask", "method": "POST", "path_regex": PATH, "target": "kafka", "topic": topic, "response_from": "kafka"},
        ]}},
        "proxy": {"use_env": false, "target_url": "http://127.0.0.1", "port": 9},
    }]);
    context.tidegate(&[
        ("KAFKA_BROKERS", brokers),
        ("KAFKA_SOURCE_TOPICS", context.new_topic("unused")),
        ("PROXY_KAFKA_RESPONSE_TOPICS", context.new_topic("answers")),
        ("PROXY_KAFKA_RESPONSE_TIMEOUT", TIMEOUT_MS.to_string()),
        ("PROXY_CONFIG_FILE", definition.to_string()),
    ])
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
