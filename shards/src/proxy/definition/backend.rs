//! `proxy`: the address of an API's backend.

use std::net::Ipv6Addr;

use super::Surroundings;
use super::section::Section;
use crate::proxy::endpoint::Backend;

const NOT_AN_ADDRESS: &str = "must be a host, or http:// or https:// and a host";

/// Reads `proxy`; its errors stand at `api`.
pub(super) fn backend(section: &mut Section<'_, '_>, surroundings: &Surroundings<'_>) -> Option<Backend> {
    let target_url = section.required_text("target_url");
    let port = port(section);
    let http2 = section.switch("http2");
    let address = if section.switch("use_env") {
        let variable = target_url?;
        let value = (surroundings.environment)(variable).filter(|value| !value.trim().is_empty());
        value.unwrap_or_else(|| "localhost".to_owned())
    } else {
        target_url?.to_owned()
    };
    let Some((tls, host, own_port)) = parse(address.trim()) else {
        let text = match section.get("use_env") {
            Some(serde_json::Value::Bool(true)) => format!("names a variable whose value {NOT_AN_ADDRESS}"),
            _ => NOT_AN_ADDRESS.to_owned(),
        };
        section.error("target_url", text);
        return None;
    };
    Some(Backend { tls, host: host.into(), port: own_port.or(port)?, http2 })
}

fn port(section: &mut Section<'_, '_>) -> Option<u16> {
    let Some(number) = section.get("port").and_then(|port| port.as_i64()) else {
        section.error("port", "must be integer");
        return None;
    };
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    if port.is_none() {
        section.error("port", "must be between 1 and 65535");
    }
    port
}

/// TLS, host, and the port that counts. As in RIG, the port in a URL with scheme is ignored (its path too), while `host:port`
/// without scheme goes to that port.
fn parse(address: &str) -> Option<(bool, &str, Option<u16>)> {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
        None => (None, address),
    };
    let tls = match scheme.as_deref() {
        None | Some("http") => false,
        Some("https") => true,
        Some(_) => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if let Ok(address) = authority.parse::<Ipv6Addr>() {
        return (!address.is_unspecified()).then_some((tls, authority, None));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(digits) => Some(digits.parse::<u16>().ok().filter(|port| *port > 0)?),
        None => None,
    };
    let is_host = !host.is_empty()
        && host.len() <= 255
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
    is_host.then_some((tls, host, if scheme.is_some() { None } else { port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_rig_reads_them() {
        for (address, expected) in [
            ("shop", (false, "shop", None)),
            ("http://shop", (false, "shop", None)),
            ("HTTPS://shop.example", (true, "shop.example", None)),
            ("http://shop:1/base?x", (false, "shop", None)),
            ("shop:1", (false, "shop", Some(1))),
            ("10.0.0.1", (false, "10.0.0.1", None)),
            ("[::1]", (false, "::1", None)),
            ("::1", (false, "::1", None)),
            ("http://[::1]:80/", (false, "::1", None)),
            ("shop_1", (false, "shop_1", None)),
        ] {
            assert_eq!(parse(address), Some(expected), "{address}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for address in
            ["", "http://", "ftp://x", "a b", "user@host", "[x]", "[::1", "shop:0", "shop:99999", "shop:x", "a,b"]
        {
            assert_eq!(parse(address), None, "{address}");
        }
    }
}
