//! Checks of who may subscribe and publish.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use serde_json::{Map, Value};

use super::proxy::http::ask::ask;
use super::{SharedWorld, World, bearer};
use crate::auth::check::{Check, CheckUrl, Question};
use crate::clock;
use crate::query::{BrokenEncoding, ConnectionQuery};

const JSON: &str = "application/json; charset=utf-8";

/// Whether a PUT of subscriptions passes.
pub(super) async fn may_subscribe(world: &SharedWorld, headers: &HeaderMap, body: &Bytes) -> bool {
    by_request(world, &world.settings.tokens.subscription_check, headers, body).await
}

/// Whether an event may be published.
pub(super) async fn may_publish(world: &SharedWorld, headers: &HeaderMap, body: &Bytes) -> bool {
    by_request(world, &world.settings.tokens.submission_check, headers, body).await
}

async fn by_request(world: &SharedWorld, check: &Check, headers: &HeaderMap, body: &Bytes) -> bool {
    match check {
        Check::Nobody => true,
        Check::Token => counted(world, bearer::shows_token(world, headers)),
        Check::Url(url) => {
            let content_type = headers.get(header::CONTENT_TYPE).cloned();
            let sent: Vec<&[u8]> = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect();
            let authorization = HeaderValue::from_bytes(&sent.join(&b", "[..])).ok();
            by_url(world, url, content_type, authorization, body.clone()).await
        }
    }
}

/// Whether a connection call passes a check by URL; true where there is none, where nothing is subscribed to by hand, and
/// where the call is refused anyway.
pub(super) async fn may_connect(world: &SharedWorld, parts: &Parts, broken: BrokenEncoding) -> bool {
    let Check::Url(url) = &world.settings.tokens.subscription_check else { return true };
    let Ok(query) = ConnectionQuery::parse(parts.uri.query().unwrap_or(""), broken) else { return true };
    let Some(list) = query.subscriptions.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return true;
    };
    let list = match list {
        Value::Object(mut members) => members.remove("subscriptions").unwrap_or_default(),
        list => list,
    };
    let question = Value::Object(Map::from_iter([("subscriptions".to_owned(), sorted(list))]));
    let authorization = query.jwt.and_then(|jwt| HeaderValue::try_from(format!("Bearer {jwt}")).ok());
    let content_type = Some(HeaderValue::from_static(JSON));
    by_url(world, url, content_type, authorization, question.to_string().into()).await
}

/// Whether a connection's head has to wait for an answer from elsewhere.
pub(super) fn must_ask(world: &SharedWorld, query: Option<&str>) -> bool {
    matches!(world.settings.tokens.subscription_check, Check::Url(_))
        && query.is_some_and(|query| query.contains("subscriptions"))
}

/// With the members of every object in the order of their names.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(elements) => elements.into_iter().map(sorted).collect(),
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Object(members.into_iter().collect())
        }
        scalar => scalar,
    }
}

async fn by_url(
    world: &SharedWorld,
    url: &CheckUrl,
    content_type: Option<HeaderValue>,
    authorization: Option<HeaderValue>,
    body: Bytes,
) -> bool {
    let settings = &world.settings.tokens;
    let text = |value: &Option<HeaderValue>| value.as_ref().map(|value| value.as_bytes().to_vec());
    let (sent_type, sent) = (text(&content_type).unwrap_or_default(), text(&authorization));
    let question = Question::new(url, &sent_type, sent.as_deref(), &body);
    if settings.check_cache_ms > 0
        && let Some(allowed) = world.checked.borrow().get(question, clock::now_ms())
    {
        return counted(world, allowed);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in [(header::CONTENT_TYPE, content_type), (header::AUTHORIZATION, authorization)] {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    let allowed = match ask(world, url, headers, body, settings.check_timeout_ms).await {
        Ok(status) => {
            let allowed = status.is_success();
            if settings.check_cache_ms > 0 {
                let until_ms = clock::now_ms() + settings.check_cache_ms;
                world.checked.borrow_mut().keep(question, allowed, until_ms);
            }
            if !allowed {
                tracing::debug!(host = &*url.backend.host, %status, "a check was denied");
            }
            allowed
        }
        Err(reason) => {
            world.shard.borrow().metrics().tokens.checks_unanswered.add(1);
            let pool = world.proxy.backends.pool(&url.backend, &world.settings.proxy);
            if pool.may_warn() {
                tracing::warn!(
                    host = &*url.backend.host,
                    port = url.backend.port,
                    reason = &*reason,
                    "denied: the URL of SUBSCRIPTION_CHECK or SUBMISSION_CHECK gave no answer"
                );
            }
            false
        }
    };
    counted(world, allowed)
}

/// Counts the outcome of a check.
pub(super) fn counted(world: &World, allowed: bool) -> bool {
    let shard = world.shard.borrow();
    let counts = &shard.metrics().tokens;
    if allowed {
        counts.checks_allowed.add(1)
    } else {
        counts.checks_denied.add(1)
    }
    allowed
}
