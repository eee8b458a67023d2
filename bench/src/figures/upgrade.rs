//! A successor takes over the ports of a gateway that is in use.

use std::time::Duration;

use tidegate_load::{CallLoad, CallPath, CallReport, CallScenario, HttpCalls, MoveOptions, MoveReport, MovingClients};
use xtask::report::{Bound, Finding, Unit};

use super::context::{Context, call_faults};
use super::cpu;
use super::error::FigureError;
use super::gateway::Gateway;
use super::proxied;

const RATE_PER_S: f64 = 20_000.0;
const EVENT_BYTES: usize = 256;
const PARTITIONS: u32 = 4;
/// Events flow for so long before the successor starts.
const LEAD: Duration = Duration::from_secs(3);
/// Besides the time of the drain: for the last ones to come back and to catch up.
const GRACE: Duration = Duration::from_secs(30);
const CALLS_PER_S: f64 = 200.0;
const CALL_CONNECTIONS: u32 = 20;
const ANSWER_BYTES: usize = 200;
/// The part of the drain in which connections are moved away.
const MOVING_PART: f64 = 0.9;

pub(super) fn takeover(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let (clients, drain_s) = (context.pick(10_000, 300), context.pick(30, 5));
    let pace_per_s = f64::from(clients) / (drain_s as f64 * MOVING_PART);
    let mut finding = Finding::new(
        "upgrade",
        &format!(
            "A successor takes over the ports of a gateway with {clients} clients, {RATE_PER_S:.0} events a second and \
             {CALLS_PER_S:.0} proxied requests a second: most reconnects within a second, of what DRAIN_SECONDS={drain_s} spreads \
             them to ({pace_per_s:.0})"
        ),
        Bound::Below(1.25),
        Unit::Ratio,
    );
    let backend = context.backend(ANSWER_BYTES)?;
    let options = MoveOptions {
        brokers: context.kafka()?.brokers().to_owned(),
        topic: context.new_topic("upgrade"),
        partitions: PARTITIONS,
        clients,
        rate_per_s: context.pick(RATE_PER_S, 2_000.0),
        event_bytes: EVENT_BYTES,
        longest_s: 150.0,
    };
    options.create_topic()?;
    let settings = |inbound: &str, internal: &str, takeover: bool| {
        vec![
            ("KAFKA_BROKERS", options.brokers.clone()),
            ("KAFKA_SOURCE_TOPICS", options.topic.clone()),
            ("EXTRACTORS", MoveOptions::extractors()),
            ("PROXY_CONFIG_FILE", proxied::definition(&backend)),
            ("INBOUND_PORT", port(inbound)),
            ("API_HTTP_PORT", port(internal)),
            ("DRAIN_SECONDS", drain_s.to_string()),
            ("TAKEOVER", takeover.to_string()),
        ]
    };
    let mut old = Gateway::start(context, &settings(":0", ":0", false))?;
    let address = old.address()?;
    context.say(&format!("connecting {clients} clients"));
    let (moved, called, ended) = cpu::bound_to(cpu::LOAD, || {
        let fleet = MovingClients::start(&options, vec![address])?;
        let calls = std::thread::spawn({
            let url = format!("http://{address}{}", proxied::PATH);
            let duration_s = LEAD.as_secs_f64() + drain_s as f64 + 5.0;
            move || calls(&url, duration_s)
        });
        std::thread::sleep(LEAD);
        let successor = Gateway::start(context, &settings(&old.inbound, &old.internal, true))?;
        context.say("the successor listens; SIGTERM");
        old.server.terminate()?;
        let patience = Duration::from_secs(drain_s) + GRACE;
        let all_moved = fleet.wait_until_moved(patience);
        let ended = old.server.wait_until_ended(GRACE)?;
        let report = fleet.conclude()?;
        let called = calls.join().map_err(|_| FigureError::Invalid("the caller's thread panicked".to_owned()))??;
        drop(successor);
        // Whoever has not moved stands in the report, with the reason here.
        if let Err(error) = all_moved {
            finding.problems.push(error.to_string());
        }
        Ok::<_, FigureError>((report, called, ended))
    })?;
    finding.values.push(moved.most_connects_per_s as f64 / pace_per_s);
    finding.details.push(format!(
        "{} reconnects within {:.1} s, at most {} within a second; all had caught up {:.1} s after the first was moved; away for {} ms \
         (p50), {} ms (p99), {} ms at most, of which 0.5 to 3 s are the gateway's own wish for event streams",
        moved.connects,
        moved.cut_within_s,
        moved.most_connects_per_s,
        moved.all_back_s,
        moved.away_ms_at(0.5),
        moved.away_ms_at(0.99),
        moved.away_ms_at(1.0),
    ));
    finding.details.push(format!(
        "{:.0} events a second, {} in all, {} delivered; {} of {} requests answered, slowest {:.1} ms",
        moved.published_per_s,
        moved.published,
        moved.deliveries,
        called.counts.answered,
        called.counts.issued,
        called.latency.as_ref().map_or(0, |latency| latency.max_us) as f64 / 1e3,
    ));
    finding.problems.extend(move_faults(&moved));
    finding.problems.extend(call_faults("requests", &called));
    finding.problems.extend(other_ends(&moved));
    if !ended.success() {
        finding.problems.push(format!("the old process ended with {ended}"));
    }
    Ok(vec![finding])
}

fn port(address: &str) -> String {
    address.rsplit_once(':').map_or("0", |(_, port)| port).to_owned()
}

fn calls(url: &str, duration_s: f64) -> Result<CallReport, tidegate_load::LoadError> {
    let load =
        CallLoad { concurrency: CALL_CONNECTIONS, rate_per_s: Some(CALLS_PER_S), duration_s, ..CallLoad::default() };
    tidegate_load::run_calls(&CallScenario::new(CallPath::Http(HttpCalls::get(url)), load), |_| {})
}

/// What is wrong with the clients' move, if anything.
pub(super) fn move_faults(report: &MoveReport) -> Vec<String> {
    if report.passed() {
        return Vec::new();
    }
    let first = report.violations.first().map_or_else(|| "none".to_owned(), ToString::to_string);
    vec![format!(
        "{} of {} clients had everything; {} notices of lost history; {} violations, the first: {first}",
        report.complete, report.clients, report.history_lost, report.violation_count
    )]
}

/// Ends of connections that no client was asked for: refused, reset, cut.
fn other_ends(report: &MoveReport) -> Vec<String> {
    let is_move = |reason: &str| {
        reason.contains("closed the WebSocket with 1012") || reason == "sse: the server ended the connection"
    };
    let others = report.ends.iter().filter(|(reason, _)| !is_move(reason));
    others.map(|(reason, count)| format!("{count} connections ended otherwise: {reason}")).collect()
}
