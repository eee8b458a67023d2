use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::proxy::endpoint::{Backend, ResponseFrom, Target};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn endpoint(added: &[(&'static str, &'static str)]) -> Endpoint {
    Endpoint {
        api_id: "api".into(),
        id: "endpoint".into(),
        method: Method::GET,
        path_regex: "/".into(),
        path_replacement: None,
        secured: None,
        add_headers: added
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect(),
        target: Target::Http(Backend { tls: false, host: "shop".into(), port: 8080, http2: false }),
        response_from: ResponseFrom::Http,
        definition: serde_json::Value::Null,
    }
}

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a field name");
        map.append(name, HeaderValue::from_str(value).expect("a field value"));
    }
    map
}

fn forwarded(method: &Method, fields: &[(&str, &str)], change: impl FnOnce(&mut Forwarding<'_>)) -> HeaderMap {
    let (endpoint, headers, host) = (endpoint(&[]), map(fields), HeaderValue::from_static("shop:8080"));
    let mut forwarding = Forwarding {
        method,
        headers: &headers,
        authority: None,
        endpoint: &endpoint,
        host: &host,
        client: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        peer: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        secure: false,
        by: "10.0.0.1",
        bodiless: true,
        upgrade: false,
        http2: false,
    };
    change(&mut forwarding);
    forwarding.headers()
}

fn get(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| value.to_str().expect("text").to_owned()).collect()
}

#[test]
fn fields_of_the_connection_do_not_pass() {
    let sent = [
        ("connection", "close, X-Secret"),
        ("connection", "x-other"),
        ("x-secret", "1"),
        ("x-other", "2"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic eDp5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("content-length", "5"),
        ("x-kept", "3"),
    ];
    let out = forwarded(&Method::GET, &sent, |_| {});
    for (name, _) in &sent[..sent.len() - 1] {
        assert_eq!(get(&out, name), [""; 0], "{name}");
    }
    assert_eq!(get(&out, "x-kept"), ["3"]);
}

#[test]
fn host_is_the_backends_and_the_clients_is_told() {
    let out = forwarded(&Method::GET, &[("host", "www.example.org")], |_| {});
    assert_eq!(get(&out, "host"), ["shop:8080"]);
    assert_eq!(get(&out, "x-forwarded-host"), ["www.example.org"]);
    assert_eq!(get(&out, "x-forwarded-proto"), ["http"]);
}

#[test]
fn http2_names_the_host_in_its_authority() {
    let told = |authority: &'static str, fields: &[(&str, &str)]| {
        let out = forwarded(&Method::GET, fields, |request| request.authority = Some(authority));
        get(&out, "x-forwarded-host")
    };
    assert_eq!(told("www.example.org:8443", &[]), ["www.example.org:8443"]);
    assert_eq!(told("jane:secret@www.example.org", &[]), ["www.example.org"]);
    assert_eq!(told("www.example.org", &[("host", "shop.example.org")]), ["shop.example.org"]);
    assert_eq!(told("www.example.org", &[("x-forwarded-host", "front")]), ["front"]);
}

