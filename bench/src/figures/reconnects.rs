//! Clients that all come back at once: 10,000 cursors 100,000 events back, while others get live events.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use tidegate_load::{KafkaSource, Load, LoadError, Report, Scenario, Source, Target, Transport, Workload};
use xtask::report::{Bound, Finding, Unit};

use super::context::{Context, faults};
use super::cpu;
use super::error::FigureError;
use super::gateway::{Gateway, connect};
use crate::floor::producer::BareProducer;

const EVENT_TYPE: &str = "com.example.figures.missed";
const LIVE_TYPE: &str = "com.example.figures.live";
/// The field by which each client has its own events.
const EXTRACTORS: &str =
    r#"{"com.example.figures.missed":{"client":{"stable_field_index":1,"event":{"json_pointer":"/data/client"}}}}"#;
const FILLER_BYTES: usize = 150;
const LIVE_CONNECTIONS: u32 = 100;
const LIVE_RATE_PER_S: f64 = 200.0;
/// The live clients get events this long, in seconds; those who come back begin after [`LEAD`].
const LIVE_S: f64 = 25.0;
const LEAD: Duration = Duration::from_secs(4);

pub(super) fn catching_up(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let (clients, events) = (context.pick(10_000, 200), context.pick(100_000, 2_000));
    let mut passes = Finding::new(
        "reconnects",
        &format!(
            "{clients} event streams come back at once with cursors {events} events back, to a node that knows nothing of them, \
             and get all they missed: messages read again, of those in the topic"
        ),
        Bound::Below(2.01),
        Unit::Ratio,
    );
    let mut live = Finding::new(
        "reconnects-live",
        &format!("The same: p99 of the delay of {LIVE_CONNECTIONS} live clients meanwhile"),
        Bound::Below(50_000.0),
        Unit::Microseconds,
    );
    let (brokers, topic) = (context.kafka()?.brokers().to_owned(), context.new_topic("missed"));
    let producer = BareProducer::new(&brokers, &topic)?;
    // For nobody: with it the topic is there.
    producer.send_now(&event(u64::MAX, 0))?;
    let cursor = {
        let node = start(context, &brokers, &topic)?;
        let mut stream = open(&node, 0, None)?;
        cursor_in(&read_until(&mut stream, |text| cursor_in(text).is_some())?)
            .ok_or_else(|| FigureError::Invalid("a stream began without a cursor".to_owned()))?
    };
    for number in 0..events {
        producer.queue(&event(number % clients, number))?;
    }
    producer.flush()?;

    let node = start(context, &brokers, &topic)?;
    let (watched, watching) = (watch(&node, &brokers, &topic), Instant::now());
    thread::sleep(LEAD);
    let began = Instant::now();
    let mut streams = Vec::new();
    for client in 0..clients {
        streams.push(open(&node, client, Some(&cursor))?);
    }
    let opened_s = began.elapsed().as_secs_f64();
    let mut wrong = 0;
    for (client, stream) in streams.iter_mut().enumerate() {
        let expected: Vec<u64> = (client as u64..events).step_by(usize::try_from(clients).unwrap_or(1)).collect();
        let text = read_until(stream, |text| numbers(text).len() >= expected.len() || text.contains("history_lost"))?;
        let mut seen = numbers(&text);
        seen.sort_unstable();
        wrong += u64::from(seen != expected || text.contains("history_lost"));
    }
    let took_s = began.elapsed().as_secs_f64();
    let read = node.metric("tidegate_replay_messages_total")?;
    // The live clients' events are in the same topic.
    let in_topic = events as f64 + watching.elapsed().as_secs_f64() * LIVE_RATE_PER_S;
    let report = watched.join().map_err(|_| FigureError::Invalid("the load generator panicked".to_owned()))?;
    let report = report.map_err(|error| FigureError::Invalid(format!("the live clients could not be run: {error}")))?;
    passes.values.push(read / in_topic);
    passes.details.push(format!(
        "all had connected after {opened_s:.1} s and had all they missed after {took_s:.1} s; {:.0} passes over the topic",
        node.metric("tidegate_replay_passes_total")?
    ));
    if wrong > 0 {
        passes.problems.push(format!("{wrong} clients missed events, or got some twice"));
    }
    live.problems.extend(faults("live clients", &report));
    let latency =
        report.latency.ok_or_else(|| FigureError::Invalid("no event arrived after the warm-up".to_owned()))?;
    live.values.push(latency.p99_us as f64);
    live.details.push(format!("p50 {} µs, slowest {} µs over {LIVE_S} s", latency.p50_us, latency.max_us));
    Ok(vec![passes, live])
}

