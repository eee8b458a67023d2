//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`, 2020): the header with which a load balancer that
//! passes bytes on says whose they are. A connection either always begins with one or never does: nobody guesses, since a
//! client could send one of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of the longest header that is read: version 1 has 107 at most, version 2 up to 65,551, most of it extensions that
/// are skipped.
pub const MAX_HEADER_BYTES: usize = 4 * 1024;

/// Bytes of the longest header of version 1, its line end included.
const MAX_LINE_BYTES: usize = 107;
/// How version 1 begins.
const TEXT: &[u8; 6] = b"PROXY ";
/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before the addresses: signature, version and command, family, length.
const FIXED_BYTES: usize = 16;

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    Partial,
    /// A whole one.
    Header {
        /// Its bytes; what follows is the client's.
        len: usize,
        /// Who speaks behind it.
        source: Source,
    },
}

/// Who speaks behind a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client at this address.
    Client(IpAddr),
    /// The proxy itself, to see whether we live.
    Proxy,
    /// Somebody whose address the proxy doesn't know.
    Unknown,
}

/// The bytes are no header; the connection must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyProtocolError {
    /// They begin with neither version's signature.
    #[error("the connection does not begin with a header of the PROXY protocol")]
    Missing,
    /// A line of version 1 that is not as it must be.
    #[error("the PROXY header of version 1 is malformed")]
    Line,
    /// A version, command or length that isn't known, or too small for its addresses.
    #[error("the PROXY header of version 2 is malformed")]
    Binary,
    /// Longer than [`MAX_HEADER_BYTES`].
    #[error("the PROXY header is longer than {MAX_HEADER_BYTES} bytes")]
    TooLong,
}

/// Reads a header from the first bytes of a connection. Call it again with all bytes when more have come.
///
/// # Errors
/// As soon as the bytes can't become a header.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    if begins(bytes, TEXT) {
        return parse_line(bytes);
    }
    if begins(bytes, SIGNATURE) {
        return parse_binary(bytes);
    }
    Err(ProxyProtocolError::Missing)
}

/// Whether the bytes begin with these, as far as they go.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let len = bytes.len().min(with.len());
    bytes[..len] == with[..len]
}

fn parse_line(bytes: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    let window = &bytes[..bytes.len().min(MAX_LINE_BYTES)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if bytes.len() >= MAX_LINE_BYTES { Err(ProxyProtocolError::Line) } else { Ok(Parsed::Partial) };
    };
    let line = window[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let source = line.and_then(|line| line_source(&line[TEXT.len().min(line.len())..]));
    source.map(|source| Parsed::Header { len: end + 1, source }).ok_or(ProxyProtocolError::Line)
}

/// The address in what follows `PROXY `; `None` where that is malformed.
fn line_source(text: &str) -> Option<Source> {
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Some(Source::Unknown);
    }
    let mut words = text.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, _destination) = (address()?, address()?);
    for _ in 0..2 {
        let port = words.next()?;
        if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err() {
            return None;
        }
    }
    words.next().is_none().then(|| Source::Client(source.to_canonical()))
}

