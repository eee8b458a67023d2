//! What all services of the shop have in common: an event comes in, events go out, and nothing is shared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::Value;
use tokio::time::MissedTickBehavior;

use super::event::{Draft, Event};
use super::hub::outbox::{Letter, Outbox};
use super::hub::{Heard, Inbox};

/// Between two looks at what takes too long.
const TICK: Duration = Duration::from_millis(250);

/// One service: a state machine. Time is passed in; what it does is what it returns.
pub(super) trait Service: Send + 'static {
    /// `source` of its events.
    const SOURCE: &'static str;
    /// Types of the events it wants.
    const LISTENS_TO: &'static [&'static str];

    /// Takes an event. Each may come twice, and some never.
    fn handle(&mut self, delivery: &Delivery, now: Instant) -> Vec<Output>;

    /// Tells what a hub must know that has just been reached, or reached again.
    fn introduce(&mut self) -> Vec<Output> {
        Vec::new()
    }

    /// Does what is due.
    fn tick(&mut self, _now: Instant) -> Vec<Output> {
        Vec::new()
    }
}

/// An event with what its transport says about the way back.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Delivery {
    pub(super) event: Event,
    /// Where Kafka takes answers, if the request came from there.
    pub(super) reply: Option<ReplyPartition>,
}

/// The partition that the gateway reads answers from (`rig-reply-topic`, `rig-reply-partition`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplyPartition {
    pub(super) topic: String,
    pub(super) partition: i32,
}

/// The call that waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) correlation: String,
    pub(super) reply: Option<ReplyPartition>,
}

impl Delivery {
    /// Who waits for an answer; `None` if the event isn't a request.
    pub(super) fn caller(&self) -> Option<Caller> {
        let correlation = self.event.request.as_ref()?.correlation.clone();
        Some(Caller { correlation, reply: self.reply.clone() })
    }
}

/// What a service wants done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Output {
    /// Tell everybody who listens.
    Publish(Draft),
    /// Tell them, unless something older still waits: the next figures come soon.
    Figures(Draft),
    /// Answer a call.
    Answer { to: Caller, status: StatusCode, body: Value },
}

/// Runs a service for ever.
pub(super) async fn run<S: Service>(mut service: S, mut inbox: Inbox, outbox: Arc<Outbox>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let outputs = tokio::select! {
            heard = inbox.next() => match heard {
                Some(Heard::Event(delivery)) => service.handle(&delivery, Instant::now()),
                Some(Heard::Subscribed) => service.introduce(),
                None => return,
            },
            _ = ticks.tick() => service.tick(Instant::now()),
        };
        for output in outputs {
            post(&outbox, S::SOURCE, output);
        }
    }
}

/// Puts what a service wants done into its outbox; false if there was no room.
pub(super) fn post(outbox: &Outbox, source: &str, output: Output) -> bool {
    match output {
        Output::Publish(draft) => outbox.push(Letter::event(&draft, source)),
        Output::Figures(draft) if outbox.is_empty() => outbox.push(Letter::event(&draft, source)),
        Output::Figures(_) => true,
        Output::Answer { to, status, body } => {
            outbox.push(Letter::Answer { to, status, body: body.to_string().into() })
        }
    }
}
