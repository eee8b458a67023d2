//! What Kafka itself delays: a bare producer on a schedule, a bare consumer, and nothing between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::error::{KafkaError, KafkaResult};

use super::consumer::BareConsumer;
use super::producer::BareProducer;
use crate::figures::cpu;

/// Longest wait for messages after the last was sent.
const DRAIN: Duration = Duration::from_secs(10);
/// The producer wakes up no more often than this; the load generator's own interval.
const TICK: Duration = Duration::from_micros(200);
const STAMP_BYTES: usize = 8;

/// A flow of messages.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Messages a second.
    pub rate_per_s: f64,
    /// How long, in seconds.
    pub duration_s: f64,
    /// Part at the start that isn't counted, in seconds.
    pub warmup_s: f64,
    /// Payload of each message in bytes.
    pub message_bytes: usize,
    /// CPU of the producing thread and its librdkafka threads.
    pub producer_cpu: usize,
    /// CPU of the consuming ones.
    pub consumer_cpu: usize,
}

/// Time from the moment a message should have been sent to its arrival, in microseconds.
///
/// # Errors
/// Kafka is out of reach, or messages did not arrive.
pub fn measure(brokers: &str, topic: &str, flow: Flow) -> KafkaResult<Histogram<u64>> {
    BareProducer::new(brokers, topic)?.send_now(b"creates the topic")?;
    let began = Instant::now() + Duration::from_millis(500);
    let messages = (flow.rate_per_s * flow.duration_s) as u64;
    let ready = AtomicBool::new(false);
    thread::scope(|scope| {
        let consumer = scope.spawn(|| {
            cpu::bind_thread(flow.consumer_cpu);
            let consumer = BareConsumer::from_end(brokers, topic);
            ready.store(true, Ordering::Release);
            receive(consumer?, began, messages, flow)
        });
        cpu::bound_to(flow.producer_cpu, || {
            while !ready.load(Ordering::Acquire) {
                thread::sleep(TICK);
            }
            send(&BareProducer::new(brokers, topic)?, began, messages, flow)
        })?;
        consumer.join().map_err(|_| KafkaError::ClientCreation("the consuming thread panicked".to_owned()))?
    })
}

/// When message `number` is due, in nanoseconds after the start.
fn due_ns(number: u64, rate_per_s: f64) -> u64 {
    (number as f64 * 1e9 / rate_per_s) as u64
}

fn send(producer: &BareProducer, began: Instant, messages: u64, flow: Flow) -> KafkaResult<()> {
    let mut payload = vec![b'x'; flow.message_bytes.max(STAMP_BYTES)];
    let mut next = 0;
    while next < messages {
        let elapsed_ns = nanoseconds_since(began);
        while next < messages && due_ns(next, flow.rate_per_s) <= elapsed_ns {
            payload[..STAMP_BYTES].copy_from_slice(&due_ns(next, flow.rate_per_s).to_le_bytes());
            producer.queue(&payload)?;
            next += 1;
        }
        producer.poll();
        thread::sleep(TICK);
    }
    producer.flush()
}

fn receive(mut consumer: BareConsumer, began: Instant, messages: u64, flow: Flow) -> KafkaResult<Histogram<u64>> {
    let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3).expect("invariant: the bounds are valid");
    let end = began + Duration::from_secs_f64(flow.duration_s) + DRAIN;
    let warmup_ns = (flow.warmup_s * 1e9) as u64;
    let mut received = 0;
    while received < messages {
        if Instant::now() > end {
            let reason = format!("{received} of {messages} messages arrived within {} s", DRAIN.as_secs());
            return Err(KafkaError::ClientCreation(reason));
        }
        consumer.consume(Duration::from_millis(100), |payload| {
            let Some(stamp) = payload.first_chunk() else { return };
            let intended_ns = u64::from_le_bytes(*stamp);
            received += 1;
            if intended_ns >= warmup_ns {
                latency.saturating_record(nanoseconds_since(began).saturating_sub(intended_ns) / 1_000);
            }
        });
    }
    Ok(latency)
}

fn nanoseconds_since(began: Instant) -> u64 {
    u64::try_from(Instant::now().saturating_duration_since(began).as_nanos()).unwrap_or(u64::MAX)
}
