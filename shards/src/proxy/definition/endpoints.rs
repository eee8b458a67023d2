//! One endpoint of a definition.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::reserved::own_prefix_taken;
use super::section::{PRESENT, Section, one_of};
use super::{DefinitionErrors, Surroundings};
use crate::proxy::endpoint::{Backend, Endpoint, KafkaTarget, ResponseFrom, Target, TokenPlace, Wrap};
use crate::proxy::rewrite::Rewrite;
use crate::proxy::table::Route;

/// Memory of one compiled `path_regex`.
const MAX_REGEX_BYTES: usize = 2 << 20;

/// Methods that an endpoint may have: those of the IANA registry that have a use behind a gateway.
const METHODS: [&str; 20] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "ACL",
    "COPY",
    "LINK",
    "LOCK",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "PROPFIND",
    "PROPPATCH",
    "QUERY",
    "REPORT",
    "SEARCH",
    "UNLOCK",
];

const NOT_SERVED: &str = "can't be served by this version, that comes with a later version";

/// What endpoints take from their API.
pub(super) struct Api<'a> {
    pub(super) id: &'a str,
    pub(super) backend: Option<&'a Backend>,
    /// `Some` if `auth_type` is `jwt`.
    pub(super) token: Option<TokenPlace>,
    pub(super) add_headers: Option<&'a [(HeaderName, HeaderValue)]>,
    pub(super) surroundings: &'a Surroundings<'a>,
}

/// Reads an endpoint; the result counts only if no error was added.
pub(super) fn compile(api: &Api<'_>, value: &Value, errors: &mut DefinitionErrors) -> Option<Route> {
    let id = value.get("id").and_then(Value::as_str).unwrap_or_default();
    let place = format!("{}/{id}", api.id);
    let Value::Object(fields) = value else {
        errors.add(&place, "endpoint", "must be map");
        return None;
    };
    let mut endpoint = Section { place: &place, fields, errors };
    endpoint.required_text("id");
    let regex = path_regex(&mut endpoint);
    let path_replacement = endpoint.optional_text("path_replacement");
    if path_replacement.is_some_and(|text| text.contains('#')) {
        endpoint.error("path_replacement", "must be a path, which has no #");
    }
    let method = method(&mut endpoint);
    let secured = secured(&mut endpoint, api.token.as_ref());
    let add_headers = added(&mut endpoint, api.add_headers);
    let response_from = response_from(&mut endpoint);
    let target = target(&mut endpoint, api, regex.as_ref());
    let endpoint = Endpoint {
        api_id: api.id.into(),
        id: id.into(),
        method: method?,
        path_regex: fields.get("path_regex").and_then(Value::as_str)?.into(),
        path_replacement: path_replacement.map(Into::into),
        secured,
        add_headers,
        target: target?,
        response_from: response_from?,
        definition: value.clone(),
    };
    Some(Route { regex: regex?, rewrite: path_replacement.map(Rewrite::parse), endpoint: Arc::new(endpoint) })
}

/// Anchored at both ends; unlike `^…$`, also where the pattern has alternatives.
pub(crate) fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

fn path_regex(endpoint: &mut Section<'_, '_>) -> Option<Regex> {
    let pattern = endpoint.required_text("path_regex")?;
    // By itself first: a pattern such as `a)|(b` must not compile by closing our group.
    let alone = RegexBuilder::new(pattern).case_insensitive(true).size_limit(MAX_REGEX_BYTES).build();
    let whole = alone
        .and_then(|_| RegexBuilder::new(&anchored(pattern)).case_insensitive(true).size_limit(MAX_REGEX_BYTES).build());
    match whole {
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            endpoint.error("path_regex", format!("must be a regular expression ({reason})"));
            None
        }
        Ok(regex) => {
            if let Some(own) = own_prefix_taken(pattern) {
                endpoint.error("path_regex", format!("must not match paths of /{own}, which are the gateway's own"));
                return None;
            }
            Some(regex)
        }
    }
}

