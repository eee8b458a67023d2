//! Whom a request comes from, when it comes through proxies: each of them appends the address that it was called from, and
//! only what a trusted one has appended is true. So the list is read from its end: the first address that isn't trusted is
//! the client's, and whatever stands before it the client may have made up.

use std::net::{IpAddr, SocketAddr};

use super::network::TrustedProxies;

/// The header field that the proxies in front write. Only one counts: a proxy that writes one of them passes the other on as
/// the client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressHeader {
    /// `x-forwarded-for`: addresses with commas between.
    XForwardedFor,
    /// `forwarded` (RFC 7239).
    Forwarded,
}

impl AddressHeader {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

/// The client's address, for a request that came from `peer` with these values of the header field, in their order.
///
/// A value that names no address (`unknown`, an obfuscated name, nonsense) ends the search: the client is then the nearest
/// address that is known.
pub fn client_address<'a>(
    peer: IpAddr,
    trusted: &TrustedProxies,
    header: AddressHeader,
    values: impl IntoIterator<Item = &'a [u8]>,
) -> IpAddr {
    let mut client = peer.to_canonical();
    if !trusted.contains(client) {
        return client;
    }
    let values: Vec<&[u8]> = values.into_iter().collect();
    for value in values.into_iter().rev() {
        let mut rest = Some(value);
        while let Some(list) = rest {
            let (before, element) = last_element(list);
            rest = before;
            let element = element.trim_ascii();
            if element.is_empty() {
                continue;
            }
            let named = match header {
                AddressHeader::XForwardedFor => node_address(element),
                AddressHeader::Forwarded => for_parameter(element).and_then(node_address),
            };
            let Some(named) = named else { return client };
            client = named;
            if !trusted.contains(client) {
                return client;
            }
        }
    }
    client
}

/// Cuts the last element off a list with commas. Quotes are paired from the end, so that an open one at the beginning, which
/// may be the client's, can't hide what a proxy has appended.
fn last_element(list: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let mut quoted = false;
    for (at, byte) in list.iter().enumerate().rev() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => return (Some(&list[..at]), &list[at + 1..]),
            _ => {}
        }
    }
    (None, list)
}

/// The value of `for` in an element of `forwarded`, without its quotes (RFC 7239, section 4).
fn for_parameter(element: &[u8]) -> Option<&[u8]> {
    let value = element.split(|byte| *byte == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        let (name, value) = pair.split_at_checked(4)?;
        name.eq_ignore_ascii_case(b"for=").then_some(value)
    })?;
    Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}

/// An address, with or without port, an IPv6 one in brackets or not (RFC 7239, section 6).
fn node_address(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let bare = || node.parse::<IpAddr>().ok();
    let bracketed = || node.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || node.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare().or_else(bracketed).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> TrustedProxies {
        TrustedProxies::new(["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap()).to_vec())
    }

    fn found(peer: &str, header: AddressHeader, values: &[&str]) -> String {
        let values = values.iter().map(|value| value.as_bytes());
        client_address(peer.parse().unwrap(), &trusted(), header, values).to_string()
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_clients() {
        let header = AddressHeader::XForwardedFor;
        assert_eq!(found("10.0.0.1", header, &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(found("10.0.0.1", header, &["203.0.113.9, 198.51.100.7, 10.2.2.2"]), "198.51.100.7");
        assert_eq!(found("10.0.0.1", header, &["203.0.113.9", "198.51.100.7", " 10.2.2.2 ,"]), "198.51.100.7");
        assert_eq!(found("10.0.0.1", header, &["10.3.3.3, 10.2.2.2"]), "10.3.3.3", "all of them are trusted");
        assert_eq!(found("10.0.0.1", header, &[]), "10.0.0.1");
    }

    #[test]
    fn somebody_who_is_not_trusted_is_not_believed() {
        assert_eq!(found("192.0.2.1", AddressHeader::XForwardedFor, &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(found("192.0.2.1", AddressHeader::Forwarded, &["for=198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn addresses_may_have_ports_and_brackets() {
        let header = AddressHeader::XForwardedFor;
        for (text, address) in [
            ("198.51.100.7:4711", "198.51.100.7"),
            ("[2001:db9::1]", "2001:db9::1"),
            ("[2001:db9::1]:4711", "2001:db9::1"),
            ("2001:db9::1", "2001:db9::1"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
        ] {
            assert_eq!(found("10.0.0.1", header, &[text]), address);
        }
    }

    #[test]
    fn what_names_no_address_ends_the_search_at_the_nearest_one() {
        for value in ["198.51.100.7, unknown", "198.51.100.7, _hidden", "198.51.100.7, 10.2.2.2, x", "198.51.100.7 x"] {
            assert_eq!(found("10.0.0.1", AddressHeader::XForwardedFor, &[value]), "10.0.0.1", "{value}");
        }
        assert_eq!(found("10.0.0.1", AddressHeader::Forwarded, &["for=198.51.100.7, by=10.0.0.2"]), "10.0.0.1");
        assert_eq!(found("10.0.0.1", AddressHeader::XForwardedFor, &["198.51.100.7, nonsense, 10.2.2.2"]), "10.2.2.2");
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_says() {
        let header = AddressHeader::Forwarded;
        for value in [
            "for=198.51.100.7",
            "For=\"198.51.100.7:4711\"",
            "proto=https; for=198.51.100.7 ;by=10.0.0.2",
            "for=203.0.113.9, for=198.51.100.7;host=\"a,b\", for=\"[2001:db8::5]:80\"",
        ] {
            assert_eq!(found("2001:db8::1", header, &[value]), "198.51.100.7", "{value}");
        }
        assert_eq!(found("10.0.0.1", header, &["for=\"[2001:db9::1]\""]), "2001:db9::1");
    }

    #[test]
    fn a_quote_that_the_client_leaves_open_hides_nothing() {
        for value in ["for=\", for=198.51.100.7", "x\"y, for=\"198.51.100.7\"", "for=\"a, for=198.51.100.7;proto=http"]
        {
            assert_eq!(found("10.0.0.1", AddressHeader::Forwarded, &[value]), "198.51.100.7", "{value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_changes_what_its_proxy_has_appended(sent in "[ -~]{0,60}") {
            let list = format!("{sent}, 198.51.100.7");
            prop_assert_eq!(found("10.0.0.1", AddressHeader::XForwardedFor, &[&list]), "198.51.100.7");
            prop_assert_eq!(found("10.0.0.1", AddressHeader::XForwardedFor, &[&sent, "198.51.100.7"]), "198.51.100.7");
            let list = format!("{sent}, for=198.51.100.7;proto=http");
            prop_assert_eq!(found("10.0.0.1", AddressHeader::Forwarded, &[&list]), "198.51.100.7");
        }
    }
}
