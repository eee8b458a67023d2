//! Settings of parts that come with a later version: validated now, and the operator is warned.

use super::catalogue::{CATALOGUE, is_erlang};
use super::values::Reader;

/// How the texts call the version that will serve what this one can't.
pub const LATER_VERSION: &str = "a later version";

/// Settings that have no effect yet, with the part they belong to. One warning per part.
const WITHOUT_EFFECT: &[(&str, &[&str])] = &[
    (
        "answers over Kinesis and NATS",
        &["PROXY_KINESIS_RESPONSE_TIMEOUT", "PROXY_NATS_RESPONSE_TIMEOUT", "PROXY_KINESIS_REQUEST_REGION"],
    ),
    ("NATS", &["NATS_SERVERS", "NATS_SOURCE_TOPICS", "NATSTOFILTER_QUEUE_GROUP"]),
    (
        "Kinesis",
        &[
            "KINESIS_ENABLED",
            "KINESIS_STREAM",
            "KINESIS_AWS_REGION",
            "KINESIS_ENDPOINT",
            "KINESIS_DYNAMODB_ENDPOINT",
            "KINESIS_LOG_LEVEL",
            "KINESIS_APP_NAME",
        ],
    ),
    ("tracing", &["JAEGER_HOST", "JAEGER_PORT", "JAEGER_SERVICE_NAME", "ZIPKIN_ADDR", "ZIPKIN_SERVICE_NAME"]),
];

/// Validates them; returns the warnings.
pub(super) fn check(reader: &mut Reader<'_>) -> Vec<String> {
    validate(reader);
    let values = reader.values();
    let mut warnings = Vec::new();
    for (part, variables) in WITHOUT_EFFECT {
        let set: Vec<_> = variables.iter().copied().filter(|variable| values.is_set(variable)).collect();
        if !set.is_empty() {
            warnings.push(format!("{part}: comes with {LATER_VERSION}; no effect yet: {}", set.join(", ")));
        }
    }
    for setting in CATALOGUE.iter().filter(|setting| is_erlang(setting)) {
        if values.is_set(setting.variable) {
            warnings.push(format!("{} has no effect: {}", setting.variable, setting.help));
        }
    }
    warnings
}

fn validate(reader: &mut Reader<'_>) {
    reader.port("JAEGER_PORT");
    for variable in ["PROXY_KINESIS_RESPONSE_TIMEOUT", "PROXY_NATS_RESPONSE_TIMEOUT"] {
        reader.number(variable, 1..=super::MAX_TIMEOUT_MS);
    }
    reader.switch("KINESIS_ENABLED");
}