fn method(endpoint: &mut Section<'_, '_>) -> Option<Method> {
    let text = endpoint.required_text("method")?;
    if !METHODS.contains(&text) {
        endpoint.error("method", one_of(&METHODS));
        return None;
    }
    Method::from_bytes(text.as_bytes()).ok()
}

fn secured(endpoint: &mut Section<'_, '_>, token: Option<&TokenPlace>) -> Option<TokenPlace> {
    if !endpoint.switch("secured") {
        return None;
    }
    if token.is_none() {
        endpoint.error("auth_type", one_of(&["jwt"]));
    }
    token.cloned()
}

fn added(
    endpoint: &mut Section<'_, '_>,
    add_headers: Option<&[(HeaderName, HeaderValue)]>,
) -> Box<[(HeaderName, HeaderValue)]> {
    if !endpoint.switch("transform_request_headers") {
        return Box::default();
    }
    if add_headers.is_none() {
        endpoint.error(
            "transform_request_headers",
            "must have add_headers in the transform_request_headers of its version",
        );
    }
    add_headers.unwrap_or_default().into()
}

fn response_from(endpoint: &mut Section<'_, '_>) -> Option<ResponseFrom> {
    if endpoint.get("response_from").is_none() {
        return Some(ResponseFrom::Http);
    }
    match endpoint.word("response_from", &["http", "kafka", "http_async", "kinesis", "nats"])? {
        "http" => Some(ResponseFrom::Http),
        "kafka" => Some(ResponseFrom::Kafka),
        "http_async" => Some(ResponseFrom::HttpAsync),
        other => {
            endpoint.error("response_from", format!("{other} {NOT_SERVED}"));
            None
        }
    }
}

fn target(endpoint: &mut Section<'_, '_>, api: &Api<'_>, regex: Option<&Regex>) -> Option<Target> {
    let schema = endpoint.optional_text("schema");
    if schema.is_some() && endpoint.get("target").is_none() {
        endpoint.error("target", PRESENT);
        return None;
    }
    let name = match endpoint.get("target") {
        None => "http",
        Some(_) => endpoint.word("target", &["http", "kafka", "kinesis", "nats"])?,
    };
    match name {
        "kafka" => {
            let schema = schema.filter(|_| api.surroundings.avro).map(Into::into);
            kafka_target(endpoint, regex).map(|target| Target::Kafka(KafkaTarget { schema, ..target }))
        }
        "kinesis" | "nats" => {
            endpoint.present_text("topic");
            endpoint.error("target", format!("{name} {NOT_SERVED}"));
            None
        }
        _ => api.backend.cloned().map(Target::Http),
    }
}

fn kafka_target(endpoint: &mut Section<'_, '_>, regex: Option<&Regex>) -> Option<KafkaTarget> {
    let topic = endpoint.present_text("topic");
    if topic.is_some_and(|topic| !is_topic(topic)) {
        endpoint.error("topic", "must have 1 to 249 letters, digits, dots, underscores and hyphens");
    }
    let key = endpoint.optional_text("key");
    if let (Some(key), Some(regex)) = (key, regex) {
        let missing = (1..=9).find(|group| key.contains(&format!("\\{group}")) && *group >= regex.captures_len());
        if let Some(group) = missing {
            endpoint.error("key", format!("must name groups of path_regex, which has no \\{group}"));
        }
    }
    let wrap = wrap(endpoint);
    Some(KafkaTarget { topic: topic?.into(), key: key.map(Into::into), schema: None, wrap })
}

fn wrap(endpoint: &mut Section<'_, '_>) -> Option<Wrap> {
    let fields = endpoint.optional_map("wrap")?;
    let mut wrap = Section { place: endpoint.place, fields, errors: endpoint.errors };
    let (event_type, source) = (wrap.required_text("type"), wrap.required_text("source"));
    Some(Wrap { event_type: event_type?.into(), source: source?.into() })
}

fn is_topic(name: &str) -> bool {
    let legal = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    (1..=249).contains(&name.len()) && legal && name != "." && name != ".."
}
