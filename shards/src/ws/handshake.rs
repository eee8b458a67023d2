//! The opening handshake (RFC 6455 §4.2), without subprotocols and extensions.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use tungstenite::handshake::derive_accept_key;

use crate::head::{HttpVersion, RequestHead};

/// Why a handshake is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// No `upgrade: websocket` with `connection: upgrade` in HTTP/1.1.
    #[error("the request does not ask for a WebSocket; send `upgrade: websocket` and `connection: upgrade`")]
    NotAnUpgrade,
    /// A method other than GET.
    #[error("a WebSocket is opened by GET")]
    Method,
    /// `sec-websocket-key` is missing, repeated, or not 16 bytes in Base64.
    #[error("sec-websocket-key must be given once and hold 16 bytes in Base64")]
    Key,
    /// `sec-websocket-version` is missing.
    #[error("sec-websocket-version is missing")]
    NoVersion,
    /// A version that is not served.
    #[error("only versions 13 and 8 of the WebSocket protocol are served")]
    Version,
}

impl HandshakeError {
    /// HTTP status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NotAnUpgrade | Self::Version => 426,
            Self::Method | Self::Key | Self::NoVersion => 400,
        }
    }

    /// The whole answer, which ends the connection.
    #[must_use]
    pub const fn to_response(self) -> &'static [u8] {
        match self {
            Self::NotAnUpgrade => {
                b"HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\nconnection: upgrade, close\r\n\
                  content-length: 0\r\n\r\n"
            }
            Self::Version => {
                b"HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\nconnection: upgrade, close\r\n\
                  sec-websocket-version: 13, 8\r\ncontent-length: 0\r\n\r\n"
            }
            Self::Method | Self::Key | Self::NoVersion => {
                b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            }
        }
    }
}

/// Appends the 101 that accepts the WebSocket `head` asks for; frames may follow it at once.
///
/// # Errors
///
/// A [`HandshakeError`] that knows its answer; nothing has been appended then.
pub fn accept(head: &RequestHead<'_>, out: &mut Vec<u8>) -> Result<(), HandshakeError> {
    if head.version != HttpVersion::Http11 || !head.wants_upgrade() {
        return Err(HandshakeError::NotAnUpgrade);
    }
    if head.method != "GET" {
        return Err(HandshakeError::Method);
    }
    match head.header("sec-websocket-version") {
        None => return Err(HandshakeError::NoVersion),
        Some(b"13" | b"8") => {}
        Some(_) => return Err(HandshakeError::Version),
    }
    let mut keys = head.header_values("sec-websocket-key");
    let (Some(key), None) = (keys.next(), keys.next()) else { return Err(HandshakeError::Key) };
    let mut decoded = [0; 18];
    if key.len() != 24 || !matches!(STANDARD.decode_slice(key, &mut decoded), Ok(16)) {
        return Err(HandshakeError::Key);
    }
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ",
    );
    out.extend_from_slice(derive_accept_key(key).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{HeadLimits, HeadStatus, parse};

    const REQUEST: &str = "GET /_rig/v1/connection/ws HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    fn answer(request: &str) -> Result<String, HandshakeError> {
        let Ok(HeadStatus::Complete(head)) = parse(request.as_bytes(), &HeadLimits::default()) else {
            panic!("not a head: {request}");
        };
        let mut out = Vec::new();
        accept(&head, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_example_of_the_rfc_is_answered_as_the_rfc_says() {
        assert_eq!(
            answer(REQUEST).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn version_8_is_accepted_and_others_are_told_which_are() {
        assert!(answer(&REQUEST.replace("Version: 13", "Version: 8")).is_ok());
        let error = answer(&REQUEST.replace("Version: 13", "Version: 7")).unwrap_err();
        assert_eq!((error, error.status()), (HandshakeError::Version, 426));
        assert!(String::from_utf8_lossy(error.to_response()).contains("sec-websocket-version: 13, 8"));
    }

    #[test]
    fn a_request_without_upgrade_gets_426_with_the_protocol_to_upgrade_to() {
        for request in [
            REQUEST.replace("Upgrade: WebSocket\r\n", ""),
            REQUEST.replace("Upgrade: WebSocket", "Upgrade: h2c"),
            REQUEST.replace("keep-alive, Upgrade", "keep-alive"),
            REQUEST.replace("HTTP/1.1", "HTTP/1.0"),
        ] {
            let error = answer(&request).unwrap_err();
            assert_eq!((error, error.status()), (HandshakeError::NotAnUpgrade, 426), "{request}");
            assert!(String::from_utf8_lossy(error.to_response()).contains("upgrade: websocket"));
        }
    }

    #[test]
    fn a_missing_repeated_or_short_key_gets_400() {
        for key in [
            "",
            "x",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: a",
        ] {
            let error = answer(&REQUEST.replace("dGhlIHNhbXBsZSBub25jZQ==", key)).unwrap_err();
            assert_eq!((error, error.status()), (HandshakeError::Key, 400), "{key}");
        }
        let without = REQUEST.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "");
        assert_eq!(answer(&without), Err(HandshakeError::Key));
    }

    #[test]
    fn a_missing_version_or_another_method_gets_400() {
        let error = answer(&REQUEST.replace("Sec-WebSocket-Version: 13\r\n", "")).unwrap_err();
        assert_eq!((error, error.status()), (HandshakeError::NoVersion, 400));
        let error = answer(&REQUEST.replace("GET", "POST")).unwrap_err();
        assert_eq!((error, error.status()), (HandshakeError::Method, 400));
    }
}
