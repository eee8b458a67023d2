//! The TLS of one connection.

use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use rustls::{Error, InvalidMessage, ProtocolVersion, ServerConfig};

/// Bytes of a record that isn't complete yet, or of a handshake message in several records (at most 64 KiB, RFC 8446
/// section 4), with room for their heads.
const MAX_PARTIAL_BYTES: usize = 80 * 1024;
/// Plaintext of one record (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16 * 1024;
/// What a record may add to its plaintext: head, nonce of TLS 1.2, type byte of 1.3, tag.
const RECORD_OVERHEAD_BYTES: usize = 5 + 8 + 1 + 16;

/// A server's side of one TLS connection. Its buffers are empty, and hold no memory, while nothing is under way.
pub struct Session {
    tls: UnbufferedServerConnection,
    /// Came from the wire and is no whole record yet.
    partial: Vec<u8>,
    /// Decrypted and not yet read.
    plain: Vec<u8>,
    /// Ciphertext that the socket didn't take yet; the first `sent` bytes are out.
    waiting: Vec<u8>,
    sent: usize,
    /// The peer has said that it won't send any more.
    ended: bool,
    /// An error has ended it; rustls is left alone from then on.
    broken: bool,
    /// How much of [`Self::waiting`] is in the gauge of waiting bytes: kept by the shard.
    pub(crate) counted: usize,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Session").field("waiting", &self.waiting().len()).finish_non_exhaustive()
    }
}

