//! Which of Tidegate's own calls a path means.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use thiserror::Error;

use crate::query::is_well_encoded;

/// The three ways in which a client receives events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Server-Sent Events.
    Sse,
    /// WebSocket.
    Ws,
    /// Long polling.
    LongPolling,
}

/// A call of the inbound port, as its path tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/_rig/v1/connection/sse`
    Sse,
    /// `/_rig/v1/connection/ws`
    Ws,
    /// `/_rig/v1/connection/longpolling`
    LongPolling,
    /// `/_rig/v1/connection/{sse,ws,longpolling}/{token}/subscriptions`
    Subscriptions {
        /// The connection token, percent-decoded; not looked into yet.
        token: Cow<'a, str>,
    },
    /// `/_rig/v1/events`
    Events,
    /// `/_rig/health`
    Health,
    /// Everything else, which is the API proxy's.
    Other,
}

/// A path with a `%` that two hexadecimal digits don't follow; answered with 400.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the path has a % without two hexadecimal digits after it")]
pub struct BadPath;

/// Segments of the longest path that means something here.
const MAX_SEGMENTS: usize = 6;

/// Finds the call that `path` (percent-encoded, without query) means.
///
/// Empty and dot segments don't count, so `/_rig//health/` and `/_rig/x/../%68ealth` are the same as `/_rig/health`;
/// an encoded slash never separates segments. Case matters.
///
/// # Errors
///
/// [`BadPath`] for broken percent-encoding anywhere in the path.
pub fn route(path: &str) -> Result<Route<'_>, BadPath> {
    match path {
        "/_rig/v1/connection/sse" => return Ok(Route::Sse),
        "/_rig/v1/connection/ws" => return Ok(Route::Ws),
        "/_rig/v1/connection/longpolling" => return Ok(Route::LongPolling),
        "/_rig/v1/events" => return Ok(Route::Events),
        "/_rig/health" => return Ok(Route::Health),
        _ if !is_well_encoded(path.as_bytes()) => return Err(BadPath),
        _ => {}
    }
    let mut segments: [Cow<'_, [u8]>; MAX_SEGMENTS] = [const { Cow::Borrowed(b"") }; MAX_SEGMENTS];
    let mut depth = 0_usize;
    for raw in path.split('/') {
        let segment = Cow::from(percent_decode(raw.as_bytes()));
        match &*segment {
            b"" | b"." => {}
            b".." => depth = depth.saturating_sub(1),
            _ => {
                if let Some(slot) = segments.get_mut(depth) {
                    *slot = segment;
                }
                depth += 1;
            }
        }
    }
    let Some(segments) = segments.get_mut(..depth) else { return Ok(Route::Other) };
    Ok(match segments {
        [a, b] if **a == *b"_rig" && **b == *b"health" => Route::Health,
        [a, b, rest @ ..] if **a == *b"_rig" && **b == *b"v1" => match rest {
            [events] if **events == *b"events" => Route::Events,
            [connection, name] if **connection == *b"connection" => match transport(name) {
                Some(Transport::Sse) => Route::Sse,
                Some(Transport::Ws) => Route::Ws,
                Some(Transport::LongPolling) => Route::LongPolling,
                None => Route::Other,
            },
            [connection, name, token, subscriptions]
                if **connection == *b"connection"
                    && transport(name).is_some()
                    && **subscriptions == *b"subscriptions" =>
            {
                Route::Subscriptions { token: text(std::mem::take(token)) }
            }
            _ => Route::Other,
        },
        _ => Route::Other,
    })
}

fn transport(name: &[u8]) -> Option<Transport> {
    match name {
        b"sse" => Some(Transport::Sse),
        b"ws" => Some(Transport::Ws),
        b"longpolling" => Some(Transport::LongPolling),
        _ => None,
    }
}

fn text(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}
