//! WebSocket (RFC 6455), the server's side: handshake and frames, without sockets.
//!
//! [`handshake::accept`] answers the request head; from then on the bytes of the client go through a [`codec::Decoder`]
//! and frames for the client are written by the functions of [`encode`]. No extension is negotiated.

pub mod codec;
pub mod encode;
pub mod handshake;

/// A status code of a close frame (RFC 6455 §7.4.1).
pub mod close_code {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The server goes down.
    pub const GOING_AWAY: u16 = 1001;
    /// The client broke the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// The server is restarted: connect again (registered by IANA, RFC 6455 section 11.7).
    pub const SERVICE_RESTART: u16 = 1012;
    /// A text that is not UTF-8.
    pub const INVALID_PAYLOAD: u16 = 1007;
    /// The client may not stay.
    pub const POLICY: u16 = 1008;
    /// A message over the limit.
    pub const MESSAGE_TOO_BIG: u16 = 1009;
}