#[test]
fn the_clients_forwarded_is_replaced_and_its_x_forwarded_for_is_extended() {
    let sent = [
        ("forwarded", "for=evil"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-for", "203.0.113.8"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "front"),
    ];
    let out = forwarded(&Method::GET, &sent, |_| {});
    assert_eq!(get(&out, "forwarded"), ["for=192.0.2.1;by=10.0.0.1"]);
    assert_eq!(get(&out, "x-forwarded-for"), ["203.0.113.7, 203.0.113.8, 192.0.2.1"]);
    assert_eq!(get(&out, "x-forwarded-proto"), ["https"]);
    assert_eq!(get(&out, "x-forwarded-host"), ["front"]);
    let out = forwarded(&Method::GET, &[], |forwarding| {
        forwarding.client = Some(Ipv6Addr::LOCALHOST.into());
        forwarding.peer = forwarding.client;
    });
    assert_eq!(get(&out, "forwarded"), ["for=\"[::1]\";by=10.0.0.1"]);
    assert_eq!(get(&out, "x-forwarded-for"), ["::1"]);
}

#[test]
fn a_client_behind_a_trusted_proxy_is_named_and_the_proxy_is_appended_to_the_chain() {
    let out = forwarded(&Method::GET, &[("x-forwarded-for", "203.0.113.7")], |forwarding| {
        forwarding.client = Some(Ipv4Addr::new(203, 0, 113, 7).into());
    });
    assert_eq!(get(&out, "forwarded"), ["for=203.0.113.7;by=10.0.0.1"]);
    assert_eq!(get(&out, "x-forwarded-for"), ["203.0.113.7, 192.0.2.1"]);
}

#[test]
fn a_trace_goes_on_and_tracestate_needs_a_valid_one() {
    let out = forwarded(&Method::GET, &[("traceparent", TRACE), ("tracestate", "a=b")], |_| {});
    assert_eq!(get(&out, "traceparent")[0][..36], TRACE[..36]);
    assert_ne!(get(&out, "traceparent"), [TRACE]);
    assert_eq!(get(&out, "tracestate"), ["a=b"]);
    let out = forwarded(&Method::GET, &[("traceparent", "nonsense"), ("tracestate", "a=b")], |_| {});
    assert!(trace::is_valid(&get(&out, "traceparent")[0]));
    assert_eq!(get(&out, "tracestate"), [""; 0]);
}

#[test]
fn a_body_without_a_type_is_a_stream_of_octets() {
    for method in [Method::POST, Method::PUT, Method::PATCH] {
        let out = forwarded(&method, &[], |_| {});
        assert_eq!(get(&out, "content-type"), ["application/octet-stream"], "{method}");
        assert_eq!(get(&out, "content-length"), ["0"], "{method}");
        let out = forwarded(&method, &[("content-type", "text/plain")], |forwarding| forwarding.bodiless = false);
        assert_eq!(get(&out, "content-type"), ["text/plain"], "{method}");
        assert_eq!(get(&out, "content-length"), [""; 0], "{method}: the length is that of the body as read");
    }
    assert_eq!(get(&forwarded(&Method::GET, &[], |_| {}), "content-type"), [""; 0]);
}

#[test]
fn cookies_in_several_fields_are_joined() {
    let out = forwarded(&Method::GET, &[("cookie", "a=1"), ("cookie", "b=2")], |_| {});
    assert_eq!(get(&out, "cookie"), ["a=1; b=2"]);
}

#[test]
fn added_headers_replace_the_clients_but_never_frame_or_route() {
    let endpoint =
        endpoint(&[("x-team", "blue"), ("host", "evil"), ("content-length", "9"), ("transfer-encoding", "gzip")]);
    let out = forwarded(&Method::GET, &[("x-team", "red"), ("x-team", "green")], |forwarding| {
        // The endpoint outlives the call; `forwarded` makes one of its own otherwise.
        forwarding.endpoint = Box::leak(Box::new(endpoint));
    });
    assert_eq!(get(&out, "x-team"), ["blue"]);
    assert_eq!(get(&out, "host"), ["shop:8080"]);
    assert_eq!(get(&out, "content-length"), [""; 0]);
    assert_eq!(get(&out, "transfer-encoding"), [""; 0]);
}

#[test]
fn trailers_are_asked_for_where_the_client_takes_them() {
    let out = forwarded(&Method::GET, &[("te", "gzip, Trailers")], |_| {});
    assert_eq!((get(&out, "te"), get(&out, "connection")), (vec!["trailers".into()], vec!["te".into()]));
    let out = forwarded(&Method::POST, &[("te", "trailers")], |forwarding| forwarding.http2 = true);
    assert_eq!(
        (get(&out, "te"), get(&out, "connection"), get(&out, "host")),
        (vec!["trailers".into()], vec![], vec![])
    );
}

#[test]
fn a_request_for_a_web_socket_keeps_its_upgrade() {
    let sent = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"), ("sec-websocket-key", "k")];
    assert!(wants_web_socket(Version::HTTP_11, &Method::GET, &map(&sent)));
    assert!(!wants_web_socket(Version::HTTP_10, &Method::GET, &map(&sent)));
    assert!(!wants_web_socket(Version::HTTP_11, &Method::POST, &map(&sent)));
    assert!(!wants_web_socket(Version::HTTP_11, &Method::GET, &map(&sent[1..])));
    let out = forwarded(&Method::GET, &sent, |forwarding| forwarding.upgrade = true);
    assert_eq!(get(&out, "connection"), ["Upgrade"]);
    assert_eq!(get(&out, "upgrade"), ["websocket"]);
    assert_eq!(get(&out, "sec-websocket-key"), ["k"]);
}

#[test]
fn a_request_whose_end_could_be_read_in_two_ways_is_refused() {
    let bad: [&[(&str, &str)]; 9] = [
        &[("content-length", "5"), ("transfer-encoding", "chunked")],
        &[("content-length", "5"), ("content-length", "5")],
        &[("content-length", "5, 5")],
        &[("content-length", "+5")],
        &[("content-length", "")],
        &[("transfer-encoding", "gzip, chunked")],
        &[("transfer-encoding", "chunked, identity")],
        &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        &[("host", "a"), ("host", "b")],
    ];
    for fields in bad {
        assert!(ambiguous_framing(Version::HTTP_11, &map(fields)).is_some(), "{fields:?}");
    }
    for fields in [&[("content-length", "5")][..], &[("transfer-encoding", "Chunked")], &[("host", "a")], &[]] {
        assert_eq!(ambiguous_framing(Version::HTTP_11, &map(fields)), None, "{fields:?}");
    }
}

#[test]
fn an_answer_whose_end_could_be_read_in_two_ways_is_broken() {
    let bad: [&[(&str, &str)]; 5] = [
        &[("content-length", "5"), ("transfer-encoding", "chunked")],
        &[("content-length", "5"), ("content-length", "6")],
        &[("content-length", "5, 5")],
        &[("transfer-encoding", "gzip")],
        &[("transfer-encoding", "gzip, chunked")],
    ];
    for fields in bad {
        let answer = answer_headers(StatusCode::OK, Version::HTTP_11, &mut map(fields), false);
        assert_eq!(answer, Err(BrokenAnswer::Framing), "{fields:?}");
    }
}

#[test]
fn an_answer_keeps_what_is_the_clients() {
    let mut headers = map(&[
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("server", "backend"),
        ("date", "then"),
        ("trailer", "x-sum"),
    ]);
    assert_eq!(answer_headers(StatusCode::OK, Version::HTTP_11, &mut headers, false), Ok(()));
    let mut left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
    left.sort_unstable();
    let expected =
        [("date", "then"), ("server", "backend"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("trailer", "x-sum")];
    assert_eq!(left, expected);
}

#[test]
fn a_change_of_protocols_needs_to_be_asked_for() {
    let switching = StatusCode::SWITCHING_PROTOCOLS;
    let answer = |fields, asked| answer_headers(switching, Version::HTTP_11, &mut map(fields), asked);
    assert_eq!(answer(&[("upgrade", "websocket")], true), Ok(()));
    assert_eq!(answer(&[("upgrade", "websocket")], false), Err(BrokenAnswer::Upgrade));
    assert_eq!(answer(&[("upgrade", "h2c")], true), Err(BrokenAnswer::Upgrade));
}

#[test]
fn the_clients_correlation_is_replaced() {
    let cases = [
        (None, "correlation=id"),
        (Some(""), "correlation=id"),
        (Some("a=1&b"), "a=1&b&correlation=id"),
        (Some("correlation=x&a=1&correlation=y"), "a=1&correlation=id"),
        (Some("corr%65lation=x&correlations=1"), "correlations=1&correlation=id"),
    ];
    for (query, expected) in cases {
        assert_eq!(with_correlation(query, "id"), expected, "{query:?}");
    }
    assert_eq!(with_correlation(None, "a&b="), "correlation=a%26b%3D");
}

proptest! {
    #[test]
    fn whatever_a_client_sends_no_framing_and_one_host_go_out(
        fields in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "content-length", "transfer-encoding", "host", "connection", "upgrade", "te", "keep-alive", "x-a",
                    "forwarded", "trailer",
                ]),
                "[ -~]{0,24}",
            ),
            0..12,
        )
    ) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let out = forwarded(&Method::POST, &fields, |forwarding| forwarding.bodiless = false);
        prop_assert!(!out.contains_key("content-length") && !out.contains_key("transfer-encoding"));
        prop_assert!(!out.contains_key("upgrade") && !out.contains_key("keep-alive"));
        prop_assert_eq!(get(&out, "host"), ["shop:8080"]);
        prop_assert_eq!(get(&out, "forwarded").len(), 1);
    }
}

#[test]
fn a_backend_learns_that_the_client_came_over_tls_unless_a_proxy_in_front_knows_better() {
    let over = |secure, fields: &[(&str, &str)]| {
        get(&forwarded(&Method::GET, fields, |forwarding| forwarding.secure = secure), "x-forwarded-proto")
    };
    assert_eq!(over(true, &[]), ["https"]);
    assert_eq!(over(false, &[]), ["http"]);
    assert_eq!(over(true, &[("x-forwarded-proto", "http")]), ["http"]);
}
