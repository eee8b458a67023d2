//! How requests and answers are written into Kafka messages.
//!
//! [`Envelope::Headers`]: everything about the message in Kafka headers, the payload as it is in the value.
//! [`Envelope::Json`]: the value is a JSON object that holds both, as the Scala Reactive System client writes it, so that its
//! services can answer.

mod json;

use std::borrow::Cow;

use crate::headers::{Headers, names};
use crate::outcome::Verdict;
use crate::payload::{CodecError, Payload};

/// The two ways to write a request. A service answers in the way it was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Envelope {
    /// Kafka headers and the raw payload.
    #[default]
    Headers,
    /// `{correlationId, destination, payload, replyTo, headers}` and `{correlationId, replyTo, response, statusCode, headers}`;
    /// carries text and JSON only. What that object has no place for travels in Kafka headers beside it.
    Json,
}

/// Where an answer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// Topic.
    pub topic: String,
    /// Partition that the client reads; `None` leaves the choice to the producer.
    pub partition: Option<i32>,
}

/// A request as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestMessage {
    /// Comes back with the answer, byte for byte; empty for a request that wants none.
    pub correlation: Vec<u8>,
    /// Id of the service.
    pub service: String,
    /// Topic the request is written to. The JSON envelope names it; empty where a header envelope was read.
    pub topic: String,
    /// Where the answer goes; `None` if none is wanted.
    pub reply_to: Option<ReplyTo>,
    /// Instance of the client, in its own spelling.
    pub instance: Option<String>,
    /// When the caller stops waiting, in milliseconds since the epoch.
    pub deadline_ms: Option<u64>,
    /// The caller's headers.
    pub headers: Headers,
    /// The body.
    pub payload: Payload,
}

/// An answer as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerMessage {
    /// As in the request.
    pub correlation: Vec<u8>,
    /// Topic the answer is written to; named by the JSON envelope, empty where a header envelope was read.
    pub reply_topic: String,
    /// Status, as in HTTP.
    pub status: u16,
    /// What went wrong if this is no handler's answer.
    pub verdict: Option<Verdict>,
    /// Time from reading the request to handing over the answer, in microseconds.
    pub serving_us: Option<u64>,
    /// The handler's headers.
    pub headers: Headers,
    /// The body.
    pub payload: Payload,
}

/// A message that is no request or no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Neither the header that names a service nor a JSON envelope.
    #[error("neither a rig-service header nor a JSON envelope: {0}")]
    Unknown(String),
    /// A header that does not hold what it should.
    #[error("the header {name} holds {value:?}")]
    Header {
        /// Its name.
        name: &'static str,
        /// The start of its value.
        value: String,
    },
    /// A reply topic without correlation id, or the other way round.
    #[error("an answer is wanted, but there is no {}", names::CORRELATION)]
    NoCorrelation,
}

/// Receives the Kafka headers of a message while it is written.
pub type PutHeader<'a> = &'a mut dyn FnMut(&str, &[u8]);

impl RequestMessage {
    /// Writes the headers and gives the value.
    ///
    /// # Errors
    /// [`CodecError::Envelope`] if the JSON envelope can't carry it.
    pub fn encode(&self, envelope: Envelope, put: PutHeader<'_>) -> Result<Cow<'_, [u8]>, CodecError> {
        if let Some(reply_to) = &self.reply_to {
            put(names::REPLY_TOPIC, reply_to.topic.as_bytes());
            if let Some(partition) = reply_to.partition {
                put(names::REPLY_PARTITION, partition.to_string().as_bytes());
            }
        }
        if let Some(instance) = &self.instance {
            put(names::INSTANCE, instance.as_bytes());
        }
        if let Some(deadline_ms) = self.deadline_ms {
            put(names::DEADLINE, deadline_ms.to_string().as_bytes());
        }
        if envelope == Envelope::Json {
            return json::write_request(self).map(Cow::Owned);
        }
        put(names::SERVICE, self.service.as_bytes());
        if !self.correlation.is_empty() {
            put(names::CORRELATION, &self.correlation);
        }
        put_payload(&self.payload, &self.headers, put);
        Ok(Cow::Borrowed(&self.payload.bytes))
    }

    /// Reads a request, and says how it was written.
    ///
    /// # Errors
    /// It is no request.
    pub fn decode<'a>(
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        value: &[u8],
    ) -> Result<(Self, Envelope), EnvelopeError> {
        let mut request = Self {
            correlation: Vec::new(),
            service: String::new(),
            topic: String::new(),
            reply_to: None,
            instance: None,
            deadline_ms: None,
            headers: Headers::new(),
            payload: Payload::default(),
        };
        let mut partition = None;
        let mut reply_topic = None;
        for (name, value) in headers {
            match name {
                names::CORRELATION => request.correlation = value.to_vec(),
                names::SERVICE => request.service = text(names::SERVICE, value)?.to_owned(),
                names::REPLY_TOPIC => reply_topic = Some(text(names::REPLY_TOPIC, value)?.to_owned()),
                names::REPLY_PARTITION => partition = Some(number(names::REPLY_PARTITION, value)?),
                names::INSTANCE => request.instance = Some(text(names::INSTANCE, value)?.to_owned()),
                names::DEADLINE => request.deadline_ms = Some(number(names::DEADLINE, value)?),
                names::CONTENT_TYPE => {
                    request.payload.content_type = Cow::Owned(String::from_utf8_lossy(value).into_owned());
                }
                _ => request.headers.insert(name, value),
            }
        }
        request.reply_to = reply_topic.map(|topic| ReplyTo { topic, partition });
        if request.service.is_empty() {
            json::read_request(&mut request, value)?;
            return Ok((request, Envelope::Json));
        }
        if request.reply_to.is_some() && request.correlation.is_empty() {
            return Err(EnvelopeError::NoCorrelation);
        }
        request.payload.bytes = value.to_vec();
        Ok((request, Envelope::Headers))
    }
}

