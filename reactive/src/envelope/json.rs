//! The JSON envelope. The reference (0.4.0) writes `payload` and `response` as text that holds the serialised value, and knows
//! the statuses 200, 300 (bad request), 404 and 500.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{AnswerMessage, EnvelopeError, ReplyTo, RequestMessage};
use crate::headers::Headers;
use crate::outcome::Verdict;
use crate::payload::CodecError;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestOut<'a> {
    correlation_id: &'a str,
    destination: DestinationOut<'a>,
    payload: &'a str,
    reply_to: &'a str,
    headers: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DestinationOut<'a> {
    medium: &'a str,
    topic: &'a str,
    service_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AnswerOut<'a> {
    correlation_id: &'a str,
    reply_to: &'a str,
    response: &'a str,
    status_code: u16,
    headers: BTreeMap<&'a str, &'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestIn<'a> {
    correlation_id: String,
    destination: DestinationIn,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(default)]
    reply_to: Option<String>,
    #[serde(default)]
    headers: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DestinationIn {
    topic: String,
    service_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerIn<'a> {
    correlation_id: String,
    #[serde(default)]
    reply_to: Option<String>,
    #[serde(borrow)]
    response: &'a RawValue,
    status_code: u16,
    #[serde(default)]
    headers: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CorrelationIn {
    correlation_id: String,
}

pub(super) fn write_request(request: &RequestMessage) -> Result<Vec<u8>, CodecError> {
    let envelope = RequestOut {
        correlation_id: as_text("the correlation id", &request.correlation)?,
        destination: DestinationOut { medium: "kafka", topic: &request.topic, service_id: &request.service },
        payload: as_text("a payload", &request.payload.bytes)?,
        reply_to: request.reply_to.as_ref().map_or("", |reply_to| reply_to.topic.as_str()),
        headers: header_texts(&request.headers)?,
    };
    Ok(serde_json::to_vec(&envelope)?)
}

pub(super) fn write_answer(answer: &AnswerMessage) -> Result<Vec<u8>, CodecError> {
    let envelope = AnswerOut {
        correlation_id: as_text("the correlation id", &answer.correlation)?,
        reply_to: &answer.reply_topic,
        response: as_text("a payload", &answer.payload.bytes)?,
        status_code: answer.status,
        headers: header_texts(&answer.headers)?,
    };
    Ok(serde_json::to_vec(&envelope)?)
}

/// Fills in what the JSON object says; what Kafka headers said about the reply stays.
pub(super) fn read_request(request: &mut RequestMessage, value: &[u8]) -> Result<(), EnvelopeError> {
    let envelope: RequestIn<'_> = serde_json::from_slice(value).map_err(unknown)?;
    request.correlation = envelope.correlation_id.into_bytes();
    request.topic = envelope.destination.topic;
    request.service = envelope.destination.service_id;
    request.payload.bytes = value_bytes(envelope.payload);
    add_headers(&mut request.headers, envelope.headers);
    if request.reply_to.is_none() {
        let named = envelope.reply_to.filter(|topic| !topic.is_empty());
        request.reply_to = named.map(|topic| ReplyTo { topic, partition: None });
    }
    if request.reply_to.is_some() && request.correlation.is_empty() {
        return Err(EnvelopeError::NoCorrelation);
    }
    Ok(())
}

pub(super) fn read_answer(answer: &mut AnswerMessage, value: &[u8]) -> Result<(), EnvelopeError> {
    let envelope: AnswerIn<'_> = serde_json::from_slice(value).map_err(unknown)?;
    answer.correlation = envelope.correlation_id.into_bytes();
    answer.reply_topic = envelope.reply_to.unwrap_or_default();
    answer.status = envelope.status_code;
    answer.payload.bytes = value_bytes(envelope.response);
    add_headers(&mut answer.headers, envelope.headers);
    // The reference has no other way to say what went wrong.
    let by_status = match answer.status {
        404 => Some(Verdict::NoSuchService),
        300 | 400..=499 => Some(Verdict::BadRequest),
        500.. => Some(Verdict::HandlerFailed),
        _ => None,
    };
    answer.verdict = answer.verdict.or(by_status);
    Ok(())
}

pub(super) fn correlation(value: &[u8]) -> Option<Vec<u8>> {
    let envelope: CorrelationIn = serde_json::from_slice(value).ok()?;
    Some(envelope.correlation_id.into_bytes())
}

/// The text that a JSON string holds; any other value as its JSON.
fn value_bytes(value: &RawValue) -> Vec<u8> {
    serde_json::from_str::<String>(value.get()).map_or_else(|_| value.get().as_bytes().to_vec(), String::into_bytes)
}

fn add_headers(headers: &mut Headers, named: Option<BTreeMap<String, serde_json::Value>>) {
    for (name, value) in named.unwrap_or_default() {
        match value {
            serde_json::Value::String(text) => headers.insert(name, text),
            other => headers.insert(name, other.to_string()),
        }
    }
}

fn header_texts(headers: &Headers) -> Result<BTreeMap<&str, &str>, CodecError> {
    headers.iter().map(|(name, value)| Ok((name, as_text("a header", value)?))).collect()
}

fn as_text<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a str, CodecError> {
    let only_text = |_| CodecError::Envelope(format!("the JSON envelope carries text only, and {what} is not UTF-8"));
    std::str::from_utf8(bytes).map_err(only_text)
}

fn unknown(error: serde_json::Error) -> EnvelopeError {
    EnvelopeError::Unknown(error.to_string())
}
