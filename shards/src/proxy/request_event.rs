//! From an HTTP request to the event that a Kafka target gets (contract, section 4, "target kafka").
//!
//! What the client wrote stays as it is: members are sorted by name, as RIG sorts them, but their text is the client's,
//! numbers and all. Only `rig`, `traceparent` and `tracestate` are the gateway's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, Uri};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::endpoint::{KafkaTarget, Wrap};
use super::outbound::{ReplyAddress, RequestMessage};
use crate::trace;

/// Header of a request: its correlation id, to be sent back with the answer.
pub const CORRELATION: &str = "rig-correlation";
/// Header of a request: the topic where this gateway reads answers itself.
pub const REPLY_TOPIC: &str = "rig-reply-topic";
/// Header of a request: the partition of [`REPLY_TOPIC`], in decimal digits.
pub const REPLY_PARTITION: &str = "rig-reply-partition";
/// Header of a request: when its caller stops waiting, in milliseconds of Unix time.
pub const DEADLINE: &str = "rig-deadline";

/// Header of a request: the id of the endpoint it came through, by which a `ReactiveServer` finds the service.
pub const SERVICE: &str = "rig-service";

/// Scheme of a request, and its port where `host` names none; over TLS the second.
const SCHEMES: [(&str, u16); 2] = [("http", 80), ("https", 443)];

/// Why a request becomes no event. The texts go to the client, after RIG's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEvent {
    /// The body is no JSON, or no UTF-8.
    #[error("Bad request: expected a JSON encoded request body.{USAGE}")]
    NotJson,
    /// No JSON object, or one without a CloudEvents version.
    #[error("Bad request: the body does not look like a CloudEvent.{USAGE}")]
    NotACloudEvent,
    /// `rig.target_partition` is no text.
    #[error("Bad request: rig.target_partition must be a text, which is the message's key.{USAGE}")]
    PartitionNotText,
    /// Data that are no JSON, where they are to be written by a schema.
    #[error("Bad request: this endpoint takes \"data\" in JSON, no \"data_base64\".{USAGE}")]
    Base64,
    /// An attribute whose name can't be that of a header.
    #[error("Bad request: a member's name is not empty and has no control characters.{USAGE}")]
    BadName,
}

const USAGE: &str = "\n\n# Usage\n\nSend a CloudEvent in structured mode, which is a JSON object with at least \
\"specversion\" (or \"cloudEventsVersion\"), \"type\", \"source\" and \"id\".\n\nEvents with the same text in \
\"rig\": {\"target_partition\": \"...\"} reach the same Kafka partition, in order; without it, any partition is used.";

/// A request that is for a Kafka target.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The client's method.
    pub method: &'a Method,
    /// The client's URI.
    pub uri: &'a Uri,
    /// The client's header fields.
    pub headers: &'a HeaderMap,
    /// Fields to put in place of the client's of the same name.
    pub add_headers: &'a [(HeaderName, HeaderValue)],
    /// Path after rewriting.
    pub path: &'a str,
    /// Query as sent.
    pub query: Option<&'a str>,
    /// Groups of the endpoint's path, percent-encoded.
    pub captures: &'a [&'a str],
    /// The client's address.
    pub peer: Option<IpAddr>,
    /// It came over TLS.
    pub secure: bool,
}

/// Who waits for the answer to a request.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// `id` of the endpoint.
    pub endpoint: &'a str,
    /// When it stops waiting, in milliseconds of Unix time.
    pub deadline_unix_ms: u64,
    /// Where this node reads answers, where it does.
    pub reply_to: Option<&'a ReplyAddress>,
}

/// The message for `target`. `correlation` is the id in its text form; `expected` says that an answer is waited for.
///
/// # Errors
/// [`NotAnEvent`], whose text tells the client what to send.
pub fn message(
    target: &KafkaTarget,
    request: &Request<'_>,
    correlation: &str,
    expected: Option<Expected<'_>>,
    body: &[u8],
) -> Result<RequestMessage, NotAnEvent> {
    let mut event = event(target.wrap.as_ref(), request.headers, body)?;
    let traceparent = trace::continue_trace(text(request.headers, "traceparent"));
    let key = key(target, request, event.get("rig").map(|rig| rig.as_ref()))?;
    let mut headers = Vec::new();
    if let Some(expected) = expected {
        headers.push((CORRELATION.into(), correlation.to_owned().into()));
        headers.push((SERVICE.into(), Bytes::copy_from_slice(expected.endpoint.as_bytes())));
        if let Some(address) = expected.reply_to {
            headers.push((REPLY_TOPIC.into(), Bytes::copy_from_slice(address.topic.as_bytes())));
            headers.push((REPLY_PARTITION.into(), address.partition.to_string().into()));
        }
        headers.push((DEADLINE.into(), expected.deadline_unix_ms.to_string().into()));
    }
    let rig = Rig::new(request, correlation, &traceparent);
    event.insert(Cow::Borrowed("rig"), raw(&rig));
    event.insert(Cow::Borrowed("traceparent"), raw(&traceparent));
    let continued = text(request.headers, "traceparent").is_some_and(|sent| sent.get(3..35) == traceparent.get(3..35));
    match text(request.headers, "tracestate").filter(|_| continued) {
        Some(state) => event.insert(Cow::Borrowed("tracestate"), raw(state)),
        None => event.remove("tracestate"),
    };
    let (topic, schema) = (target.topic.clone(), target.schema.clone());
    if schema.is_some() {
        let data = event.remove("data").unwrap_or_else(|| raw(&Data {}));
        let headers = attributes(&event)?.into_iter().chain(headers).collect();
        return Ok(RequestMessage { topic, key, value: data.get().to_owned().into(), schema, headers });
    }
    let content_types = ["contenttype", "contentType"].into_iter().filter_map(|name| {
        let value = serde_json::from_str::<String>(event.get(name)?.get()).ok()?;
        Some((format!("ce_{name}").into(), value.into()))
    });
    let headers = content_types.chain(headers).collect();
    let value = serde_json::to_vec(&event).expect("invariant: texts and valid JSON can be written");
    Ok(RequestMessage { topic, key, value: value.into(), schema, headers })
}

