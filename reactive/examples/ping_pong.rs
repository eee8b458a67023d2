//! What a call costs beside a hand-written ping-pong: the same messages through the same broker, with nothing but a producer
//! and a consumer on either side. Both are run in turns, so that the machine treats them alike.
//!
//! ```text
//! cargo run --release -p tidegate-reactive --example ping_pong
//! ```

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tidegate_reactive::{
    ClientSettings, Destination, Headers, ReactiveClient, ReactiveServer, Request, ServerSettings, Service,
};
use xtask::kafka::{Kafka, Options};

const PAYLOAD: [u8; 100] = [b'x'; 100];
const ROUNDS: usize = 10;
const CALLS_PER_ROUND: usize = 300;
const IN_FLIGHT: usize = 1_024;
const BURST: usize = 30_000;
const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Some(kafka) = Kafka::start_or_skip("ping_pong", Options::default()) else { return Ok(()) };
    let brokers = kafka.brokers().to_owned();
    let bare = Bare::start(&brokers)?;
    let settings = ServerSettings { partitions: 1, ..ServerSettings::new(&brokers, "calls") };
    let echo = Service::sync("echo", |request: Request<Vec<u8>>| request.payload);
    let server = ReactiveServer::start(settings, echo).await?;
    let client =
        ReactiveClient::connect(ClientSettings { reply_partitions: 1, ..ClientSettings::new(&brokers, "answers") })
            .await?;
    let to: Destination = "kafka:calls/echo".parse()?;

    let (mut bare_us, mut call_us) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for _ in 0..CALLS_PER_ROUND {
            let begun = Instant::now();
            bare.ping()?;
            bare.pong()?;
            bare_us.push(begun.elapsed().as_micros());
        }
        for _ in 0..CALLS_PER_ROUND {
            let begun = Instant::now();
            client.request::<Vec<u8>>(&to, &PAYLOAD[..], Headers::new(), TIMEOUT).await?;
            call_us.push(begun.elapsed().as_micros());
        }
        if round == 0 {
            // The first round warms up.
            (bare_us, call_us) = (Vec::new(), Vec::new());
        }
    }
    println!("acks=all, one broker, {} bytes, 1 in flight, {} each", PAYLOAD.len(), bare_us.len());
    let bare_p50 = show("ping-pong", &mut bare_us);
    let call_p50 = show("request", &mut call_us);
    println!("  p50 of request / ping-pong: {:.2}", call_p50 / bare_p50);

    println!("{IN_FLIGHT} in flight, {BURST} each");
    let mut costs = [(0.0, 0.0); 2];
    for turn in 0..2 {
        let bare_cost = measure("ping-pong", async { bare.burst() }).await?;
        let call_cost = measure("request", burst(&client, &to)).await?;
        if turn == 1 {
            costs = [bare_cost, call_cost];
        }
    }
    println!("  a second, request / ping-pong: {:.2}", costs[1].0 / costs[0].0);
    println!("  CPU of both sides, request / ping-pong: {:.2}", costs[1].1 / costs[0].1);
    client.shutdown(TIMEOUT).await;
    server.shutdown(TIMEOUT).await;
    Ok(())
}

/// As many tasks as calls in flight, each with one call after the other.
async fn burst(client: &ReactiveClient, to: &Destination) -> Result<(), Box<dyn Error>> {
    let callers = (0..IN_FLIGHT).map(|caller| {
        let (client, to) = (client.clone(), to.clone());
        tokio::spawn(async move {
            for _ in (caller..BURST).step_by(IN_FLIGHT) {
                client.request::<Vec<u8>>(&to, &PAYLOAD[..], Headers::new(), TIMEOUT).await?;
            }
            Ok::<_, tidegate_reactive::Failure>(())
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await??;
    }
    Ok(())
}

/// Calls a second, and CPU-seconds for 1,000 of them.
async fn measure(
    name: &str,
    work: impl Future<Output = Result<(), Box<dyn Error>>>,
) -> Result<(f64, f64), Box<dyn Error>> {
    let (begun, cpu_before) = (Instant::now(), cpu_seconds()?);
    work.await?;
    let per_second = BURST as f64 / begun.elapsed().as_secs_f64();
    let cpu_per_1000 = (cpu_seconds()? - cpu_before) * 1_000.0 / BURST as f64;
    println!("  {name:<10} {per_second:>8.0} a second, {cpu_per_1000:.4} CPU-seconds per 1,000");
    Ok((per_second, cpu_per_1000))
}

fn show(name: &str, us: &mut [u128]) -> f64 {
    us.sort_unstable();
    let at = |quantile: f64| us[((us.len() - 1) as f64 * quantile) as usize] as f64 / 1_000.0;
    println!("  {name:<10} p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms", at(0.5), at(0.99), at(0.999));
    at(0.5)
}

/// CPU time of this process so far (proc(5), fields 14 and 15 of /proc/self/stat, in hundredths of a second).
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("no process name in /proc/self/stat")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}

/// A producer and a consumer, and a thread with another pair that sends back what comes.
struct Bare {
    producer: BaseProducer,
    consumer: BaseConsumer,
    stop: Arc<AtomicBool>,
    echo: Option<JoinHandle<()>>,
}

impl Bare {
    fn start(brokers: &str) -> Result<Self, Box<dyn Error>> {
        let (ping, pong) = ("ping", "pong");
        let stop = Arc::<AtomicBool>::default();
        let producer = producer(brokers)?;
        // Both topics appear with their first message.
        for topic in [ping, pong] {
            let record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).payload(&PAYLOAD[..]);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(TIMEOUT)?;
        let (back, there) = (Self::pair(brokers, pong)?, Self::pair(brokers, ping)?);
        let stopped = Arc::clone(&stop);
        let echo = thread::spawn(move || {
            let (producer, consumer) = there;
            while !stopped.load(Ordering::Relaxed) {
                while let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
                    send(&producer, pong, message.payload().unwrap_or_default());
                    producer.poll(Duration::ZERO);
                }
            }
        });
        Ok(Self { producer: back.0, consumer: back.1, stop, echo: Some(echo) })
    }

    fn pair(brokers: &str, topic: &str) -> Result<(BaseProducer, BaseConsumer), Box<dyn Error>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "bare")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "10")
            .set("socket.nagle.disable", "true")
            .create()?;
        let (_, end) = consumer.fetch_watermarks(topic, 0, TIMEOUT)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(end))?;
        consumer.assign(&list)?;
        Ok((producer(brokers)?, consumer))
    }

    fn ping(&self) -> Result<(), Box<dyn Error>> {
        send(&self.producer, "ping", &PAYLOAD);
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    fn pong(&self) -> Result<(), Box<dyn Error>> {
        self.consumer.poll(TIMEOUT).ok_or("no pong")??;
        Ok(())
    }

    fn burst(&self) -> Result<(), Box<dyn Error>> {
        (0..IN_FLIGHT).try_for_each(|_| self.ping())?;
        for answered in 0..BURST {
            self.pong()?;
            if answered + IN_FLIGHT < BURST {
                self.ping()?;
            }
        }
        Ok(())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(echo) = self.echo.take() {
            // An echo that panicked has said so on standard error.
            let _ = echo.join();
        }
    }
}

fn producer(brokers: &str) -> Result<BaseProducer, Box<dyn Error>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("socket.nagle.disable", "true");
    Ok(config.create()?)
}

fn send(producer: &BaseProducer, topic: &str, payload: &[u8]) {
    let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).payload(payload);
    while let Err((_, unsent)) = producer.send(record) {
        producer.poll(Duration::from_millis(1));
        record = unsent;
    }
}
