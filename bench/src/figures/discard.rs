//! A million messages that nobody wants, through Tidegate and through a bare librdkafka consumer.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use xtask::report::{Bound, Finding, Unit};

use super::context::Context;
use super::cpu;
use super::error::FigureError;
use crate::floor::consumer::BareConsumer;
use crate::floor::producer::BareProducer;
use crate::samples;

const MESSAGE_BYTES: usize = 1_000;
const WANTED: &str = "figures.wanted";
const UNWANTED: &str = "figures.unwanted";
/// `id` of the events that show the way from Kafka to the client to be open, and of the one behind the last message.
const PROBE_ID: u64 = 1;
const LAST_ID: u64 = 2;
const PROBE_INTERVAL: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(120);
/// All messages go to one partition, so that the last one is the last to arrive.
const PARTITION: i32 = 0;

pub(super) fn discard(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let messages = context.pick(1_000_000, 200_000);
    let mut finding = Finding::new(
        "drop",
        "1 M × 1 kB Kafka messages consumed and dropped, one client subscribed to another type: messages per CPU-second, of \
         a bare librdkafka consumer",
        Bound::AtLeast(0.7),
        Unit::Ratio,
    );
    for _ in 0..context.pick(3, 1) {
        let floor_us = bare(context, messages)?;
        let ours_us = tidegate(context, messages)?;
        finding.values.push(floor_us / ours_us);
        finding.details.push(format!("{ours_us:.2} µs of CPU a message; bare consumer {floor_us:.2} µs"));
    }
    Ok(vec![finding])
}

/// Tidegate's CPU per message, in microseconds.
fn tidegate(context: &Context, messages: u64) -> Result<f64, FigureError> {
    let (brokers, topic) = (context.kafka()?.brokers().to_owned(), context.new_topic("drop"));
    let producer = BareProducer::new(&brokers, &topic)?.to_partition(PARTITION);
    producer.send_now(&samples::structured(UNWANTED, 0, MESSAGE_BYTES))?;
    let server = context.tidegate(&[("KAFKA_BROKERS", brokers), ("KAFKA_SOURCE_TOPICS", topic)])?;
    let mut client = Client::subscribe(server.authority())?;
    let began = Instant::now();
    loop {
        producer.send_now(&samples::structured(WANTED, PROBE_ID, MESSAGE_BYTES))?;
        if client.sees(PROBE_ID, PROBE_INTERVAL)? {
            break;
        }
        late_after(began, "the first message through Kafka to a client")?;
    }
    let before = server.sample()?;
    cpu::bound_to(cpu::LOAD, || produce_all(&producer, messages))?;
    if !client.sees(LAST_ID, PATIENCE)? {
        late_after(began, "the last message through Kafka to a client")?;
        return Err(FigureError::Invalid("Tidegate closed the event stream".to_owned()));
    }
    Ok((server.sample()?.cpu_s() - before.cpu_s()) * 1e6 / messages as f64)
}

/// The bare consumer's CPU per message, in microseconds.
fn bare(context: &Context, messages: u64) -> Result<f64, FigureError> {
    let (brokers, topic) = (context.kafka()?.brokers().to_owned(), context.new_topic("drop"));
    let producer = BareProducer::new(&brokers, &topic)?.to_partition(PARTITION);
    producer.send_now(&samples::structured(UNWANTED, 0, MESSAGE_BYTES))?;
    let mut consumer = ConsumerProcess::start(&brokers, &topic, messages)?;
    cpu::bound_to(cpu::LOAD, || produce_all(&producer, messages))?;
    let cpu_s: f64 =
        consumer.line()?.parse().map_err(|_| FigureError::Invalid("the consumer said no number".to_owned()))?;
    Ok(cpu_s * 1e6 / messages as f64)
}

/// The producer's process: `messages` events of `message_bytes` bytes that nobody wants.
///
/// # Errors
/// Kafka is out of reach.
pub fn produce(brokers: &str, topic: &str, messages: u64, message_bytes: usize) -> Result<(), FigureError> {
    let producer = BareProducer::new(brokers, topic)?;
    queue_unwanted(&producer, messages, message_bytes)?;
    Ok(producer.flush()?)
}

fn queue_unwanted(producer: &BareProducer, messages: u64, message_bytes: usize) -> Result<(), FigureError> {
    let unwanted = samples::structured(UNWANTED, 0, message_bytes);
    for number in 0..messages {
        producer.queue(&unwanted)?;
        if number % 1_000 == 0 {
            producer.poll();
        }
    }
    Ok(())
}

