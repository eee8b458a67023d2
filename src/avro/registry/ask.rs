//! One question to the registry.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tidegate_shards::auth::check::CheckUrl;

use super::{NoSchema, RegistryMetrics};
use crate::avro::codec::Schema;
use crate::fetch;

/// Time for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the largest answer.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// What a segment of a path may have as it is (RFC 3986, section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Asks, counts, and tells the operator once when the registry goes and once when it comes back.
#[derive(Debug)]
pub(super) struct Asker {
    url: CheckUrl,
    ca_pem: Option<Arc<[u8]>>,
    metrics: Arc<RegistryMetrics>,
}

/// What the registry has under an id or a subject.
#[derive(Debug)]
pub(super) struct Found {
    /// Only of a subject's version.
    pub(super) id: Option<u32>,
    pub(super) schema: Arc<Schema>,
}

#[derive(Deserialize)]
struct Answer {
    schema: String,
    id: Option<u32>,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    error_code: u32,
}

impl Asker {
    pub(super) fn new(url: &CheckUrl, ca_pem: Option<Arc<[u8]>>, metrics: Arc<RegistryMetrics>) -> Self {
        Self { url: url.clone(), ca_pem, metrics }
    }

    pub(super) async fn id(&self, id: u32) -> Result<Found, NoSchema> {
        self.ask(&format!("the schema with id {id}"), &format!("/schemas/ids/{id}")).await
    }

    pub(super) async fn latest(&self, subject: &str) -> Result<Found, NoSchema> {
        let segment = utf8_percent_encode(subject, SEGMENT);
        self.ask(&format!("the schema {subject}"), &format!("/subjects/{segment}/versions/latest")).await
    }

    async fn ask(&self, what: &str, path: &str) -> Result<Found, NoSchema> {
        let path = format!("{}{path}", self.url.path.trim_end_matches('/'));
        let url = CheckUrl { backend: self.url.backend.clone(), path: path.into() };
        let answer = tokio::time::timeout(TIMEOUT, fetch::get(&url, self.ca_pem.as_deref(), MAX_ANSWER_BYTES)).await;
        let read = match answer {
            Ok(Ok((status, body))) => read(what, status, &body),
            Ok(Err(reason)) => Err(away(reason)),
            Err(_late) => Err(away("no answer in time".to_owned())),
        };
        self.note(what, read.as_ref().err());
        read
    }

    fn note(&self, what: &str, trouble: Option<&NoSchema>) {
        let counter = match trouble {
            None => &self.metrics.given,
            Some(NoSchema::Unusable(_)) => &self.metrics.unusable,
            Some(NoSchema::Away(_)) => &self.metrics.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let registry = format!("{}:{}", self.url.backend.host, self.url.backend.port);
        if let Some(NoSchema::Away(reason)) = trouble {
            if !self.metrics.away.swap(true, Ordering::Relaxed) {
                tracing::warn!(registry, what, %reason, "the schema registry can't be reached: what needs a new schema waits");
            }
        } else if self.metrics.away.swap(false, Ordering::Relaxed) {
            tracing::warn!(registry, "the schema registry answers again");
        }
    }
}

fn read(what: &str, status: StatusCode, body: &[u8]) -> Result<Found, NoSchema> {
    match status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND if is_refusal(status, body) => {
            return Err(unusable(format!("{what} is not in the registry")));
        }
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY if is_refusal(status, body) => {
            return Err(unusable(format!("the registry has no use for the question about {what} ({status})")));
        }
        status => return Err(away(format!("its answer is {status}"))),
    }
    let answer: Answer =
        serde_json::from_slice(body).map_err(|error| away(format!("its answer has no schema ({error})")))?;
    if let Some(other) = answer.schema_type.filter(|schema_type| !schema_type.eq_ignore_ascii_case("AVRO")) {
        return Err(unusable(format!("{what} is of the type {other}, not Avro")));
    }
    let schema = Schema::parse(&answer.schema).map_err(|error| unusable(format!("{what} can't be used: {error}")))?;
    Ok(Found { id: answer.id, schema: Arc::new(schema) })
}

/// Any server answers 404 to a path that it doesn't know; a registry says what it hasn't found, by a code of five digits that
/// begins with the status.
fn is_refusal(status: StatusCode, body: &[u8]) -> bool {
    serde_json::from_slice::<Refusal>(body).is_ok_and(|refusal| refusal.error_code / 100 == u32::from(status.as_u16()))
}

fn unusable(reason: String) -> NoSchema {
    NoSchema::Unusable(reason.into())
}

fn away(reason: String) -> NoSchema {
    NoSchema::Away(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(status: u16, body: &str) -> Result<Found, NoSchema> {
        read("the schema x", StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn an_answer_has_the_schema_as_a_text_in_json() {
        let found = read_text(200, r#"{"subject":"x","version":3,"id":7,"schema":"\"string\""}"#).unwrap();
        assert_eq!(found.id, Some(7));
        assert!(read_text(200, r#"{"schema":"{\"type\":\"int\"}"}"#).is_ok_and(|found| found.id.is_none()));
    }

    #[test]
    fn what_the_registry_does_not_have_is_told_from_a_server_that_is_none() {
        let missing = read_text(404, r#"{"error_code":40403,"message":"Schema not found"}"#);
        assert_eq!(missing.unwrap_err().to_string(), "the schema x is not in the registry");
        let refused = read_text(422, r#"{"error_code":42201,"message":"Invalid schema"}"#);
        assert!(matches!(refused, Err(NoSchema::Unusable(_))));
        for (status, body) in [(404, "Not Found"), (404, r#"{"error_code":404}"#), (500, "{}"), (401, ""), (200, "hi")]
        {
            assert!(matches!(read_text(status, body), Err(NoSchema::Away(_))), "{status} {body}");
        }
    }

    #[test]
    fn other_kinds_of_schemas_and_broken_ones_are_not_used() {
        for body in [r#"{"schema":"{}","schemaType":"JSON"}"#, r#"{"schema":"{\"type\":\"no.such\"}"}"#] {
            assert!(matches!(read_text(200, body), Err(NoSchema::Unusable(_))), "{body}");
        }
        assert!(read_text(200, r#"{"schema":"\"int\"","schemaType":"AVRO"}"#).is_ok());
    }
}
