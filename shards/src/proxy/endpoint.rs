//! Endpoints of API definitions, compiled: everything a shard needs for a call, nothing it would have to look up.

use http::{HeaderName, HeaderValue, Method};

/// One endpoint of an API definition.
#[derive(Debug)]
pub struct Endpoint {
    /// `id` of the API.
    pub api_id: Box<str>,
    /// `id` of the endpoint.
    pub id: Box<str>,
    /// Method it takes; one for GET takes HEAD too.
    pub method: Method,
    /// `path_regex` as defined; a label of metrics.
    pub path_regex: Box<str>,
    /// `path_replacement` as defined: `\1`, `\2` … stand for the groups of `path_regex`.
    pub path_replacement: Option<Box<str>>,
    /// Where a valid token has to be; `None` where the endpoint is not secured.
    pub secured: Option<TokenPlace>,
    /// Headers to add to the request in place of the client's of the same name; empty unless the endpoint asks for it.
    pub add_headers: Box<[(HeaderName, HeaderValue)]>,
    /// Where its requests go.
    pub target: Target,
    /// Where the answer comes from.
    pub response_from: ResponseFrom,
    /// The endpoint as defined, for the request log.
    pub definition: serde_json::Value,
}

/// Where a secured endpoint finds the token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenPlace {
    /// Header beside `authorization`.
    pub header: Option<HeaderName>,
    /// Query parameter.
    pub query: Option<Box<str>>,
}

/// Where the requests of an endpoint go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a backend.
    Http(Backend),
    /// Into a topic, as CloudEvents.
    Kafka(KafkaTarget),
}

impl Target {
    /// Its name in definitions and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Kafka(_) => "kafka",
        }
    }
}

/// Address of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Speak TLS with it.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
    /// Speak HTTP/2 with prior knowledge where there is no TLS to negotiate it (`"http2": true` beside `proxy`'s members).
    pub http2: bool,
}

/// Topic of an endpoint, and how its requests become events there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaTarget {
    /// The topic.
    pub topic: Box<str>,
    /// Partition key (`key`): text in which `\1`, `\2` … stand for groups of the path and `${name}` for a request header;
    /// `None` leaves it to `rig.target_partition` in the body.
    pub key: Option<Box<str>>,
    /// Subject of the Avro schema of `data` (`schema`), where Kafka gets Avro.
    pub schema: Option<Box<str>>,
    /// Makes an event of a body that is none (`wrap`).
    pub wrap: Option<Wrap>,
}

/// Attributes of the events that bodies are wrapped into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrap {
    /// CloudEvents `type`.
    pub event_type: Box<str>,
    /// CloudEvents `source`.
    pub source: Box<str>,
}

/// Where the answer to a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseFrom {
    /// The backend's own answer; of a Kafka target, 202 once the broker has it.
    Http,
    /// `POST /v3/responses` on the internal port.
    HttpAsync,
    /// A message on a response topic.
    Kafka,
}

impl ResponseFrom {
    /// Its name in definitions and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::HttpAsync => "http_async",
            Self::Kafka => "kafka",
        }
    }
}