fn produce_all(producer: &BareProducer, messages: u64) -> Result<(), FigureError> {
    queue_unwanted(producer, messages, MESSAGE_BYTES)?;
    producer.queue(&samples::structured(WANTED, LAST_ID, MESSAGE_BYTES))?;
    Ok(producer.flush()?)
}

fn late_after(began: Instant, what: &str) -> Result<(), FigureError> {
    if began.elapsed() < PATIENCE {
        return Ok(());
    }
    Err(FigureError::Late { what: what.to_owned(), waited_s: PATIENCE.as_secs() })
}

/// The one client: an event stream that wants [`WANTED`].
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn subscribe(authority: &str) -> Result<Self, FigureError> {
        let failed = FigureError::system("connecting a client");
        let mut stream = TcpStream::connect(authority).map_err(&failed)?;
        let subscriptions = format!("%5B%7B%22eventType%22%3A%22{WANTED}%22%7D%5D");
        let path = format!("/_rig/v1/connection/sse?subscriptions={subscriptions}");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {authority}\r\n\r\n").map_err(&failed)?;
        let mut client = Self { stream, received: Vec::new() };
        if !client.sees_text("rig.subscriptions_set", PATIENCE)? {
            return Err(FigureError::Invalid("the subscription was not confirmed".to_owned()));
        }
        Ok(client)
    }

    /// Does an event with this `id` arrive within `timeout`?
    fn sees(&mut self, id: u64, timeout: Duration) -> Result<bool, FigureError> {
        self.sees_text(&format!("\"id\":\"{id}\""), timeout)
    }

    fn sees_text(&mut self, text: &str, timeout: Duration) -> Result<bool, FigureError> {
        let failed = FigureError::system("reading from Tidegate");
        let deadline = Instant::now() + timeout;
        let mut buffer = [0; 16_384];
        while !String::from_utf8_lossy(&self.received).contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.stream.set_read_timeout(Some(left)).map_err(&failed)?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(bytes) => self.received.extend_from_slice(&buffer[..bytes]),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(failed(error)),
            }
        }
        self.received.clear();
        Ok(true)
    }
}

/// The bare consumer in a process of its own, on the CPU that servers get.
struct ConsumerProcess {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl ConsumerProcess {
    /// Starts it and waits until it stands at the end of the topic.
    fn start(brokers: &str, topic: &str, messages: u64) -> Result<Self, FigureError> {
        let failed = FigureError::system("starting the bare consumer");
        let this = std::env::current_exe().map_err(&failed)?;
        let mut command = Command::new(&this);
        command.args(["pinned", "--cpu", &cpu::SERVER.to_string(), "--"]).arg(&this);
        command.args(["consume", "--brokers", brokers, "--topic", topic, "--messages", &messages.to_string()]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(&failed)?;
        let Some(stdout) = child.stdout.take() else {
            return Err(FigureError::Invalid("the bare consumer has no standard output".to_owned()));
        };
        let mut process = Self { child, lines: BufReader::new(stdout).lines() };
        process.line()?;
        Ok(process)
    }

    fn line(&mut self) -> Result<String, FigureError> {
        let ended = || FigureError::Invalid("the bare consumer ended early; its reason stands above".to_owned());
        self.lines.next().ok_or_else(ended)?.map_err(FigureError::system("reading from the bare consumer"))
    }
}

impl Drop for ConsumerProcess {
    fn drop(&mut self) {
        // It has ended by itself unless something failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bare consumer's process: says `ready`, consumes and drops `messages` messages, and says the CPU seconds it took.
///
/// # Errors
/// Kafka is out of reach, or the messages don't come within two minutes.
pub fn consume(brokers: &str, topic: &str, messages: u64) -> Result<(), FigureError> {
    let mut consumer = BareConsumer::from_end(brokers, topic)?;
    // librdkafka connects in the background; that is not what is measured.
    thread::sleep(Duration::from_secs(1));
    println!("ready");
    let (began, before) = (Instant::now(), cpu_s());
    let mut consumed = 0;
    while consumed < messages {
        consumed += consumer.consume(Duration::from_millis(100), |payload| {
            std::hint::black_box(payload.len());
        }) as u64;
        late_after(began, "messages for the bare consumer")?;
    }
    println!("{}", cpu_s() - before);
    Ok(())
}

fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
