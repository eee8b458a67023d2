//! The publishing thread: events leave at the times of the schedule, whatever became of those before.

pub(crate) mod http;
pub(crate) mod kafka;

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::endpoint;
use crate::error::LoadError;
use crate::marker::{EventTemplate, PROBE_STREAM};
use crate::receiver::Shared;
use crate::scenario::Source;
use crate::schedule::{Addressing, Schedule};

/// Events handed over in one go before answers are looked at.
const MAX_ROUND: u64 = 4_096;

/// What the source made of the events.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PublishCounts {
    /// Events handed to the source.
    pub attempted: u64,
    /// Events that it acknowledged.
    pub accepted: u64,
    /// Events that it refused, or that were under way when a connection broke.
    pub failed: u64,
    /// Events of the schedule that were never sent because the publisher fell too far behind.
    pub unsent: u64,
    /// The farthest that the publisher was behind its schedule, in microseconds.
    pub max_lag_us: u64,
    /// Why the first event was refused.
    pub first_failure: Option<String>,
}

/// A way into the server.
pub(crate) enum Publisher {
    Http(http::HttpPublisher),
    Kafka(kafka::KafkaPublisher),
}

impl Publisher {
    pub(crate) fn open(source: &Source) -> Result<Self, LoadError> {
        Ok(match source {
            Source::Http(http) => Self::Http(http::HttpPublisher::open(http)?),
            Source::Kafka(kafka) => Self::Kafka(kafka::KafkaPublisher::open(kafka)?),
        })
    }

    /// Hands over one event; it may wait for [`Self::flush`].
    pub(crate) fn push(&mut self, stream: u32, key: &str, event: &[u8]) -> Result<(), LoadError> {
        match self {
            Self::Http(http) => http.push(stream, event),
            Self::Kafka(kafka) => kafka.push(key, event),
        }
    }

    /// Sends everything handed over; by HTTP, waits for the answers.
    pub(crate) fn flush(&mut self) -> Result<(), LoadError> {
        match self {
            Self::Http(http) => http.flush(),
            Self::Kafka(kafka) => {
                kafka.poll();
                Ok(())
            }
        }
    }

    /// Waits until everything sent is acknowledged or refused.
    pub(crate) fn finish(&mut self, timeout: Duration) -> Result<(), LoadError> {
        match self {
            Self::Http(http) => http.flush(),
            Self::Kafka(kafka) => kafka.finish(timeout),
        }
    }

    /// Accepted and failed events so far, and why the first one failed.
    pub(crate) fn outcome(&self) -> (u64, u64, Option<String>) {
        match self {
            Self::Http(http) => http.outcome(),
            Self::Kafka(kafka) => kafka.outcome(),
        }
    }
}

/// One flow of events.
pub(crate) struct PublishPlan {
    pub(crate) template: EventTemplate,
    pub(crate) schedule: Schedule,
    pub(crate) addressing: Addressing,
    /// Streams in all.
    pub(crate) streams: u32,
    /// Deliveries that each event causes.
    pub(crate) deliveries_per_event: u64,
    pub(crate) max_outstanding: Option<u64>,
    /// No event leaves after this moment.
    pub(crate) deadline_ns: u64,
    pub(crate) tick: Duration,
    pub(crate) finish_timeout: Duration,
}

/// What was published.
pub(crate) struct Published {
    /// Events per stream.
    pub(crate) per_stream: Vec<u64>,
    pub(crate) counts: PublishCounts,
    /// When the last event was handed over.
    pub(crate) ended_ns: u64,
}

