//! Where a request goes: `kafka:topic/serviceId`.

use std::fmt;
use std::str::FromStr;

/// Longest name of a Kafka topic, in characters.
pub const MAX_TOPIC_CHARS: usize = 249;

/// Longest id of a service, in bytes.
pub const MAX_SERVICE_BYTES: usize = 1_024;

/// A service behind a topic. Made once and used for any number of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    topic: String,
    service: String,
}

/// Why a text is no destination.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DestinationError {
    /// It does not start with `kafka:`.
    #[error("a destination is kafka:topic/serviceId; {0:?} does not start with \"kafka:\"")]
    Medium(String),
    /// There is no slash behind the topic.
    #[error("a destination is kafka:topic/serviceId; {0:?} has no slash behind the topic")]
    NoService(String),
    /// The topic's name can't be one in Kafka.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The id is empty, too long or holds control characters.
    #[error("a service id has 1 to {MAX_SERVICE_BYTES} bytes and no control characters; {0:?} does not fit")]
    Service(String),
}

/// A name that Kafka takes for no topic.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} can't be the name of a topic: Kafka takes 1 to {MAX_TOPIC_CHARS} of a-z, A-Z, 0-9, '.', '_' and '-', and neither \".\" nor \"..\""
)]
pub struct TopicError(pub String);

impl Destination {
    /// A destination from its parts.
    ///
    /// # Errors
    /// [`DestinationError::Topic`] or [`DestinationError::Service`].
    pub fn new(topic: impl Into<String>, service: impl Into<String>) -> Result<Self, DestinationError> {
        let (topic, service) = (topic.into(), service.into());
        check_topic(&topic)?;
        if !is_service(&service) {
            return Err(DestinationError::Service(service));
        }
        Ok(Self { topic, service })
    }

    /// Topic the request is written to.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Id of the service; may hold slashes.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("kafka:").ok_or_else(|| DestinationError::Medium(text.to_owned()))?;
        let (topic, service) = rest.split_once('/').ok_or_else(|| DestinationError::NoService(text.to_owned()))?;
        Self::new(topic, service)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "kafka:{}/{}", self.topic, self.service)
    }
}

/// Holds a name against Kafka's rules for topics (`org.apache.kafka.common.internals.Topic`).
///
/// # Errors
/// [`TopicError`] with the name.
pub fn check_topic(name: &str) -> Result<(), TopicError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let fits = (1..=MAX_TOPIC_CHARS).contains(&name.len()) && name.bytes().all(legal) && name != "." && name != "..";
    if fits { Ok(()) } else { Err(TopicError(name.to_owned())) }
}

/// Whether a text may be the id of a service.
#[must_use]
pub fn is_service(id: &str) -> bool {
    (1..=MAX_SERVICE_BYTES).contains(&id.len()) && !id.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_destination_names_topic_and_service_whose_id_may_hold_slashes() {
        let destination: Destination = "kafka:orders.eu/seats/reserve/".parse().unwrap();
        assert_eq!((destination.topic(), destination.service()), ("orders.eu", "seats/reserve/"));
        assert_eq!(destination.to_string(), "kafka:orders.eu/seats/reserve/");
    }

    #[test]
    fn what_is_no_destination_is_refused_with_the_reason() {
        let error = |text: &str| text.parse::<Destination>().unwrap_err();
        assert!(matches!(error("http:orders/reserve"), DestinationError::Medium(_)));
        assert!(matches!(error("orders/reserve"), DestinationError::Medium(_)));
        assert!(matches!(error("kafka:orders"), DestinationError::NoService(_)));
        assert!(matches!(error("kafka:orders/"), DestinationError::Service(_)));
        assert!(matches!(error("kafka:orders/a\nb"), DestinationError::Service(_)));
        for topic in ["", ".", "..", "a b", "ä", "a\0", &"t".repeat(250)] {
            let error = error(&format!("kafka:{topic}/s"));
            assert!(error.to_string().contains("can't be the name of a topic"), "{topic:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_destination_reads_back_what_it_shows(topic in "[a-zA-Z0-9_-]{1,249}", service in "[ -~]{1,60}") {
            let destination = Destination::new(topic, service).unwrap();
            prop_assert_eq!(destination.to_string().parse::<Destination>().unwrap(), destination);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,300}") {
            let _ = text.parse::<Destination>();
        }
    }
}
