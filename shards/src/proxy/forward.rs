//! What a backend is told of a request, and what a client is told of the backend's answer: which header fields pass, which
//! are dropped, which are added. Framing (`content-length`, `transfer-encoding`) never passes as text: each side is framed
//! anew from the body that was read, so that no two parsers can disagree on where a message ends (RFC 9112 section 11).

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

use super::endpoint::Endpoint;
use crate::trace;

/// Fields that belong to one connection (RFC 9110 section 7.6.1), beside those that `connection` names.
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A request on its way to a backend.
#[derive(Debug)]
pub struct Forwarding<'a> {
    /// The client's method.
    pub method: &'a Method,
    /// The client's header fields.
    pub headers: &'a HeaderMap,
    /// The host in the client's target, port included: `:authority` of HTTP/2.
    pub authority: Option<&'a str>,
    /// The endpoint that takes it.
    pub endpoint: &'a Endpoint,
    /// `host` of the backend, port included.
    pub host: &'a HeaderValue,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The address that the request came from, which may be a trusted proxy's.
    pub peer: Option<IpAddr>,
    /// The client came over TLS.
    pub secure: bool,
    /// This node's address as backends see it.
    pub by: &'a str,
    /// The request has no body.
    pub bodiless: bool,
    /// The client asks for a WebSocket, and the backend shall decide.
    pub upgrade: bool,
    /// The backend is spoken to in HTTP/2, where fields of the connection are forbidden.
    pub http2: bool,
}

impl Forwarding<'_> {
    /// The fields that go to the backend.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut out = HeaderMap::with_capacity(self.headers.len() + 8);
        if !self.http2 {
            out.insert(header::HOST, self.host.clone());
        }
        let named = connection_options(self.headers);
        let traced = self.headers.get(&TRACEPARENT).and_then(|value| value.to_str().ok());
        let traced = traced.filter(|sent| trace::is_valid(sent));
        for (name, value) in self.headers {
            let dropped = is_hop_by_hop(name)
                || *name == header::HOST
                || *name == header::CONTENT_LENGTH
                || *name == header::FORWARDED
                || *name == header::COOKIE
                || *name == TRACEPARENT
                || (*name == TRACESTATE && traced.is_none())
                || names(&named, name);
            if !dropped {
                out.append(name, value.clone());
            }
        }
        if let Some(cookies) = joined(self.headers, &header::COOKIE, b"; ") {
            out.insert(header::COOKIE, cookies);
        }
        self.name_the_client(&mut out);
        if let Ok(value) = HeaderValue::try_from(trace::continue_trace(traced)) {
            out.insert(TRACEPARENT, value);
        }
        if matches!(*self.method, Method::POST | Method::PUT | Method::PATCH) {
            if self.bodiless {
                out.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            if !out.contains_key(header::CONTENT_TYPE) {
                out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            }
        }
        for (name, value) in &self.endpoint.add_headers {
            if !is_hop_by_hop(name) && *name != header::HOST && *name != header::CONTENT_LENGTH {
                out.insert(name, value.clone());
            }
        }
        if self.upgrade {
            out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        } else if has_token(self.headers, &header::TE, "trailers") {
            out.insert(header::TE, HeaderValue::from_static("trailers"));
            if !self.http2 {
                out.insert(header::CONNECTION, HeaderValue::from_static("te"));
            }
        }
        out
    }

    /// `forwarded` (RFC 7239) in place of the client's; `x-forwarded-for` gets the address that the request came from behind what came,
    /// `x-forwarded-host` and `-proto` are kept where a proxy in front has set them.
    fn name_the_client(&self, out: &mut HeaderMap) {
        let by = self.by;
        let forwarded = match self.client {
            Some(IpAddr::V4(address)) => format!("for={address};by={by}"),
            Some(IpAddr::V6(address)) => format!("for=\"[{address}]\";by={by}"),
            None => format!("for=unknown;by={by}"),
        };
        if let Ok(value) = HeaderValue::try_from(forwarded) {
            out.insert(header::FORWARDED, value);
        }
        if let Some(peer) = self.peer {
            let mut chain = joined(self.headers, &FORWARDED_FOR, b", ")
                .map(|sent| [sent.as_bytes(), b", "].concat())
                .unwrap_or_default();
            chain.extend_from_slice(peer.to_string().as_bytes());
            if let Ok(value) = HeaderValue::try_from(chain) {
                out.insert(FORWARDED_FOR, value);
            }
        }
        if !out.contains_key(&FORWARDED_HOST)
            && let Some(host) = self.named_host()
        {
            out.insert(FORWARDED_HOST, host);
        }
        if !out.contains_key(&FORWARDED_PROTO) {
            out.insert(FORWARDED_PROTO, HeaderValue::from_static(if self.secure { "https" } else { "http" }));
        }
    }

    /// What the client calls this host: `host` of HTTP/1.1, or HTTP/2's `:authority`, where user names have no place.
    fn named_host(&self) -> Option<HeaderValue> {
        if let Some(host) = self.headers.get(header::HOST) {
            return Some(host.clone());
        }
        let authority = self.authority?;
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        HeaderValue::from_str(host).ok()
    }
}