impl AnswerMessage {
    /// Writes the headers and gives the value.
    ///
    /// # Errors
    /// [`CodecError::Envelope`] if the JSON envelope can't carry it.
    pub fn encode(&self, envelope: Envelope, put: PutHeader<'_>) -> Result<Cow<'_, [u8]>, CodecError> {
        if let Some(verdict) = self.verdict {
            put(names::OUTCOME, verdict.name().as_bytes());
        }
        if let Some(serving_us) = self.serving_us {
            put(names::SERVING_US, serving_us.to_string().as_bytes());
        }
        if envelope == Envelope::Json {
            return json::write_answer(self).map(Cow::Owned);
        }
        put(names::CORRELATION, &self.correlation);
        put(names::RESPONSE_CODE, self.status.to_string().as_bytes());
        put_payload(&self.payload, &self.headers, put);
        Ok(Cow::Borrowed(&self.payload.bytes))
    }

    /// The correlation id of a message, without reading the rest: from its header, or else from its JSON envelope.
    pub fn correlation_of<'a>(mut headers: impl Iterator<Item = (&'a str, &'a [u8])>, value: &[u8]) -> Option<Vec<u8>> {
        match headers.find(|(name, _)| name.eq_ignore_ascii_case(names::CORRELATION)) {
            Some((_, id)) => Some(id.to_vec()),
            None => json::correlation(value),
        }
    }

    /// Reads an answer. Names of headers count in any case, because services in all languages write them.
    ///
    /// # Errors
    /// It is no answer.
    pub fn decode<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>, value: &[u8]) -> Result<Self, EnvelopeError> {
        let mut answer = Self {
            correlation: Vec::new(),
            reply_topic: String::new(),
            status: 200,
            verdict: None,
            serving_us: None,
            headers: Headers::new(),
            payload: Payload::default(),
        };
        let is = |name: &str, own: &str| name.eq_ignore_ascii_case(own);
        for (name, value) in headers {
            if is(name, names::CORRELATION) {
                answer.correlation = value.to_vec();
            } else if is(name, names::RESPONSE_CODE) {
                answer.status = status(value)?;
            } else if is(name, names::OUTCOME) {
                answer.verdict = Verdict::from_name(value);
            } else if is(name, names::SERVING_US) {
                answer.serving_us = number(names::SERVING_US, value).ok();
            } else if is(name, names::CONTENT_TYPE) {
                answer.payload.content_type = Cow::Owned(String::from_utf8_lossy(value).into_owned());
            } else {
                answer.headers.insert(name, value);
            }
        }
        if answer.correlation.is_empty() {
            json::read_answer(&mut answer, value)?;
        } else {
            answer.payload.bytes = value.to_vec();
        }
        Ok(answer)
    }
}

fn put_payload(payload: &Payload, headers: &Headers, put: PutHeader<'_>) {
    if !payload.content_type.is_empty() {
        put(names::CONTENT_TYPE, payload.content_type.as_bytes());
    }
    headers.iter().for_each(|(name, value)| put(name, value));
}

fn text<'a>(name: &'static str, value: &'a [u8]) -> Result<&'a str, EnvelopeError> {
    std::str::from_utf8(value).map_err(|_| wrong(name, value))
}

fn number<T: std::str::FromStr>(name: &'static str, value: &[u8]) -> Result<T, EnvelopeError> {
    text(name, value)?.parse().map_err(|_| wrong(name, value))
}

fn status(value: &[u8]) -> Result<u16, EnvelopeError> {
    let code = number(names::RESPONSE_CODE, value)?;
    if (100..=999).contains(&code) { Ok(code) } else { Err(wrong(names::RESPONSE_CODE, value)) }
}

fn wrong(name: &'static str, value: &[u8]) -> EnvelopeError {
    EnvelopeError::Header { name, value: String::from_utf8_lossy(&value[..value.len().min(SHOWN_BYTES)]).into_owned() }
}

/// As much of a bad value as an error shows.
const SHOWN_BYTES: usize = 64;

#[cfg(test)]
mod tests;