impl Session {
    /// A session whose handshake is still to come.
    ///
    /// # Errors
    /// The configuration can't serve anybody.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            tls: UnbufferedServerConnection::new(config)?,
            partial: Vec::new(),
            plain: Vec::new(),
            waiting: Vec::new(),
            sent: 0,
            ended: false,
            broken: false,
            counted: 0,
        })
    }

    /// The handshake isn't complete.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The version agreed on is TLS 1.3; else 1.2.
    #[must_use]
    pub fn is_tls13(&self) -> bool {
        self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// The handshake went on where an earlier connection had left.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// Takes bytes from the wire; they are overwritten. [`Self::read`] then has the plaintext, and [`Self::waiting`] what the
    /// protocol wants to say.
    ///
    /// # Errors
    /// The connection is broken; what waits tells the peer why.
    pub fn receive(&mut self, ciphertext: &mut [u8]) -> Result<(), Error> {
        if self.partial.is_empty() {
            let used = self.drive(ciphertext)?;
            self.partial.extend_from_slice(&ciphertext[used..]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(ciphertext);
            let used = self.drive(&mut partial)?;
            partial.drain(..used);
            if !partial.is_empty() {
                self.partial = partial;
            }
        }
        if self.partial.len() > MAX_PARTIAL_BYTES {
            return Err(Error::InvalidMessage(InvalidMessage::MessageTooLarge));
        }
        Ok(())
    }

    /// Lets rustls read `incoming`; how much of it is used up.
    fn drive(&mut self, incoming: &mut [u8]) -> Result<usize, Error> {
        if self.broken {
            return Err(Error::HandshakeNotComplete);
        }
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut incoming[used..]);
            let mut idle = false;
            let mut failed = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(message)) => encode(message, &mut self.waiting)?,
                Ok(ConnectionState::TransmitTlsData(sending)) => sending.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::Closed) => (self.ended, idle) = (true, true),
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => idle = true,
                // Early data is not offered.
                Ok(_) => failed = Some(Error::HandshakeNotComplete),
                Err(error) => failed = Some(error),
            }
            used += discard;
            if let Some(error) = failed {
                self.take_alert();
                self.broken = true;
                return Err(error);
            }
            if idle {
                return Ok(used);
            }
        }
    }

    /// Takes what is to be said about an error. rustls may not look at the same bytes again: that would fail an assertion.
    fn take_alert(&mut self) {
        while self.tls.wants_write() {
            let state = self.tls.process_tls_records(&mut []).state;
            let Ok(ConnectionState::EncodeTlsData(alert)) = state else { return };
            if encode(alert, &mut self.waiting).is_err() {
                return;
            }
        }
    }

    /// Moves plaintext to `to`; how much. 0 means that more must be received, unless [`Self::is_ended`].
    pub fn read(&mut self, to: &mut [u8]) -> usize {
        let len = self.plain.len().min(to.len());
        to[..len].copy_from_slice(&self.plain[..len]);
        if len == self.plain.len() {
            self.plain = Vec::new();
        } else {
            self.plain.drain(..len);
        }
        len
    }

    /// Nothing more will come from the peer.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended && self.plain.is_empty()
    }

    /// Encrypts `plaintext` into `out`, which is cleared, behind what waits. The caller sends it, and gives back with
    /// [`Self::keep`] what the socket didn't take.
    ///
    /// # Errors
    /// The handshake isn't complete, or the keys are used up.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        self.write(out, |traffic, room| traffic.encrypt(plaintext, room), sealed_bytes(plaintext.len()))
    }

    /// Appends the message that nothing more will come (RFC 8446 section 6.1) to what waits.
    ///
    /// # Errors
    /// As for [`Self::seal`].
    pub fn end(&mut self) -> Result<(), Error> {
        let mut out = Vec::new();
        self.write(&mut out, |traffic, room| traffic.queue_close_notify(room), sealed_bytes(2))?;
        self.keep(&out);
        Ok(())
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        mut write: impl FnMut(&mut WriteTraffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
        expected_bytes: usize,
    ) -> Result<(), Error> {
        out.clear();
        // What rustls still has to say goes first; bytes that came and are no whole record stay where they are.
        let mut partial = std::mem::take(&mut self.partial);
        let driven = self.drive(&mut partial);
        self.partial = partial;
        self.partial.drain(..driven?);
        out.extend_from_slice(self.waiting());
        self.sent(self.waiting().len());
        let from = out.len();
        out.resize(from + expected_bytes, 0);
        let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut self.partial);
        let ConnectionState::WriteTraffic(mut traffic) = state? else { return Err(Error::HandshakeNotComplete) };
        let written = loop {
            match write(&mut traffic, &mut out[from..]) {
                Ok(written) => break written,
                Err(EncryptError::InsufficientSize(wants)) => out.resize(from + wants.required_size, 0),
                Err(EncryptError::EncryptExhausted) => return Err(Error::EncryptError),
            }
        };
        out.truncate(from + written);
        Ok(())
    }

    /// Ciphertext that the socket is still to take.
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        &self.waiting[self.sent..]
    }

    /// Puts ciphertext behind what waits.
    pub fn keep(&mut self, rest: &[u8]) {
        self.waiting.extend_from_slice(rest);
    }

    /// Forgets what waits, and that it was counted: the connection is about to be cut.
    pub(crate) fn forget_waiting(&mut self) {
        self.waiting = Vec::new();
        self.sent = 0;
        self.counted = 0;
    }

    /// The socket took so many bytes of what waits.
    pub fn sent(&mut self, sent: usize) {
        self.sent += sent;
        if self.sent == self.waiting.len() {
            self.waiting = Vec::new();
            self.sent = 0;
        }
    }
}

type WriteTraffic<'a> = rustls::unbuffered::WriteTraffic<'a, rustls::server::ServerConnectionData>;

/// Bytes that hold so much plaintext when it is sealed.
fn sealed_bytes(plaintext_bytes: usize) -> usize {
    plaintext_bytes + plaintext_bytes.div_ceil(RECORD_BYTES) * RECORD_OVERHEAD_BYTES
}

fn encode(mut message: Encode<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let from = out.len();
    let mut room = 256;
    loop {
        out.resize(from + room, 0);
        match message.encode(&mut out[from..]) {
            Ok(written) => {
                out.truncate(from + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(wants)) => room = wants.required_size,
            Err(EncodeError::AlreadyEncoded) => {
                out.truncate(from);
                return Err(Error::EncryptError);
            }
        }
    }
}

type Encode<'a> = EncodeTlsData<'a, rustls::server::ServerConnectionData>;
