//! Settings of a client.

use std::time::Duration;

use crate::destination::check_topic;
use crate::envelope::Envelope;
use crate::error::{Error, Kind};
use crate::kafka::Connection;

/// What happens to a call when as many are in flight as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It waits for its turn, within its time-out; at most so many wait.
    Wait {
        /// Calls that may wait; more fail as [`Failure::Overloaded`](crate::outcome::Failure::Overloaded).
        max_waiting: usize,
    },
    /// It fails at once as [`Failure::Overloaded`](crate::outcome::Failure::Overloaded).
    Fail,
}

/// How a client is set up. Make one with [`new`](Self::new) and change what should differ.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// How to reach Kafka.
    pub connection: Connection,
    /// Topic that answers come back through; shared by all clients of a program or a company.
    pub reply_topic: String,
    /// Partitions of the reply topic if it has to be made. With as many as there are clients, none reads another's answers.
    pub reply_partitions: u32,
    /// Replicas of the reply topic if it has to be made; -1 for the brokers' default.
    pub reply_replication: i32,
    /// Partition of this client, for those who number their clients; by default one that no client in this process has.
    pub reply_partition: Option<u32>,
    /// How requests are written.
    pub envelope: Envelope,
    /// Calls in flight at most.
    pub max_in_flight: usize,
    /// What happens to further calls.
    pub overflow: Overflow,
    /// Time to reach Kafka at the start.
    pub connect_timeout: Duration,
    /// Time after which librdkafka gives up a message that Kafka did not acknowledge. A call's own time-out is usually
    /// shorter, and decides for its caller.
    pub delivery_timeout: Duration,
}

impl ClientSettings {
    /// A client of these brokers whose answers come back through `reply_topic`.
    pub fn new(brokers: impl Into<String>, reply_topic: impl Into<String>) -> Self {
        Self {
            connection: Connection::new(brokers),
            reply_topic: reply_topic.into(),
            reply_partitions: 16,
            reply_replication: -1,
            reply_partition: None,
            envelope: Envelope::Headers,
            max_in_flight: 10_000,
            overflow: Overflow::Wait { max_waiting: 100_000 },
            connect_timeout: Duration::from_secs(10),
            delivery_timeout: Duration::from_secs(30),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        check_topic(&self.reply_topic).map_err(|error| Error::new(Kind::Settings, "the reply topic").because(error))?;
        let zero = |name: &str| Err(Error::new(Kind::Settings, format!("{name} must be at least 1")));
        match () {
            () if self.max_in_flight == 0 => zero("max_in_flight"),
            () if self.reply_partitions == 0 => zero("reply_partitions"),
            () => Ok(()),
        }
    }

    pub(super) fn max_waiting(&self) -> usize {
        match self.overflow {
            Overflow::Wait { max_waiting } => max_waiting,
            Overflow::Fail => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused_with_the_reason() {
        let settings = ClientSettings::new("b:9092", "replies");
        assert!(settings.check().is_ok());
        let error = ClientSettings { reply_topic: "no topic".to_owned(), ..settings.clone() }.check().unwrap_err();
        assert!(error.to_string().contains("no topic") && error.kind() == Kind::Settings);
        assert!(ClientSettings { max_in_flight: 0, ..settings }.check().is_err());
    }
}