/// Why a request's framing is refused, if it is: HTTP/1.1 fields that another parser could read differently.
#[must_use]
pub fn ambiguous_framing(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    if version == Version::HTTP_2 {
        return None;
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Some("content-length and transfer-encoding exclude each other.");
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Some("transfer-encoding must be `chunked`.");
        }
    }
    if !is_single_length(headers) {
        return Some("content-length is repeated or not a number.");
    }
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Some("host is repeated.");
    }
    None
}

/// Whether a client asks for a WebSocket on this connection (RFC 6455 section 4.2.1).
#[must_use]
pub fn wants_web_socket(version: Version, method: &Method, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        && *method == Method::GET
        && has_token(headers, &header::UPGRADE, "websocket")
        && has_token(headers, &header::CONNECTION, "upgrade")
}

/// Whether a client waits for `100 Continue` before it sends its body (RFC 9110 section 10.1.1).
#[must_use]
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// A backend's answer that can't be passed on: two parsers could read it differently, or it is no answer to this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenAnswer {
    /// Both lengths, several, or one that is no number.
    #[error("its framing is ambiguous: content-length and transfer-encoding, several lengths, or an unknown coding")]
    Framing,
    /// A change of protocols that nobody asked for.
    #[error("it changes to another protocol, which wasn't asked for")]
    Upgrade,
}

/// Takes the fields out of a backend's answer that aren't the client's.
///
/// # Errors
/// [`BrokenAnswer`] where the answer must not be passed on.
pub fn answer_headers(
    status: StatusCode,
    version: Version,
    headers: &mut HeaderMap,
    upgrade: bool,
) -> Result<(), BrokenAnswer> {
    if status.is_informational() && !(status == StatusCode::SWITCHING_PROTOCOLS && upgrade) {
        return Err(BrokenAnswer::Upgrade);
    }
    if status == StatusCode::SWITCHING_PROTOCOLS && !has_token(headers, &header::UPGRADE, "websocket") {
        return Err(BrokenAnswer::Upgrade);
    }
    if version != Version::HTTP_2 {
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        if let Some(coding) = codings.next() {
            let alone = codings.next().is_none() && !headers.contains_key(header::CONTENT_LENGTH);
            if !alone || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(BrokenAnswer::Framing);
            }
        }
        if !is_single_length(headers) {
            return Err(BrokenAnswer::Framing);
        }
    }
    for name in connection_options(headers) {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    if status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    }
    Ok(())
}

/// Removes from trailers what would frame a message or belongs to the connection (RFC 9110 section 6.5.1).
pub fn clean_trailers(trailers: &mut HeaderMap) {
    for name in &HOP_BY_HOP {
        trailers.remove(name);
    }
    for name in [header::CONTENT_LENGTH, header::HOST, header::TRAILER] {
        trailers.remove(name);
    }
}

/// A query in which `correlation` names this request, whatever the client said.
#[must_use]
pub fn with_correlation(query: Option<&str>, correlation: &str) -> String {
    let mut out = String::with_capacity(query.map_or(0, str::len) + correlation.len() + 13);
    let kept = query.unwrap_or("").split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or("").as_bytes();
        !pair.is_empty() && !percent_encoding::percent_decode(name).eq(b"correlation".iter().copied())
    });
    for pair in kept {
        out.push_str(pair);
        out.push('&');
    }
    out.push_str("correlation=");
    // Ids are letters, digits, hyphens and underscores, which stand for themselves (RFC 3986, section 2.3).
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
    out.extend(percent_encoding::utf8_percent_encode(correlation, RESERVED));
    out
}

/// Whether a request may be sent once more after a connection broke that had been used before (RFC 9110 section 9.2.2).
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

/// No length, or one that consists of digits alone.
fn is_single_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => true,
        (Some(length), None) => !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// The names that `connection` lists, in lower case.
fn connection_options(headers: &HeaderMap) -> Vec<String> {
    let listed = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    listed
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|option| {
            !option.is_empty()
                && !["close", "keep-alive", "upgrade", "te"].iter().any(|known| option.eq_ignore_ascii_case(known))
        })
        .map(str::to_ascii_lowercase)
        .collect()
}

fn names(options: &[String], name: &HeaderName) -> bool {
    options.iter().any(|option| option == name.as_str())
}

/// All values of a field in one; `None` where there is none.
fn joined(headers: &HeaderMap, name: &HeaderName, separator: &[u8]) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(first.clone()) };
    let mut all = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        all.extend_from_slice(separator);
        all.extend_from_slice(value.as_bytes());
    }
    HeaderValue::from_bytes(&all).ok()
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
#[path = "forward_tests.rs"]
mod tests;
