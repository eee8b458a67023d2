//! Why handshakes fail, as metrics name it.

use rustls::Error;

/// Why a connection to a TLS port never got to speak HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HandshakeFailure {
    /// It spoke something else than TLS.
    NotTls,
    /// It took too long.
    Timeout,
    /// The client left in the middle.
    Closed,
    /// Too many handshakes were in progress.
    TooMany,
    /// No version, cipher suite or application protocol (RFC 7301) in common.
    Incompatible,
    /// The client refused, most often because it doesn't trust the certificate.
    RefusedByClient,
    /// The client's certificate is missing or not acceptable.
    ClientCertificate,
    /// What the client sent breaks the protocol.
    Malformed,
}

impl HandshakeFailure {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::NotTls,
        Self::Timeout,
        Self::Closed,
        Self::TooMany,
        Self::Incompatible,
        Self::RefusedByClient,
        Self::ClientCertificate,
        Self::Malformed,
    ];

    /// The label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::TooMany => "too_many",
            Self::Incompatible => "incompatible",
            Self::RefusedByClient => "refused_by_client",
            Self::ClientCertificate => "client_certificate",
            Self::Malformed => "malformed",
        }
    }
}

impl From<&Error> for HandshakeFailure {
    fn from(error: &Error) -> Self {
        match error {
            Error::AlertReceived(_) => Self::RefusedByClient,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::Incompatible,
            Error::NoCertificatesPresented | Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => {
                Self::ClientCertificate
            }
            _ => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_order_of_the_list_and_no_name_occurs_twice() {
        for (number, failure) in HandshakeFailure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, number);
            assert_eq!(HandshakeFailure::ALL.iter().filter(|other| other.name() == failure.name()).count(), 1);
        }
    }
}
