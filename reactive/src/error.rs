//! The one error type of this crate: what kind, whose fault, whether a retry helps, and what caused it.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong with a client, a server, or Kafka beneath them.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A setting can't be used.
    Settings,
    /// No broker answers, or not in time.
    Unreachable,
    /// Kafka refuses: no permission, no such topic, not allowed by its configuration.
    Refused,
    /// The message is larger than Kafka or its settings allow.
    TooLarge,
    /// librdkafka's queue is full.
    Full,
    /// The client or server was shut down.
    Closed,
    /// The system gives no thread or no random number.
    System,
}

/// Who has to do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The program that uses this crate.
    Caller,
    /// Kafka, or the way to it.
    Kafka,
    /// This process or its machine.
    Own,
}

impl Error {
    /// An error without a cause of its own.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same, with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of error.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self.kind {
            Kind::Settings | Kind::TooLarge | Kind::Closed => Fault::Caller,
            Kind::Unreachable | Kind::Refused => Fault::Kafka,
            Kind::Full | Kind::System => Fault::Own,
        }
    }

    /// Whether the same may succeed later without a change.
    #[must_use]
    pub fn retry_helps(&self) -> bool {
        matches!(self.kind, Kind::Unreachable | Kind::Full | Kind::System)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(formatter, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_kind_fault_cause_and_whether_a_retry_helps() {
        let error = Error::new(Kind::Unreachable, "can't reach kafka:9092").because("connection refused");
        assert_eq!((error.kind(), error.fault(), error.retry_helps()), (Kind::Unreachable, Fault::Kafka, true));
        assert_eq!(error.to_string(), "can't reach kafka:9092: connection refused");
        assert!(error.source().is_some());
        assert!(!Error::new(Kind::TooLarge, "2 MB").retry_helps());
    }
}
