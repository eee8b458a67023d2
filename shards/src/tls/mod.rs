//! TLS with clients, without sockets: a [`Session`] takes bytes from the wire and gives plaintext, and the other way round.
//!
//! The kernel could encrypt too (kTLS), but not every kernel is built with it, so user space would have to be able to in any
//! case; this way there is one path. The session keeps no buffers while it is idle: records are read out of the shard's
//! read buffer, and are written into the shard's one scratch buffer.

#[cfg(test)]
pub(crate) mod client_tests;
mod failure;
mod session;
#[cfg(test)]
mod session_tests;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

pub use failure::HandshakeFailure;
use rustls::ServerConfig;
pub use session::Session;

/// A session that is used by its connection's task and by the shard's batches.
pub type SharedSession = Rc<RefCell<Session>>;

/// What a shard is told about TLS.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Addresses of the inbound TLS port; every shard binds each with `SO_REUSEPORT`.
    pub listen: Vec<SocketAddr>,
    /// Certificates and protocols at the start; [`crate::node::Node::set_tls`] replaces them.
    pub config: Arc<ServerConfig>,
    /// Time for a handshake, in milliseconds (`HTTPS_HANDSHAKE_TIMEOUT_MS`).
    pub handshake_timeout_ms: u64,
    /// Handshakes that may be in progress on this shard (`HTTPS_MAX_HANDSHAKES`, shared out); beyond, connections are closed.
    pub max_handshakes: usize,
}

/// The first byte of a TLS connection: a handshake record (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// The answer to a client that speaks plain HTTP to the TLS port.
const SPEAKS_PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 55\r\nconnection: close\r\n\r\nThis port speaks TLS: use https:// or wss:// to call it";

/// What to answer to a connection whose first byte shows that it doesn't speak TLS; nothing to one that doesn't speak HTTP
/// either. `None` where it does speak TLS.
#[must_use]
pub fn answer_to_plain(first: u8) -> Option<&'static [u8]> {
    match first {
        HANDSHAKE_RECORD => None,
        // Methods are upper-case letters.
        b'A'..=b'Z' => Some(SPEAKS_PLAIN_HTTP),
        _ => Some(b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_http_is_answered_in_it() {
        assert_eq!(answer_to_plain(HANDSHAKE_RECORD), None);
        assert_eq!(answer_to_plain(0), Some(b"".as_slice()));
        let answer = std::str::from_utf8(answer_to_plain(b'G').unwrap()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    }
}
