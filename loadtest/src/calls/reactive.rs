//! Calls through the bare [`ReactiveClient`]: the request goes into a topic, the answer comes back through another, and no
//! gateway stands between.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidegate_reactive::{ClientSettings, Destination, Failure, Headers, Outcome, ReactiveClient};

use super::ledger::{Ledger, UnderWay};
use super::number::{NUMBER_BYTES, Payload};
use super::report::{CallSecond, ReplyBytes};
use super::scenario::{CallLoad, ReactiveCalls};
use super::{Phases, Samples};
use crate::clock::Clock;
use crate::error::LoadError;

/// Time for the clients to end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Clients, ready for their first calls.
pub(super) struct ReactiveCaller {
    clients: Vec<ReactiveClient>,
    destination: Destination,
    payload_bytes: usize,
}

impl ReactiveCaller {
    pub(super) fn connect(calls: &ReactiveCalls) -> Result<Self, LoadError> {
        let refused = |error: &dyn std::error::Error| LoadError::Reactive {
            what: calls.destination.clone(),
            reason: chain(error),
        };
        let destination: Destination = calls.destination.parse().map_err(|error| refused(&error))?;
        let mut settings = ClientSettings::new(&calls.brokers, &calls.reply_topic);
        settings.reply_partitions = calls.clients;
        let clients = (0..calls.clients).map(|_| block_on(ReactiveClient::connect(settings.clone())));
        let clients = clients.collect::<Result<_, _>>().map_err(|error| refused(&error))?;
        Ok(Self { clients, destination, payload_bytes: calls.payload_bytes })
    }

    /// Runs until every call has ended.
    pub(super) fn run(
        self,
        load: &CallLoad,
        mut phases: Phases,
        mut ledger: Ledger,
        clock: Clock,
        samples: &mut Samples<'_>,
        progress: &mut dyn FnMut(&CallSecond),
    ) -> Result<(Ledger, ReplyBytes), LoadError> {
        let total = load.total.unwrap_or(u64::MAX);
        let timeout = Duration::from_nanos(phases.answer_timeout_ns);
        let mut under_way = FuturesUnordered::new();
        block_on(async {
            loop {
                let now_ns = clock.now_ns();
                if ledger.counts.issued >= total && under_way.is_empty() {
                    phases.measured_until_ns = phases.measured_until_ns.min(now_ns);
                    ledger.end_measuring(now_ns);
                }
                samples.take(now_ns, phases)?;
                let is_over = now_ns >= phases.measured_until_ns || ledger.counts.issued >= total;
                while !is_over && under_way.len() < load.concurrency as usize && ledger.counts.issued < total {
                    let now_ns = clock.now_ns();
                    let call = ledger.issue(now_ns, now_ns);
                    let mut payload = Vec::with_capacity(self.payload_bytes.max(NUMBER_BYTES));
                    ledger.named(call.number).append_payload(self.payload_bytes, &mut payload);
                    let client = &self.clients[(call.number % self.clients.len() as u64) as usize];
                    let destination = &self.destination;
                    under_way.push(async move {
                        (call, client.request::<Vec<u8>>(destination, payload, Headers::new(), timeout).await)
                    });
                }
                match under_way.next().await {
                    Some((call, outcome)) => settle(call, outcome, &mut ledger, clock.now_ns()),
                    None if is_over => return Ok::<_, LoadError>(()),
                    None => {}
                }
                if let Some(second) = ledger.end_second(clock.now_ns(), false) {
                    progress(second);
                }
            }
        })?;
        drop(under_way);
        samples.take(phases.measured_until_ns, phases)?;
        ledger.end_second(clock.now_ns(), true);
        let mut bytes = ReplyBytes::default();
        for client in &self.clients {
            let statistics = client.statistics();
            bytes.read += statistics.read_bytes;
            bytes.own += statistics.own_bytes;
        }
        for client in &self.clients {
            block_on(client.shutdown(SHUTDOWN_GRACE));
        }
        Ok((ledger, bytes))
    }
}

/// Enters how a call ended.
fn settle(call: UnderWay, outcome: Outcome<Vec<u8>>, ledger: &mut Ledger, now_ns: u64) {
    let status = match &outcome {
        Ok(answer) => answer.status,
        Err(Failure::NoSuchService { .. }) => 404,
        Err(Failure::BadRequest { status, .. } | Failure::HandlerFailed { status, .. }) => *status,
        Err(failure) => return ledger.missing(call, || failure.to_string()),
    };
    let payload = match &outcome {
        Ok(answer) => Payload::of(&answer.payload, ledger.named(call.number)),
        Err(failure) => {
            ledger.note(|| format!("call {}: {failure}", call.number));
            Payload::Broken
        }
    };
    ledger.answered(call, status, payload, now_ns);
}

/// An error with what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, with no runtime around it.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_that_another_thread_completes_wakes_this_one() {
        let (sender, receiver) = futures_channel::oneshot::channel();
        let other = thread::spawn(move || sender.send(7).unwrap());
        assert_eq!(block_on(receiver), Ok(7));
        other.join().unwrap();
    }

    #[test]
    fn failures_with_a_status_are_refusals_and_the_others_are_missing() {
        let mut ledger = Ledger::new(1, 0, u64::MAX, 0);
        let calls: Vec<UnderWay> = (0..3).map(|_| ledger.issue(0, 0)).collect();
        let message = "no".to_owned();
        settle(calls[0], Err(Failure::NoSuchService { message: message.clone() }), &mut ledger, 1);
        settle(calls[1], Err(Failure::BadRequest { status: 413, message }), &mut ledger, 1);
        settle(calls[2], Err(Failure::TimedOut), &mut ledger, 1);
        assert_eq!((ledger.counts.refused, ledger.counts.missing, ledger.in_flight), (2, 1, 0));
        assert_eq!(ledger.statuses(), [(404, 1), (413, 1)]);
    }
}