/// Carries out `plan`.
pub(crate) fn run(
    plan: PublishPlan,
    publisher: &mut Publisher,
    shared: &Shared,
    clock: Clock,
) -> Result<Published, LoadError> {
    crate::sys::sharpen_sleep();
    let PublishPlan { template, schedule, mut addressing, streams, .. } = plan;
    let everyone = matches!(addressing, Addressing::Everyone);
    let keys: Vec<String> = if everyone { vec!["all".to_owned()] } else { (0..streams).map(endpoint::key).collect() };
    let mut per_stream = vec![0u64; keys.len()];
    let mut event = Vec::new();
    let (mut sent, mut max_lag_ns) = (0u64, 0u64);
    let before = publisher.outcome();
    while sent < schedule.total() && !shared.stop.load(Relaxed) {
        let now_ns = clock.now_ns();
        if now_ns >= plan.deadline_ns {
            break;
        }
        let mut until = schedule.due(now_ns).min(sent + MAX_ROUND);
        if let Some(outstanding) = plan.max_outstanding {
            let received = shared.accepted.load(Relaxed) / plan.deliveries_per_event.max(1);
            until = until.min(received + outstanding);
        }
        if until <= sent {
            let next_ns = schedule.intended_ns(sent);
            thread::sleep(Duration::from_nanos(next_ns.saturating_sub(now_ns)).clamp(plan.tick, plan.tick * 500));
            continue;
        }
        if plan.max_outstanding.is_none() {
            max_lag_ns = max_lag_ns.max(now_ns.saturating_sub(schedule.intended_ns(sent)));
        }
        for index in sent..until {
            let stream = addressing.stream(index);
            let intended_ns = if plan.max_outstanding.is_some() { now_ns } else { schedule.intended_ns(index) };
            let key = &keys[stream as usize];
            event.clear();
            template.append(stream, per_stream[stream as usize], intended_ns, key, &mut event);
            per_stream[stream as usize] += 1;
            publisher.push(stream, key, &event)?;
        }
        sent = until;
        publisher.flush()?;
    }
    let ended_ns = clock.now_ns();
    publisher.finish(plan.finish_timeout)?;
    let unsent = if plan.max_outstanding.is_some() { 0 } else { schedule.total() - sent };
    let counts = counts_since(&before, publisher, sent, unsent, max_lag_ns / 1_000);
    Ok(Published { per_stream, counts, ended_ns })
}

/// Sends `messages` events of `unwanted` between the two events of `wanted`, as fast as the source takes them.
pub(crate) fn run_drop(
    wanted: &EventTemplate,
    unwanted: &EventTemplate,
    messages: u64,
    publisher: &mut Publisher,
    clock: Clock,
    deadline_ns: u64,
    finish_timeout: Duration,
) -> Result<Published, LoadError> {
    let mut event = Vec::new();
    let before = publisher.outcome();
    wanted.append(0, 0, clock.now_ns(), "all", &mut event);
    publisher.push(0, "all", &event)?;
    let mut sent = 0;
    while sent < messages && clock.now_ns() < deadline_ns {
        let until = messages.min(sent + MAX_ROUND);
        for sequence in sent..until {
            event.clear();
            unwanted.append(1, sequence, 0, "all", &mut event);
            publisher.push(0, "all", &event)?;
        }
        sent = until;
        publisher.flush()?;
    }
    event.clear();
    wanted.append(0, 1, clock.now_ns(), "all", &mut event);
    publisher.push(0, "all", &event)?;
    let ended_ns = clock.now_ns();
    publisher.finish(finish_timeout)?;
    let counts = counts_since(&before, publisher, sent + 2, messages - sent, 0);
    Ok(Published { per_stream: vec![2], counts, ended_ns })
}

fn counts_since(
    before: &(u64, u64, Option<String>),
    publisher: &Publisher,
    attempted: u64,
    unsent: u64,
    max_lag_us: u64,
) -> PublishCounts {
    let (accepted, failed, first_failure) = publisher.outcome();
    let (accepted, failed) = (accepted - before.0, failed - before.1);
    let first_failure = first_failure.filter(|_| failed > 0);
    PublishCounts { attempted, accepted, failed, unsent, max_lag_us, first_failure }
}

/// Sends probe events until one of them arrives at a client: from then on, the whole path is known to be open.
pub(crate) fn probe(
    template: &EventTemplate,
    key: &str,
    publisher: &mut Publisher,
    shared: &Shared,
    timeout: Duration,
) -> Result<(), LoadError> {
    const BETWEEN: Duration = Duration::from_millis(250);
    let began = Instant::now();
    let mut event = Vec::new();
    for sequence in 0.. {
        event.clear();
        template.append(PROBE_STREAM, sequence, 0, key, &mut event);
        publisher.push(0, key, &event)?;
        publisher.flush()?;
        let sent = Instant::now();
        while sent.elapsed() < BETWEEN {
            publisher.flush()?;
            if shared.probes.load(Relaxed) > 0 {
                return publisher.finish(timeout);
            }
            thread::sleep(Duration::from_millis(1));
        }
        if began.elapsed() >= timeout {
            let (_, failed, reason) = publisher.outcome();
            let reason = reason.unwrap_or_else(|| "none".to_owned());
            return Err(LoadError::NoDelivery { waited_s: timeout.as_secs_f64(), failed, reason });
        }
    }
    Ok(())
}