fn event(client: u64, number: u64) -> Vec<u8> {
    let filler = "x".repeat(FILLER_BYTES);
    format!(
        r#"{{"specversion":"1.0","type":"{EVENT_TYPE}","source":"/figures","id":"n{number}.","data":{{"client":{client},"text":"{filler}"}}}}"#
    )
    .into_bytes()
}

fn start(context: &Context, brokers: &str, topic: &str) -> Result<Gateway, FigureError> {
    let settings = [
        ("KAFKA_BROKERS", brokers.to_owned()),
        ("KAFKA_SOURCE_TOPICS", topic.to_owned()),
        ("EXTRACTORS", EXTRACTORS.to_owned()),
    ];
    Gateway::start(context, &settings)
}

/// Asks for a client's events; what comes is read later.
fn open(gateway: &Gateway, client: u64, cursor: Option<&str>) -> Result<TcpStream, FigureError> {
    let mut stream = connect(&gateway.inbound)?;
    let subscriptions =
        format!("%5B%7B%22eventType%22%3A%22{EVENT_TYPE}%22%2C%22oneOf%22%3A%5B%7B%22client%22%3A{client}%7D%5D%7D%5D");
    let cursor = cursor.map_or_else(String::new, |cursor| format!("last-event-id: {cursor}\r\n"));
    let head =
        format!("GET /_rig/v1/connection/sse?subscriptions={subscriptions} HTTP/1.1\r\nhost: figures\r\n{cursor}\r\n");
    stream.write_all(head.as_bytes()).map_err(FigureError::system("asking for an event stream"))?;
    Ok(stream)
}

/// The live clients, on a thread of their own.
fn watch(gateway: &Gateway, brokers: &str, topic: &str) -> thread::JoinHandle<Result<Report, LoadError>> {
    let load = Load {
        rate_per_s: LIVE_RATE_PER_S,
        duration_s: LIVE_S,
        warmup_s: 1.0,
        event_bytes: 200,
        max_outstanding: None,
    };
    let workload = Workload::Broadcast { connections: LIVE_CONNECTIONS, load };
    let mut scenario = Scenario::new(workload, Target::new(&format!("http://{}", gateway.inbound), Transport::Ws));
    scenario.event_type = LIVE_TYPE.to_owned();
    scenario.source =
        Source::Kafka(KafkaSource { brokers: brokers.to_owned(), topic: topic.to_owned(), settings: Vec::new() });
    scenario.observe.pin_cpu = Some(cpu::LOAD);
    thread::spawn(move || tidegate_load::run(&scenario))
}

fn read_until(stream: &mut TcpStream, complete: impl Fn(&str) -> bool) -> Result<String, FigureError> {
    let (mut seen, mut buffer) = (String::new(), [0; 16_384]);
    while !complete(&seen) {
        match stream.read(&mut buffer).map_err(FigureError::system("waiting for events"))? {
            0 => return Err(FigureError::Invalid("an event stream ended".to_owned())),
            received => seen.push_str(&String::from_utf8_lossy(&buffer[..received])),
        }
    }
    Ok(seen)
}

/// The newest whole cursor in the text of a stream.
fn cursor_in(text: &str) -> Option<String> {
    let (_, rest) = text.rsplit_once("\nid: ")?;
    rest.split_once('\n').map(|(cursor, _)| cursor.to_owned())
}

/// The numbers of the events in the text of a stream.
fn numbers(text: &str) -> Vec<u64> {
    let after = text.split("\"id\":\"n").skip(1);
    after.filter_map(|rest| rest.split_once('.').and_then(|(number, _)| number.parse().ok())).collect()
}
