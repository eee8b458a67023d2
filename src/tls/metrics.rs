//! What happens around TLS outside the shards.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tidegate_shards::tls::HandshakeFailure;

/// Counters of certificates, and of the internal TLS port.
#[derive(Debug, Default)]
pub struct TlsMetrics {
    /// Changed certificates taken over.
    pub reloads: AtomicU64,
    /// Changed certificates that couldn't be used.
    pub reload_failures: AtomicU64,
    /// When the first of the certificates in force expires, in seconds since 1970.
    pub expires_unix_s: AtomicI64,
    /// Handshakes completed on the internal port.
    pub internal_handshakes: AtomicU64,
    failures: [AtomicU64; HandshakeFailure::ALL.len()],
}

impl TlsMetrics {
    /// Counts a handshake that failed on the internal port.
    pub fn failed(&self, failure: HandshakeFailure) {
        self.failures[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Handshakes that failed on the internal port for this reason.
    #[must_use]
    pub fn failures(&self, failure: HandshakeFailure) -> u64 {
        self.failures[failure as usize].load(Ordering::Relaxed)
    }
}