/// Header of a message whose value is not the whole event.
const CONTENT_TYPE: &str = "content-type";
/// Its value for Avro.
const AVRO: &str = "avro/binary";

/// Data of an event that has none, where they are to be written by a schema: RIG's.
#[derive(Serialize)]
struct Data {}

/// The attributes of an event in the binary mode, whose data are in Avro: texts as they are, everything else as JSON. One that
/// is null is absent.
fn attributes(event: &Event<'_>) -> Result<Vec<(Box<str>, Bytes)>, NotAnEvent> {
    let mut headers = Vec::with_capacity(event.len() + 1);
    for (name, value) in event {
        if name == "data_base64" {
            return Err(NotAnEvent::Base64);
        }
        if name.is_empty() || name.contains(char::is_control) {
            return Err(NotAnEvent::BadName);
        }
        if value.get() == "null" {
            continue;
        }
        let text = serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned());
        headers.push((format!("ce_{name}").into(), text.into()));
    }
    headers.push((CONTENT_TYPE.into(), AVRO.into()));
    Ok(headers)
}

type Event<'a> = BTreeMap<Cow<'a, str>, Cow<'a, RawValue>>;

/// The members of the event in `body`, or of the event that it is wrapped into.
fn event<'a>(wrap: Option<&'a Wrap>, headers: &HeaderMap, body: &'a [u8]) -> Result<Event<'a>, NotAnEvent> {
    let json = serde_json::from_slice::<&RawValue>(body);
    if let Ok(json) = json
        && json.get().starts_with('{')
    {
        let members: BTreeMap<Key<'a>, &RawValue> =
            serde_json::from_str(json.get()).map_err(|_| NotAnEvent::NotJson)?;
        let event: Event<'a> = members.into_iter().map(|(name, value)| (name.0, Cow::Borrowed(value))).collect();
        if event.contains_key("specversion") || event.contains_key("cloudEventsVersion") {
            return Ok(event);
        }
    }
    match (wrap, json) {
        (Some(wrap), json) => wrapped(wrap, headers, body, json.ok()),
        (None, Ok(_)) => Err(NotAnEvent::NotACloudEvent),
        (None, Err(_)) => Err(NotAnEvent::NotJson),
    }
}

/// A member's name, borrowed where it is written without escapes.
#[derive(serde::Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// An event (CloudEvents 1.0) around a body: JSON as it is, other text as a string, anything else in Base64.
fn wrapped<'a>(
    wrap: &'a Wrap,
    headers: &HeaderMap,
    body: &'a [u8],
    json: Option<&'a RawValue>,
) -> Result<Event<'a>, NotAnEvent> {
    let declared = text(headers, "content-type").map(str::trim).filter(|declared| !declared.is_empty());
    let mut event = Event::new();
    let mut put = |name: &'static str, value: Cow<'a, RawValue>| event.insert(Cow::Borrowed(name), value);
    put("specversion", raw("1.0"));
    put("type", raw(&*wrap.event_type));
    put("source", raw(&*wrap.source));
    put("id", raw(&Uuid::new_v4().to_string()));
    put("time", raw(&Timestamp::now().to_string()));
    if body.is_empty() {
        return Ok(event);
    }
    let content_type = match (declared.map(is_json), json) {
        (Some(true), None) => return Err(NotAnEvent::NotJson),
        (Some(true) | None, Some(json)) => {
            put("data", Cow::Borrowed(json));
            declared.unwrap_or("application/json")
        }
        (Some(false), _) | (None, None) => match std::str::from_utf8(body) {
            Ok(text) => {
                put("data", raw(text));
                declared.unwrap_or("text/plain; charset=utf-8")
            }
            Err(_) => {
                put("data_base64", raw(&STANDARD.encode(body)));
                declared.unwrap_or("application/octet-stream")
            }
        },
    };
    put("datacontenttype", raw(content_type));
    Ok(event)
}

