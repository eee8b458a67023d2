//! Each event for one client out of thousands, from Kafka: its cost, and its delay beside that of Kafka alone.

use tidegate_load::{KafkaSource, KeyOrder, Load, Report, Scenario, Source, Target, Transport, Workload};
use xtask::report::{Bound, Finding, Unit};

use super::context::{Context, faults, server_cpu_s};
use super::cpu;
use super::error::FigureError;
use crate::floor::delay::{self, Flow};
use crate::floor::pace::Pace;
use crate::floor::server::Delivery;
use crate::samples;

const RATE_PER_S: f64 = 31_000.0;
const EVENT_BYTES: usize = 512;
const EVENT_TYPE: &str = "load.unicast";
const COST_CONNECTIONS: u32 = 5_000;
const DELAY_CONNECTIONS: u32 = 15_000;

pub(super) fn cost(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let mut finding = Finding::new(
        "unicast",
        "Unicast, 5,000 clients with a key each, 31,000 events a second of 512 bytes from Kafka: deliveries per CPU-second \
         of the whole process, of the raw floor (one send per delivery, no Kafka, no filter)",
        Bound::AtLeast(0.5),
        Unit::Ratio,
    );
    let duration_s = context.pick(8.0, 4.0);
    for _ in 0..context.pick(3, 1) {
        let floor_rate = floor(context, duration_s)?;
        let ours = run(context, COST_CONNECTIONS, duration_s)?;
        let rate = ours.deliveries as f64 / server_cpu_s(&ours)?;
        finding.values.push(rate / floor_rate);
        finding.details.push(format!(
            "{:.0} thousand deliveries per CPU-second at {:.0} thousand a second; floor {:.0}",
            rate / 1e3,
            ours.deliveries_per_s / 1e3,
            floor_rate / 1e3,
        ));
        finding.problems.extend(faults("tidegate", &ours));
    }
    Ok(vec![finding])
}

pub(super) fn delay(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let mut finding = Finding::new(
        "delay",
        "15,000 clients, each its own key, 31,000 events a second of 512 bytes from Kafka, all on this machine: p99 of the \
         delay, in times that of bare Kafka, and nothing missing",
        Bound::Below(3.0),
        Unit::Ratio,
    );
    let duration_s = context.pick(10.0, 5.0);
    for _ in 0..context.pick(3, 1) {
        let flow = Flow {
            rate_per_s: RATE_PER_S,
            duration_s,
            warmup_s: 1.0,
            message_bytes: EVENT_BYTES,
            producer_cpu: cpu::LOAD,
            consumer_cpu: cpu::SERVER,
        };
        let bare = delay::measure(context.kafka()?.brokers(), &context.new_topic("bare"), flow)?;
        let ours = run(context, DELAY_CONNECTIONS, duration_s)?;
        finding.problems.extend(faults("tidegate", &ours));
        let Some(latency) = &ours.latency else {
            return Err(FigureError::Invalid("no event arrived after the warm-up".to_owned()));
        };
        let bare_p99_us = bare.value_at_quantile(0.99);
        finding.values.push(latency.p99_us as f64 / bare_p99_us.max(1) as f64);
        finding.details.push(format!(
            "p50 {:.1} ms, p99 {:.1} ms; bare Kafka p50 {:.1} ms, p99 {:.1} ms; {} missing of {}",
            latency.p50_us as f64 / 1e3,
            latency.p99_us as f64 / 1e3,
            bare.value_at_quantile(0.5) as f64 / 1e3,
            bare_p99_us as f64 / 1e3,
            ours.audit.missing,
            ours.audit.expected,
        ));
    }
    Ok(vec![finding])
}

/// Deliveries per CPU-second of a floor that makes its events itself.
fn floor(context: &Context, duration_s: f64) -> Result<f64, FigureError> {
    let pace = Pace { rate_per_s: RATE_PER_S, event_bytes: EVENT_BYTES, connections: COST_CONNECTIONS as usize };
    let server = context.floor(Delivery::Each, Some(pace))?;
    let workload = Workload::Idle { connections: COST_CONNECTIONS, duration_s };
    let report = context.load(Scenario::new(workload, Target::new(server.url(), Transport::Ws)), &server)?;
    let deliveries = RATE_PER_S * report.measured_s;
    let events = report.messages.saturating_sub(u64::from(COST_CONNECTIONS)) as f64;
    if events < 0.98 * deliveries {
        let reason =
            format!("the floor delivered {events:.0} of {deliveries:.0} events: this machine is too slow for it");
        return Err(FigureError::Invalid(reason));
    }
    Ok(deliveries / server_cpu_s(&report)?)
}

fn run(context: &Context, connections: u32, duration_s: f64) -> Result<Report, FigureError> {
    let (brokers, topic) = (context.kafka()?.brokers().to_owned(), context.new_topic("unicast"));
    let server = context.tidegate(&[
        ("KAFKA_BROKERS", brokers.clone()),
        ("KAFKA_SOURCE_TOPICS", topic.clone()),
        ("EXTRACTORS", samples::extractors_for(EVENT_TYPE)),
    ])?;
    let load =
        Load { rate_per_s: RATE_PER_S, duration_s, warmup_s: 1.0, event_bytes: EVENT_BYTES, max_outstanding: None };
    let workload = Workload::Unicast { connections, load, keys: KeyOrder::RoundRobin };
    let mut scenario = Scenario::new(workload, Target::new(server.url(), Transport::Ws));
    scenario.event_type = EVENT_TYPE.to_owned();
    scenario.source = Source::Kafka(KafkaSource { brokers, topic, settings: Vec::new() });
    context.load(scenario, &server)
}
