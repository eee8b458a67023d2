//! Headers of requests and answers, and the names that the protocol keeps for itself.

/// Names of the protocol's own headers; the table in the README says what each holds.
pub mod names {
    /// Which request an answer belongs to; a service sends it back as it came.
    pub const CORRELATION: &str = "rig-correlation";
    /// Topic that the answer goes to; a message without it wants no answer.
    pub const REPLY_TOPIC: &str = "rig-reply-topic";
    /// Partition that the answer goes to, in digits.
    pub const REPLY_PARTITION: &str = "rig-reply-partition";
    /// Who asks: 16 hexadecimal digits.
    pub const INSTANCE: &str = "rig-instance";
    /// Id of the service that is asked.
    pub const SERVICE: &str = "rig-service";
    /// When the caller stops waiting, in milliseconds since 1970-01-01T00:00Z, in digits.
    pub const DEADLINE: &str = "rig-deadline";
    /// Status of an answer, in digits as in HTTP; 200 where it is missing.
    pub const RESPONSE_CODE: &str = "rig-response-code";
    /// What went wrong where no handler answered; see [`Verdict`](crate::outcome::Verdict).
    pub const OUTCOME: &str = "rig-outcome";
    /// Microseconds from reading the request to handing over its answer, in digits.
    pub const SERVING_US: &str = "rig-serving-us";
    /// Media type of the payload.
    pub const CONTENT_TYPE: &str = "content-type";
    /// Trace context (W3C Trace Context, section 3.2); passed on from request to answer.
    pub const TRACEPARENT: &str = "traceparent";
    /// Names an action that must happen once, however often it is asked for.
    pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
    /// Why a message is in the dead-letter topic.
    pub const REASON: &str = "rig-reason";
}

/// Names that callers and handlers can't set: they would break the protocol.
const RESERVED: [&str; 10] = [
    names::CORRELATION,
    names::REPLY_TOPIC,
    names::REPLY_PARTITION,
    names::INSTANCE,
    names::SERVICE,
    names::DEADLINE,
    names::RESPONSE_CODE,
    names::OUTCOME,
    names::SERVING_US,
    names::CONTENT_TYPE,
];

/// Whether a name, in any case, belongs to the protocol.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// A header that can't be sent.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum HeaderError {
    /// The protocol uses this name itself.
    #[error("the header {0:?} is set by the protocol itself; choose another name")]
    Reserved(String),
    /// Empty, or with a zero byte, which Kafka's clients can't carry.
    #[error("{0:?} can't be the name of a header: it is empty or holds a zero byte")]
    Name(String),
}

/// A list of headers in their order; a name may occur several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// No header.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These headers and one more.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.insert(name, value);
        self
    }

    /// Adds a header behind those that are there.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.push((name.into(), value.into()));
    }

    /// The first value of a name, whose case doesn't matter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }

    /// The same as text; `None` also where it isn't UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Names and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether each may be sent by a caller or a handler.
    ///
    /// # Errors
    /// The first that may not.
    pub fn check(&self) -> Result<(), HeaderError> {
        for (name, _) in &self.0 {
            if name.is_empty() || name.contains('\0') {
                return Err(HeaderError::Name(name.clone()));
            }
            if is_reserved(name) {
                return Err(HeaderError::Reserved(name.clone()));
            }
        }
        Ok(())
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_in_any_case_and_the_first_one_counts() {
        let headers = Headers::new().with("X-Seat", "7").with("x-seat", "8");
        assert_eq!(headers.text("x-SEAT"), Some("7"));
        assert_eq!((headers.len(), headers.get("other")), (2, None));
    }

    #[test]
    fn names_of_the_protocol_and_impossible_ones_are_refused() {
        assert_eq!(Headers::new().with("idempotency-key", "1").with("traceparent", "00-").check(), Ok(()));
        let refused = Headers::new().with("Rig-Correlation", "forged").check();
        assert_eq!(refused, Err(HeaderError::Reserved("Rig-Correlation".to_owned())));
        assert!(matches!(Headers::new().with("", "x").check(), Err(HeaderError::Name(_))));
        assert!(matches!(Headers::new().with("a\0b", "x").check(), Err(HeaderError::Name(_))));
    }
}
