//! Addresses of servers, and the requests that open a connection or publish to them.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::error::LoadError;
use crate::scenario::{Target, Transport};

/// A parsed `http://` or `ws://` address. TLS is not spoken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Endpoint {
    /// Host and port as they stand in the address.
    pub(crate) authority: String,
    /// Path and query; empty if the address has none.
    pub(crate) path: String,
    /// Where to connect.
    pub(crate) address: SocketAddr,
}

impl Endpoint {
    pub(crate) fn parse(url: &str) -> Result<Self, LoadError> {
        let refused = |reason: &str| LoadError::Url { url: url.to_owned(), reason: reason.to_owned() };
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("ws://"))
            .ok_or_else(|| refused("it must start with http:// or ws:// (TLS is not supported)"))?;
        let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_at);
        if authority.is_empty() || rest.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
            return Err(refused("it has no host, or blanks in it"));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host_and_port = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let address = host_and_port
            .to_socket_addrs()
            .map_err(|error| refused(&format!("its host can't be resolved: {error}")))?
            .min_by_key(|address| !address.is_ipv4())
            .ok_or_else(|| refused("its host has no address"))?;
        Ok(Self { authority: authority.to_owned(), path: path.to_owned(), address })
    }
}

/// Builds the request, and the first frame, of each client.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    endpoint: Endpoint,
    transport: Transport,
    event_type: String,
    keyed: bool,
    headers: Vec<String>,
    first_frame: Option<String>,
}

impl Opening {
    /// `keyed`: each client subscribes to events with its own key only.
    pub(crate) fn new(target: &Target, event_type: &str, keyed: bool) -> Result<Self, LoadError> {
        Ok(Self {
            endpoint: Endpoint::parse(&target.url)?,
            transport: target.transport,
            event_type: event_type.to_owned(),
            keyed,
            headers: target.headers.clone(),
            first_frame: target.first_frame.clone(),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    /// The subscriptions of client `index`, as RIG's JSON list.
    fn subscriptions(&self, index: u32) -> String {
        let mut subscription = serde_json::json!({ "eventType": self.event_type });
        if self.keyed {
            subscription["oneOf"] = serde_json::json!([{ "key": key(index) }]);
        }
        serde_json::json!([subscription]).to_string()
    }

    fn fill(&self, text: &str, index: u32, encode: bool) -> String {
        let subscriptions = self.subscriptions(index);
        let subscriptions = if encode { percent_encode(&subscriptions) } else { subscriptions };
        text.replace("{subscriptions}", &subscriptions)
            .replace("{type}", &self.event_type)
            .replace("{key}", &key(index))
            .replace("{index}", &index.to_string())
    }

    /// Path and query of client `index`: those of the address with its placeholders filled in, or RIG's.
    fn path(&self, index: u32) -> String {
        if !matches!(self.endpoint.path.as_str(), "" | "/") {
            return self.fill(&self.endpoint.path, index, true);
        }
        let name = self.transport.name();
        self.fill(&format!("/_rig/v1/connection/{name}?subscriptions={{subscriptions}}"), index, true)
    }

    /// Appends the request that opens client `index`. `cookies`: the value of a `cookie` header, empty for none.
    pub(crate) fn append_request(&self, index: u32, cookies: &str, out: &mut Vec<u8>) {
        let mut request = format!("GET {} HTTP/1.1\r\nhost: {}\r\n", self.path(index), self.endpoint.authority);
        request.push_str(match self.transport {
            Transport::Ws => {
                "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGlkZWdhdGUtbG9hZGdlbg==\r\n"
            }
            Transport::Sse => "accept: text/event-stream\r\n",
            Transport::Longpolling => "accept: application/json\r\n",
        });
        if !cookies.is_empty() {
            request.push_str(&format!("cookie: {cookies}\r\n"));
        }
        for header in &self.headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        out.extend_from_slice(request.as_bytes());
    }

    /// The frame that client `index` sends after the handshake, if the server needs one.
    pub(crate) fn first_frame(&self, index: u32) -> Option<String> {
        self.first_frame.as_deref().map(|frame| self.fill(frame, index, false))
    }
}

/// The key of stream `index`.
pub(crate) fn key(index: u32) -> String {
    format!("k{index}")
}

/// Percent-encodes all but the unreserved characters (RFC 3986 section 2.3).
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &Target, keyed: bool, index: u32) -> String {
        let mut out = Vec::new();
        Opening::new(target, "load.test", keyed).unwrap().append_request(index, "", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_bare_address_means_rigs_path_with_the_subscription_in_the_query() {
        let target = Target::new("ws://127.0.0.1:4000", Transport::Ws);
        let text = request(&target, true, 17);
        assert!(text.starts_with(
            "GET /_rig/v1/connection/ws?subscriptions=%5B%7B%22eventType%22%3A%22load.test%22%2C%22oneOf%22%3A%5B%7B%22key%22%3A%22k17%22%7D%5D%7D%5D HTTP/1.1\r\nhost: 127.0.0.1:4000\r\n"
        ), "{text}");
        assert!(text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn an_address_with_a_path_is_used_as_it_is_with_its_placeholders_filled_in() {
        let mut target = Target::new("http://127.0.0.1:1/x/{index}?k={key}&t={type}", Transport::Sse);
        target.first_frame = Some(r#"{"subscribe":"{key}"}"#.to_owned());
        assert!(request(&target, false, 3).starts_with("GET /x/3?k=k3&t=load.test HTTP/1.1\r\n"));
        let opening = Opening::new(&target, "load.test", false).unwrap();
        assert_eq!(opening.first_frame(3).unwrap(), r#"{"subscribe":"k3"}"#);
    }

    #[test]
    fn addresses_without_port_host_or_known_scheme_are_told_apart() {
        assert_eq!(Endpoint::parse("http://127.0.0.1").unwrap().address.port(), 80);
        assert_eq!(Endpoint::parse("http://127.0.0.1:8?a=b").unwrap().path, "?a=b");
        for broken in ["https://127.0.0.1", "http://", "127.0.0.1:4000", "http://127.0.0.1/a b"] {
            assert!(Endpoint::parse(broken).unwrap_err().to_string().contains(broken), "{broken}");
        }
    }
}
