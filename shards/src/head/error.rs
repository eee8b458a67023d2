//! Why a request head is refused, and the answer that says so.

use thiserror::Error;

/// Why a request head is refused. The client is at fault, a retry of the same bytes never helps.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadError {
    /// Not a request line and header fields as RFC 9112 writes them; obsolete line folding too.
    #[error("the request head is not valid HTTP/1.1 (control byte, folded line, or space around a field name)")]
    Syntax,
    /// A line that ends with LF alone.
    #[error("a line of the request head ends with LF alone; send CR LF")]
    BareLineFeed,
    /// A target that is none of origin, absolute and asterisk form.
    #[error("the request target is neither a path nor an http address")]
    Target,
    /// `content-length` that is repeated, or not a plain number.
    #[error("content-length is repeated or not a number")]
    ContentLength,
    /// `transfer-encoding` other than `chunked` alone, or together with `content-length`, or in HTTP/1.0.
    #[error("transfer-encoding must be `chunked`, without content-length, in HTTP/1.1")]
    TransferEncoding,
    /// `host` missing, repeated or not a host name with an optional port.
    #[error("exactly one valid host field is needed")]
    Host,
    /// The request line passes its limit.
    #[error("the request line is too long")]
    RequestLineTooLong,
    /// The head passes its limit.
    #[error("the request head is too large")]
    HeadTooLarge,
    /// More header fields than [`MAX_HEADERS`](super::MAX_HEADERS).
    #[error("the request head has too many header fields")]
    TooManyHeaders,
    /// TRACE and CONNECT are not served.
    #[error("TRACE and CONNECT are not served")]
    MethodNotImplemented,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    #[error("only HTTP/1.0, HTTP/1.1 and HTTP/2 are served")]
    Version,
}

impl HeadError {
    /// HTTP status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Syntax
            | Self::BareLineFeed
            | Self::Target
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::Host => 400,
            Self::RequestLineTooLong => 414,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::MethodNotImplemented => 501,
            Self::Version => 505,
        }
    }

    /// The whole answer: status line, `connection: close`, no body.
    #[must_use]
    pub const fn to_response(self) -> &'static [u8] {
        match self.status() {
            414 => b"HTTP/1.1 414 URI Too Long\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            431 => b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            501 => b"HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            505 => b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            _ => b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyHeaders,
            httparse::Error::Version => Self::Version,
            _ => Self::Syntax,
        }
    }
}
