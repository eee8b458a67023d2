//! Request and response by hand: a producer writes into one topic, an echo writes what it reads there into another, and a
//! consumer reads that. No correlation, no time-out, no answer to the right caller.

use std::io::{self, Read};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::error::{KafkaError, KafkaResult};

use super::consumer::BareConsumer;
use super::producer::BareProducer;

/// All messages go to one partition of each topic.
const PARTITION: i32 = 0;
/// Longest wait for one message.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// librdkafka connects in the background; that is not what is measured.
const SETTLE: Duration = Duration::from_secs(1);
const STAMP_BYTES: usize = 8;

/// What to send back and forth.
#[derive(Clone, Copy, Debug)]
pub struct Volley {
    /// Messages under way at the same time.
    pub window: u64,
    /// Messages in all that are measured.
    pub messages: u64,
    /// Messages before them that are not.
    pub warmup: u64,
    /// Payload of each in bytes.
    pub payload_bytes: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Volleyed {
    /// Round trips in microseconds.
    pub latency: Histogram<u64>,
    /// Seconds that the measured ones took.
    pub elapsed_s: f64,
}

/// Makes the two topics.
///
/// # Errors
/// Kafka is out of reach.
pub fn make_topics(brokers: &str, there: &str, back: &str) -> KafkaResult<()> {
    for topic in [there, back] {
        BareProducer::new(brokers, topic)?.send_now(b"creates the topic")?;
    }
    Ok(())
}

/// The echo's process: says `ready` and echoes until its standard input ends.
///
/// # Errors
/// Kafka is out of reach.
pub fn echo(brokers: &str, there: &str, back: &str) -> KafkaResult<()> {
    let producer = BareProducer::without_linger(brokers, back)?.to_partition(PARTITION);
    let mut consumer = BareConsumer::from_end(brokers, there)?;
    thread::sleep(SETTLE);
    println!("ready");
    let input = thread::spawn(|| io::stdin().read_to_end(&mut Vec::new()));
    while !input.is_finished() {
        let mut refused = None;
        consumer.consume(POLL, |payload| refused = producer.queue(payload).err().or(refused.take()));
        producer.poll();
        if let Some(error) = refused {
            return Err(error);
        }
    }
    producer.flush()
}

/// Sends and receives; `at_start` is called when the measured part begins.
///
/// # Errors
/// Kafka is out of reach, or a message did not come back within 30 seconds.
pub fn volley(
    brokers: &str,
    there: &str,
    back: &str,
    volley: Volley,
    at_start: impl FnOnce(),
) -> KafkaResult<Volleyed> {
    let producer = BareProducer::without_linger(brokers, there)?.to_partition(PARTITION);
    let mut consumer = BareConsumer::from_end(brokers, back)?;
    thread::sleep(SETTLE);
    let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3).expect("invariant: the bounds are valid");
    let mut payload = vec![b'x'; volley.payload_bytes.max(STAMP_BYTES)];
    let base = Instant::now();
    let now_ns = || u64::try_from(base.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let (mut sent, mut received, mut began, mut at_start) = (0, 0, base, Some(at_start));
    let total = volley.warmup + volley.messages;
    let mut last = Instant::now();
    while received < total {
        while sent < total && sent - received < volley.window {
            payload[..STAMP_BYTES].copy_from_slice(&now_ns().to_le_bytes());
            producer.queue(&payload)?;
            sent += 1;
        }
        producer.poll();
        let before = received;
        consumer.consume(POLL, |payload| {
            let Some(stamp) = payload.first_chunk() else { return };
            received += 1;
            if received > volley.warmup {
                latency.saturating_record(now_ns().saturating_sub(u64::from_le_bytes(*stamp)) / 1_000);
            }
        });
        if received > before {
            last = Instant::now();
        } else if last.elapsed() > PATIENCE {
            let reason = format!("{received} of {total} messages came back within {} s", PATIENCE.as_secs());
            return Err(KafkaError::ClientCreation(reason));
        }
        if received >= volley.warmup
            && let Some(at_start) = at_start.take()
        {
            at_start();
            began = Instant::now();
        }
    }
    producer.flush()?;
    Ok(Volleyed { latency, elapsed_s: began.elapsed().as_secs_f64() })
}
