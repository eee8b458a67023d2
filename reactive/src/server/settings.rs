//! Settings of a server.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::destination::{check_topic, is_service};
use crate::error::{Error, Kind};
use crate::kafka::Connection;
use crate::service::Service;

/// What a crash does to requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// None is lost, some may be handled again: an offset is committed once the answer is acknowledged.
    #[default]
    AtLeastOnce,
    /// None is handled again, some may be lost: an offset is committed before the handler starts, batch by batch.
    AtMostOnce,
}

/// Runs a future on an executor of the program's own.
pub type Spawn = Arc<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

/// How a server is set up. Make one with [`new`](Self::new) and change what should differ.
#[derive(Clone)]
pub struct ServerSettings {
    /// How to reach Kafka.
    pub connection: Connection,
    /// Topic that requests come through.
    pub topic: String,
    /// Consumer group: the instances of one service share its requests.
    pub group: String,
    /// Partitions of the topic if it has to be made: no more instances than these get requests.
    pub partitions: u32,
    /// Replicas of the topic if it has to be made; -1 for the brokers' default.
    pub replication: i32,
    /// What a crash does to requests.
    pub delivery: Delivery,
    /// Requests in the works at most, from reading to the acknowledgement of their answers. More stay in Kafka.
    pub max_concurrent: usize,
    /// Threads for sync handlers at most. They are started as handlers block.
    pub max_sync_threads: usize,
    /// Time a handler gets where the caller named no deadline, and never more than this.
    pub handler_timeout: Duration,
    /// How far the clocks of callers may go wrong before their requests seem too late.
    pub clock_tolerance: Duration,
    /// Where requests go that can't be decoded; `None`: they are counted only.
    pub dead_letters: Option<String>,
    /// Answers remembered for `idempotency-key`.
    pub max_remembered: usize,
    /// Bytes of these answers together.
    pub max_remembered_bytes: usize,
    /// Time between two commits.
    pub commit_interval: Duration,
    /// Time to reach Kafka and join the group at the start.
    pub start_timeout: Duration,
    /// Time for requests in the works when a partition is taken away.
    pub rebalance_timeout: Duration,
    /// Runs async handlers, for those that need an executor of their own, such as tokio's
    /// (`Arc::new(move |task| { handle.spawn(task); })`). By default they run on threads of the server.
    pub spawn: Option<Spawn>,
}

impl fmt::Debug for ServerSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, topic, group, delivery, max_concurrent, .. } = self;
        formatter
            .debug_struct("ServerSettings")
            .field("connection", connection)
            .field("topic", topic)
            .field("group", group)
            .field("delivery", delivery)
            .field("max_concurrent", max_concurrent)
            .finish_non_exhaustive()
    }
}

impl ServerSettings {
    /// A server of requests on `topic`, in a group that is named after the topic.
    pub fn new(brokers: impl Into<String>, topic: impl Into<String>) -> Self {
        let topic = topic.into();
        Self {
            connection: Connection::new(brokers),
            group: format!("{topic}-service"),
            topic,
            partitions: 16,
            replication: -1,
            delivery: Delivery::AtLeastOnce,
            max_concurrent: 4_096,
            max_sync_threads: 64,
            handler_timeout: Duration::from_secs(30),
            clock_tolerance: Duration::from_millis(250),
            dead_letters: None,
            max_remembered: 10_000,
            max_remembered_bytes: 32 << 20,
            commit_interval: Duration::from_millis(100),
            start_timeout: Duration::from_secs(30),
            rebalance_timeout: Duration::from_secs(30),
            spawn: None,
        }
    }

    pub(super) fn check(&self, service: &Service) -> Result<(), Error> {
        let bad = |text: String| Err(Error::new(Kind::Settings, text));
        for topic in [Some(&self.topic), self.dead_letters.as_ref()].into_iter().flatten() {
            check_topic(topic).map_err(|error| Error::new(Kind::Settings, "a topic of the server").because(error))?;
        }
        if self.group.is_empty() {
            return bad("the group needs a name".to_owned());
        }
        if self.max_concurrent == 0 || self.max_sync_threads == 0 || self.partitions == 0 {
            return bad("max_concurrent, max_sync_threads and partitions must be at least 1".to_owned());
        }
        let mut ids = HashSet::new();
        for id in service.ids() {
            if !is_service(id) {
                return bad(format!(
                    "{id:?} can't be the id of a service: 1 to 1,024 bytes without control characters"
                ));
            }
            if !ids.insert(id) {
                return bad(format!("two handlers for the service {id:?}"));
            }
        }
        if ids.is_empty() { bad("a server needs at least one service".to_owned()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Request;

    fn echo(id: &str) -> Service {
        Service::sync(id, |request: Request<String>| request.payload)
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_the_reason() {
        let settings = ServerSettings::new("b:9092", "orders");
        assert!(settings.check(&(echo("a") | echo("b"))).is_ok());
        let refusal = |settings: &ServerSettings, service: Service| settings.check(&service).unwrap_err().to_string();
        assert!(refusal(&settings, echo("a") | echo("a")).contains("two handlers for the service \"a\""));
        assert!(refusal(&settings, echo("a\n")).contains("id of a service"));
        assert!(refusal(&settings, Service::default()).contains("at least one"));
        let dead = ServerSettings { dead_letters: Some("no topic".to_owned()), ..settings };
        assert!(refusal(&dead, echo("a")).contains("no topic"));
    }
}
