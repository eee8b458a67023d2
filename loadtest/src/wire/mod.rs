//! The protocols as clients see them, and requests as the bundled backend does: pure parsers over contiguous bytes.
//!
//! Each takes what has arrived and says how much of it is finished; the rest comes back in front of the next bytes.
//! Nothing here copies a payload.

pub(crate) mod chunked;
pub(crate) mod http;
pub(crate) mod request;
pub(crate) mod sse;
pub(crate) mod ws;

/// Bytes from a server that no client of the protocol could read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the response head is not HTTP/1.1 (RFC 9112 section 4)")]
    Head,
    #[error("the chunked body is broken (RFC 9112 section 7.1)")]
    Chunk,
    #[error("a WebSocket frame from the server is masked (RFC 6455 section 5.1)")]
    Masked,
    #[error("a WebSocket frame uses reserved bits or an unknown opcode (RFC 6455 section 5.2)")]
    Reserved,
    #[error("a WebSocket control frame is fragmented or longer than 125 bytes (RFC 6455 section 5.5)")]
    Control,
    #[error("WebSocket fragments are out of order (RFC 6455 section 5.4)")]
    Fragment,
    #[error("a message is larger than the 16 MiB that this load generator holds")]
    TooLarge,
}

/// Largest single message, and so the largest read buffer.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 << 20;
