//! A node is killed, and its clients go on at another.

use std::time::Duration;

use tidegate_load::{MoveOptions, MovingClients};
use xtask::report::{Bound, Finding, Unit};

use super::context::Context;
use super::cpu;
use super::error::FigureError;
use super::gateway::Gateway;
use super::upgrade::move_faults;

const PARTITIONS: u32 = 4;
const EVENT_BYTES: usize = 256;
/// Events flow for so long before the node is killed.
const LEAD: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn catching_up(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let (clients, rate_per_s) = (context.pick(5_000, 300), context.pick(10_000.0, 1_000.0));
    let mut finding = Finding::new(
        "killed-node",
        &format!(
            "SIGKILL of a node with {clients} clients and {rate_per_s:.0} events a second; all go to another node that nobody has used \
             yet, and miss nothing: slowest client, from the end of its connection to having everything"
        ),
        Bound::Below(30_000.0),
        Unit::Milliseconds,
    );
    let options = MoveOptions {
        brokers: context.kafka()?.brokers().to_owned(),
        topic: context.new_topic("killed"),
        partitions: PARTITIONS,
        clients,
        rate_per_s,
        event_bytes: EVENT_BYTES,
        longest_s: 120.0,
    };
    options.create_topic()?;
    let settings = [
        ("KAFKA_BROKERS", options.brokers.clone()),
        ("KAFKA_SOURCE_TOPICS", options.topic.clone()),
        ("EXTRACTORS", MoveOptions::extractors()),
    ];
    let (mut first, second) = (Gateway::start(context, &settings)?, Gateway::start(context, &settings)?);
    let nodes = vec![first.address()?, second.address()?];
    context.say(&format!("connecting {clients} clients"));
    let report = cpu::bound_to(cpu::LOAD, || {
        let fleet = MovingClients::start(&options, nodes)?;
        std::thread::sleep(LEAD);
        fleet.go_to(1);
        first.server.kill();
        let all_moved = fleet.wait_until_moved(PATIENCE);
        if let Err(error) = all_moved {
            finding.problems.push(error.to_string());
        }
        fleet.conclude()
    })?;
    finding.values.push(report.away_ms_at(1.0) as f64);
    finding.details.push(format!(
        "caught up after {} ms (p50), {} ms (p99), {} ms (slowest), of which 20 to 600 ms each client waits by itself before it \
         connects; {} events in all, {} delivered; {:.0} passes over the topic, {:.0} messages read again",
        report.away_ms_at(0.5),
        report.away_ms_at(0.99),
        report.away_ms_at(1.0),
        report.published,
        report.deliveries,
        second.metric("tidegate_replay_passes_total")?,
        second.metric("tidegate_replay_messages_total")?,
    ));
    finding.problems.extend(move_faults(&report));
    Ok(vec![finding])
}