fn parse_binary(bytes: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Ok(Parsed::Partial) };
    let &[.., version_and_command, family_and_protocol, high, low] = fixed;
    let address_bytes = usize::from(u16::from_be_bytes([high, low]));
    let len = FIXED_BYTES + address_bytes;
    let needed = match (version_and_command, family_and_protocol) {
        // What a proxy says for itself carries no address that counts.
        (0x20, _) => 0,
        (0x21, 0x11) => 12,
        (0x21, 0x21) => 36,
        // Unix sockets, datagrams, families that are not known: skipped.
        (0x21, _) => 0,
        _ => return Err(ProxyProtocolError::Binary),
    };
    if address_bytes < needed {
        return Err(ProxyProtocolError::Binary);
    }
    if len > MAX_HEADER_BYTES {
        return Err(ProxyProtocolError::TooLong);
    }
    let Some(addresses) = rest.get(..address_bytes) else { return Ok(Parsed::Partial) };
    let address = match needed {
        12 => addresses.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        36 => addresses.first_chunk::<16>().map(|octets| IpAddr::from(*octets).to_canonical()),
        _ => None,
    };
    let nobody = if version_and_command == 0x20 { Source::Proxy } else { Source::Unknown };
    let source = address.map_or(nobody, Source::Client);
    Ok(Parsed::Header { len, source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(address: &str) -> Source {
        Source::Client(address.parse().unwrap())
    }

    fn binary(version_and_command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let len = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version_and_command, family], &len, addresses].concat()
    }

    const V4: [u8; 12] = [198, 51, 100, 7, 192, 0, 2, 1, 0x12, 0x34, 0, 80];

    /// Every way to cut it is the beginning of a header, and what follows it doesn't matter.
    fn assert_header(bytes: &[u8], source: Source) {
        for at in 0..bytes.len() {
            assert_eq!(parse(&bytes[..at]), Ok(Parsed::Partial), "cut at {at} of {bytes:?}");
        }
        for rest in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 ", SIGNATURE, &[0xff; 5_000]] {
            let whole = Ok(Parsed::Header { len: bytes.len(), source });
            assert_eq!(parse(&[bytes, rest].concat()), whole, "{bytes:?} before {rest:?}");
        }
    }

    #[test]
    fn version_1_names_the_client_wherever_it_is_cut() {
        assert_header(b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\r\n", client("198.51.100.7"));
        assert_header(b"PROXY TCP6 2001:db8::7 2001:db8::1 65535 0\r\n", client("2001:db8::7"));
        let longest = "ffff:".repeat(7) + "ffff";
        assert_header(format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n").as_bytes(), client(&longest));
        assert_header(b"PROXY TCP6 ::ffff:198.51.100.7 ::1 1 2\r\n", client("198.51.100.7"));
        assert_header(b"PROXY UNKNOWN\r\n", Source::Unknown);
        assert_header(b"PROXY UNKNOWN whatever it says here\r\n", Source::Unknown);
    }

    #[test]
    fn version_2_names_the_client_wherever_it_is_cut() {
        assert_header(&binary(0x21, 0x11, &V4), client("198.51.100.7"));
        assert_header(&binary(0x21, 0x11, &[&V4[..], &[3, 0, 4, 1, 2, 3, 4]].concat()), client("198.51.100.7"));
        let v6 = [&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[7], &[1; 20]].concat();
        assert_header(&binary(0x21, 0x21, &v6), client("2001:db8::7"));
    }

    #[test]
    fn a_proxy_that_speaks_for_itself_or_of_other_sockets_names_nobody() {
        assert_header(&binary(0x20, 0x00, &[]), Source::Proxy);
        assert_header(&binary(0x20, 0x11, &V4), Source::Proxy);
        assert_header(&binary(0x21, 0x00, &[1, 2, 3]), Source::Unknown);
        assert_header(&binary(0x21, 0x31, &[0; 216]), Source::Unknown);
        assert_header(&binary(0x21, 0x12, &V4), Source::Unknown);
    }

    #[test]
    fn a_connection_without_header_is_told_apart_at_once() {
        for bytes in [&b"G"[..], b"POST / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"\x16\x03\x01", b"\r\nGET", b"proxy "]
        {
            assert_eq!(parse(bytes), Err(ProxyProtocolError::Missing), "{bytes:?}");
        }
    }

    #[test]
    fn a_malformed_line_is_refused() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 198.51.100.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4 2001:db8::7 192.0.2.1 1 2\r\n",
            "PROXY TCP6 198.51.100.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4 198.51.100.7 192.0.2.1 1\r\n",
            "PROXY TCP4 198.51.100.7 192.0.2.1 1 65536\r\n",
            "PROXY TCP4 198.51.100.7 192.0.2.1 +1 2\r\n",
            "PROXY TCP4 198.51.100.7 192.0.2.1 1 2 3\r\n",
            "PROXY TCP4  198.51.100.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4 198.51.100.7 192.0.2.1 1 2\n",
            "PROXY UNKNOWNS\r\n",
        ] {
            assert_eq!(parse(line.as_bytes()), Err(ProxyProtocolError::Line), "{line:?}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(100));
        assert_eq!(parse(endless.as_bytes()), Err(ProxyProtocolError::Line));
    }

    #[test]
    fn a_malformed_header_of_version_2_is_refused() {
        for bytes in
            [binary(0x11, 0x11, &V4), binary(0x22, 0x11, &V4), binary(0x21, 0x11, &V4[..11]), binary(0x21, 0x21, &V4)]
        {
            assert_eq!(parse(&bytes), Err(ProxyProtocolError::Binary), "{bytes:?}");
        }
        assert_eq!(parse(&binary(0x21, 0x11, &[0; 5_000])[..FIXED_BYTES]), Err(ProxyProtocolError::TooLong));
    }

    proptest! {
        #[test]
        fn every_client_is_read_as_it_was_written(source in any::<[u8; 16]>(), port in any::<u16>(), four in any::<bool>()) {
            let address = if four {
                IpAddr::from([source[0], source[1], source[2], source[3]])
            } else {
                IpAddr::from(source)
            };
            let family = if four { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {family} {address} {address} {port} {port}\r\n");
            let octets = match address {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            let ports = [port.to_be_bytes(), port.to_be_bytes()].concat();
            let version2 = binary(0x21, if four { 0x11 } else { 0x21 }, &[&octets[..], &octets, &ports].concat());
            assert_header(line.as_bytes(), Source::Client(address.to_canonical()));
            assert_header(&version2, Source::Client(address.to_canonical()));
        }

        #[test]
        fn what_is_settled_stays_settled_when_more_bytes_come(bytes in prop::collection::vec(any::<u8>(), 0..80), start in 0..3) {
            let begin: &[u8] = [&b""[..], TEXT, SIGNATURE][start as usize];
            let bytes = [begin, &bytes].concat();
            let whole = parse(&bytes);
            for at in 0..bytes.len() {
                let cut = parse(&bytes[..at]);
                prop_assert!(cut == Ok(Parsed::Partial) || cut == whole, "cut at {at}: {cut:?}, whole: {whole:?}");
            }
            if let Ok(Parsed::Header { len, .. }) = whole {
                prop_assert!(len <= bytes.len());
            }
        }
    }
}