/// A media type whose content is JSON (RFC 6839 section 3.1).
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// The message's key: the endpoint's `key` if that gives one, else `rig.target_partition` of the event.
fn key(target: &KafkaTarget, request: &Request<'_>, rig: Option<&RawValue>) -> Result<Option<Bytes>, NotAnEvent> {
    let asked_for = match rig.filter(|rig| rig.get().starts_with('{')) {
        Some(rig) => target_partition(rig)?,
        None => None,
    };
    let filled = target.key.as_deref().map(|template| fill(template, request)).filter(|key| !key.is_empty());
    let key = filled.or_else(|| asked_for.map(String::into_bytes)).filter(|key| !key.is_empty());
    Ok(key.map(Bytes::from))
}

fn target_partition(rig: &RawValue) -> Result<Option<String>, NotAnEvent> {
    let members: BTreeMap<Key<'_>, &RawValue> = serde_json::from_str(rig.get()).map_err(|_| NotAnEvent::NotJson)?;
    let Some(value) = members.get(&Key(Cow::Borrowed("target_partition"))) else { return Ok(None) };
    serde_json::from_str(value.get()).map_err(|_| NotAnEvent::PartitionNotText)
}

/// A template with `\1`, `\2` … filled in from the path's groups, percent-decoded, and `${name}` from the client's header
/// fields; what names nothing is empty.
fn fill(template: &str, request: &Request<'_>) -> Vec<u8> {
    let mut filled = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find(['\\', '$']) {
        filled.extend_from_slice(&rest.as_bytes()[..at]);
        let tail = &rest[at..];
        rest = if let Some((name, after)) = tail.strip_prefix("${").and_then(|tail| tail.split_once('}')) {
            filled.extend_from_slice(request.headers.get(name).map_or(b"", HeaderValue::as_bytes));
            after
        } else if let Some(group) = tail[1..].chars().next().and_then(|digit| digit.to_digit(10))
            && tail.starts_with('\\')
        {
            let group = (group as usize).checked_sub(1).and_then(|index| request.captures.get(index));
            filled.extend(group.into_iter().flat_map(|group| percent_decode_str(group)));
            &tail[2..]
        } else {
            filled.extend_from_slice(&tail.as_bytes()[..1]);
            &tail[1..]
        };
    }
    filled.extend_from_slice(rest.as_bytes());
    filled
}

/// The `rig` member, its own members sorted.
#[derive(Debug, Serialize)]
struct Rig<'a> {
    correlation: &'a str,
    headers: Vec<[String; 2]>,
    host: String,
    method: &'a str,
    path: &'a str,
    port: u16,
    query: &'a str,
    remoteip: String,
    scheme: &'a str,
}

impl<'a> Rig<'a> {
    fn new(request: &Request<'a>, correlation: &'a str, traceparent: &str) -> Self {
        let authority = authority(request);
        let (scheme, usual_port) = SCHEMES[usize::from(request.secure)];
        Self {
            correlation,
            headers: listed(request, authority.as_ref(), traceparent),
            host: authority.as_ref().map(|authority| authority.host().to_owned()).unwrap_or_default(),
            method: request.method.as_str(),
            path: request.path,
            port: authority.as_ref().and_then(Authority::port_u16).unwrap_or(usual_port),
            query: request.query.unwrap_or_default(),
            remoteip: request.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            scheme,
        }
    }
}

/// What the client calls this host: `host` of HTTP/1.1, or HTTP/2's `:authority`.
fn authority(request: &Request<'_>) -> Option<Authority> {
    let named = text(request.headers, "host").and_then(|host| host.parse().ok());
    named.or_else(|| request.uri.authority().cloned())
}

/// The header fields after `add_headers`, sorted; several of one name are one, joined (RFC 9110 section 5.3, cookies RFC
/// 6265 section 5.4). Bytes that are no UTF-8 become U+FFFD.
fn listed(request: &Request<'_>, authority: Option<&Authority>, traceparent: &str) -> Vec<[String; 2]> {
    let mut fields: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in request.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let separator = if *name == header::COOKIE { "; " } else { ", " };
        fields.entry(name.as_str()).and_modify(|all| *all += &format!("{separator}{value}")).or_insert(value.into());
    }
    if let Some(authority) = authority {
        fields.entry("host").or_insert_with(|| authority.to_string());
    }
    fields.insert("traceparent", traceparent.to_owned());
    for (name, value) in request.add_headers {
        fields.insert(name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    fields.into_iter().map(|(name, value)| [name.to_owned(), value]).collect()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn raw<T: Serialize + ?Sized>(value: &T) -> Cow<'static, RawValue> {
    Cow::Owned(to_raw_value(value).expect("invariant: texts and numbers can be written as JSON"))
}
