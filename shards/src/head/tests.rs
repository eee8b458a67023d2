use proptest::prelude::*;

use super::*;

fn head(bytes: &[u8]) -> RequestHead<'_> {
    match parse(bytes, &HeadLimits::default()) {
        Ok(HeadStatus::Complete(head)) => head,
        other => panic!("not a complete head: {other:?}"),
    }
}

fn refusal(bytes: &[u8]) -> HeadError {
    match parse(bytes, &HeadLimits::default()) {
        Err(error) => error,
        Ok(status) => panic!("not refused: {status:?}"),
    }
}

fn with_fields(fields: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n").into_bytes()
}

const GET: &[u8] = b"GET /_rig/v1/connection/sse?jwt=a&x=%20 HTTP/1.1\r\nHost: example.com:4000\r\n\
    Accept:text/event-stream\r\nCookie: a=1\r\nX-Odd: \xff\t\r\ncookie:  b=2 \r\n\r\nbody";

#[test]
fn a_head_gives_method_path_query_version_and_length() {
    let head = head(GET);
    assert_eq!((head.method, head.path, head.query), ("GET", "/_rig/v1/connection/sse", Some("jwt=a&x=%20")));
    assert_eq!((head.version, head.body), (HttpVersion::Http11, BodyLength::None));
    assert_eq!(&GET[head.head_len..], b"body");
}

#[test]
fn header_fields_are_found_whatever_their_case_and_trimmed() {
    let head = head(GET);
    assert_eq!(head.header_text("host"), Some("example.com:4000"));
    assert_eq!(head.header("ACCEPT"), Some(&b"text/event-stream"[..]));
    assert_eq!(head.header_values("cookie").collect::<Vec<_>>(), [&b"a=1"[..], b"b=2"]);
    assert_eq!(head.header("missing"), None);
    assert_eq!((head.header("x-odd"), head.header_text("x-odd")), (Some(&b"\xff"[..]), None));
    assert_eq!(head.headers().count(), 5);
}

#[test]
fn a_head_split_at_every_byte_is_partial_until_it_is_complete() {
    let complete = head(GET);
    for at in 0..complete.head_len {
        assert_eq!(parse(&GET[..at], &HeadLimits::default()), Ok(HeadStatus::Partial), "split at {at}");
    }
    assert_eq!(head(&GET[..complete.head_len]), complete);
}

#[test]
fn one_empty_line_before_the_head_is_skipped() {
    let bytes = [b"\r\n", GET].concat();
    assert_eq!(head(&bytes).head_len, head(GET).head_len + 2);
    for at in 0..head(&bytes).head_len {
        assert_eq!(parse(&bytes[..at], &HeadLimits::default()), Ok(HeadStatus::Partial), "split at {at}");
    }
    assert_eq!(refusal(&[b"\r\n\r\n", GET].concat()), HeadError::Syntax);
    assert_eq!(refusal(b"\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"), HeadError::Syntax);
}

#[test]
fn the_preface_of_http2_is_recognised_and_each_prefix_of_it_is_partial() {
    let bytes = [&HTTP2_PREFACE[..], b"\0\0\x0c\x04"].concat();
    for at in 0..HTTP2_PREFACE.len() {
        assert_eq!(parse(&bytes[..at], &HeadLimits::default()), Ok(HeadStatus::Partial), "split at {at}");
    }
    for at in HTTP2_PREFACE.len()..=bytes.len() {
        assert_eq!(parse(&bytes[..at], &HeadLimits::default()), Ok(HeadStatus::Http2));
    }
    assert_eq!(refusal(b"PRI * HTTP/2.0\r\n\r\nXX").status(), 505);
}

#[test]
fn content_length_must_be_one_plain_number() {
    assert_eq!(head(&with_fields("content-length: 5")).body, BodyLength::Bytes(5));
    assert_eq!(head(&with_fields("Content-Length:18446744073709551615")).body, BodyLength::Bytes(u64::MAX));
    for value in ["", "+5", "-1", "5, 5", "5 5", "0x5", "5;", "18446744073709551616", "1e3", "５"] {
        let error = refusal(&with_fields(&format!("content-length: {value}")));
        assert_eq!((error, error.status()), (HeadError::ContentLength, 400), "{value}");
    }
}

#[test]
fn a_repeated_content_length_is_refused_even_if_equal() {
    assert_eq!(refusal(&with_fields("content-length: 5\r\ncontent-length: 6")), HeadError::ContentLength);
    assert_eq!(refusal(&with_fields("content-length: 5\r\nContent-Length: 5")), HeadError::ContentLength);
}

#[test]
fn transfer_encoding_must_be_chunked_alone() {
    assert_eq!(head(&with_fields("Transfer-Encoding: Chunked")).body, BodyLength::Chunked);
    for fields in [
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: identity",
        "transfer-encoding: xchunked",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding:",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked;q=1",
        "transfer-encoding: \x0bchunked",
    ] {
        assert_eq!(refusal(&with_fields(fields)).status(), 400, "{fields:?}");
    }
    assert_eq!(refusal(b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"), HeadError::TransferEncoding);
}

#[test]
fn a_line_that_ends_with_lf_alone_is_refused() {
    for bytes in [
        &b"GET / HTTP/1.1\nhost: a\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nhost: a\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\n\n",
        b"GET / HTTP/1.1\nhost: a\n\n",
        b"GET / HTTP/1.1\r\nhost: a\nx: ",
    ] {
        assert_eq!(refusal(bytes), HeadError::BareLineFeed, "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn folded_lines_control_bytes_and_spaces_around_names_are_refused() {
    for fields in [
        "a: b\r\n c",
        "a: b\r\n\tc",
        " a: b",
        "a : b",
        "a\t: b",
        "a: b\0c",
        "a: b\x01",
        "a: b\x7f",
        "a: b\rc",
        "a\0: b",
        ": b",
        "no colon",
        "ä: b",
        "transfer-encoding : chunked",
    ] {
        assert_eq!(refusal(&with_fields(fields)), HeadError::Syntax, "{fields:?}");
    }
}

#[test]
fn a_broken_request_line_is_refused() {
    for line in [
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /",
        "GET\t/ HTTP/1.1",
        " GET / HTTP/1.1",
        "G@T / HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "\x16\x03\x01\x02",
    ] {
        assert_eq!(refusal(format!("{line}\r\nhost: a\r\n\r\n").as_bytes()), HeadError::Syntax, "{line}");
    }
}

#[test]
fn a_tls_hello_on_the_plain_port_is_refused_at_its_first_bytes() {
    assert_eq!(refusal(b"\x16\x03\x01"), HeadError::Syntax);
}

#[test]
fn another_version_gets_505() {
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/3.0"] {
        let error = refusal(format!("GET / {version}\r\nhost: a\r\n\r\n").as_bytes());
        assert_eq!((error, error.status()), (HeadError::Version, 505), "{version}");
    }
}

#[test]
fn exactly_one_valid_host_is_needed() {
    assert_eq!(refusal(b"GET / HTTP/1.1\r\n\r\n"), HeadError::Host);
    assert_eq!(refusal(b"GET / HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n"), HeadError::Host);
    for host in ["a b", "a/b", "user@a", "a,b", "a\"", "ä", "a?x", "a#x", "a\\b"] {
        assert_eq!(refusal(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()), HeadError::Host, "{host}");
    }
    for host in ["", "localhost:4000", "[::1]:4000", "xn--bcher-kva.example", "a_b.c"] {
        assert_eq!(head(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).header_text("host"), Some(host));
    }
    assert_eq!(head(b"GET / HTTP/1.0\r\n\r\n").version, HttpVersion::Http10);
}

#[test]
fn a_head_over_16_kib_gets_431_complete_or_not() {
    let limits = HeadLimits::default();
    let start = "GET / HTTP/1.1\r\nhost: a\r\nx: ";
    let fill = |length: usize| format!("{start}{}\r\n\r\n", "v".repeat(length - start.len() - 4)).into_bytes();
    assert_eq!(head(&fill(limits.max_head_bytes)).head_len, limits.max_head_bytes);
    let over = fill(limits.max_head_bytes + 1);
    assert_eq!(refusal(&over), HeadError::HeadTooLarge);
    assert_eq!(refusal(&over[..limits.max_head_bytes]), HeadError::HeadTooLarge);
    assert_eq!(parse(&over[..limits.max_head_bytes - 1], &limits), Ok(HeadStatus::Partial));
    assert_eq!(HeadError::HeadTooLarge.status(), 431);
}

#[test]
fn more_than_a_hundred_fields_get_431() {
    let fields = |count: usize| with_fields(vec!["a: b"; count - 1].join("\r\n").as_str());
    assert_eq!(head(&fields(MAX_HEADERS)).headers().count(), MAX_HEADERS);
    let error = refusal(&fields(MAX_HEADERS + 1));
    assert_eq!((error, error.status()), (HeadError::TooManyHeaders, 431));
}

#[test]
fn a_request_line_over_8_kb_gets_414_complete_or_not() {
    let limits = HeadLimits::default();
    let line = |length: usize| format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "p".repeat(length - 14)).into_bytes();
    assert_eq!(head(&line(limits.max_request_line_bytes)).path.len(), limits.max_request_line_bytes - 13);
    let over = line(limits.max_request_line_bytes + 1);
    assert_eq!((refusal(&over), refusal(&over).status()), (HeadError::RequestLineTooLong, 414));
    assert_eq!(refusal(&over[..limits.max_request_line_bytes + 2]), HeadError::RequestLineTooLong);
    assert_eq!(parse(&over[..limits.max_request_line_bytes], &limits), Ok(HeadStatus::Partial));
}

#[test]
fn every_form_of_target_gives_its_path() {
    let split = |target: &str| {
        let bytes = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
        match parse(bytes.as_bytes(), &HeadLimits::default()) {
            Ok(HeadStatus::Complete(head)) => Ok((head.path.to_owned(), head.query.map(str::to_owned))),
            Ok(status) => panic!("{status:?}"),
            Err(error) => Err(error),
        }
    };
    let found = |path: &str, query: Option<&str>| Ok((path.to_owned(), query.map(str::to_owned)));
    assert_eq!(split("/a?b?c"), found("/a", Some("b?c")));
    assert_eq!(split("/a?"), found("/a", Some("")));
    assert_eq!(split("/a#f?x"), found("/a", None));
    assert_eq!(split("http://h:1/a?b"), found("/a", Some("b")));
    assert_eq!(split("HTTPS://h?b"), found("/", Some("b")));
    assert_eq!(split("http://h"), found("/", None));
    assert_eq!(split("*"), found("*", None));
    assert_eq!(split("//h/a"), found("//h/a", None));
    for target in ["a/b", "ftp://h/", "http:///a", "h:80", "?x"] {
        assert_eq!(split(target), Err(HeadError::Target), "{target}");
    }
}

#[test]
fn trace_and_connect_get_501() {
    assert_eq!(refusal(b"TRACE / HTTP/1.1\r\nhost: a\r\n\r\n").status(), 501);
    assert_eq!(refusal(b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n").status(), 501);
}

#[test]
fn every_refusal_is_answered_empty_and_closes() {
    for error in [
        HeadError::Syntax,
        HeadError::BareLineFeed,
        HeadError::Target,
        HeadError::ContentLength,
        HeadError::TransferEncoding,
        HeadError::Host,
        HeadError::RequestLineTooLong,
        HeadError::HeadTooLarge,
        HeadError::TooManyHeaders,
        HeadError::MethodNotImplemented,
        HeadError::Version,
    ] {
        let answer = std::str::from_utf8(error.to_response()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {} ", error.status())), "{answer}");
        assert!(answer.contains("content-length: 0\r\n") && answer.contains("connection: close\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[test]
fn an_upgrade_needs_both_fields_as_tokens() {
    let wants = |fields: &str| head(&with_fields(fields)).wants_upgrade();
    assert!(wants("upgrade: websocket\r\nconnection: Upgrade"));
    assert!(wants("Upgrade: h2c, WebSocket\r\nConnection: keep-alive\r\nConnection: foo,upgrade"));
    assert!(!wants("upgrade: websocket"));
    assert!(!wants("connection: upgrade"));
    assert!(!wants("upgrade: websockets\r\nconnection: upgrades"));
}

#[test]
fn paths_lead_to_their_routes() {
    assert_eq!(route("/_rig/v1/connection/sse"), Ok(Route::Sse));
    assert_eq!(route("/_rig/v1/connection/ws"), Ok(Route::Ws));
    assert_eq!(route("/_rig/v1/connection/longpolling"), Ok(Route::LongPolling));
    assert_eq!(route("/_rig/v1/events"), Ok(Route::Events));
    assert_eq!(route("/_rig/health"), Ok(Route::Health));
    for transport in ["sse", "ws", "longpolling"] {
        let path = format!("/_rig/v1/connection/{transport}/abc%3D/subscriptions");
        assert_eq!(route(&path), Ok(Route::Subscriptions { token: "abc=".into() }));
    }
}

#[test]
fn slashes_dots_and_encoding_do_not_change_the_route() {
    for path in [
        "/_rig/health/",
        "//_rig///health//",
        "/_rig/%68ealth",
        "/_rig/./health",
        "/x/../_rig/health",
        "/%5Frig/%2E/health",
        "/../_rig/health",
        "/1/2/3/4/5/6/7/8/../../../../../../../../_rig/health",
    ] {
        assert_eq!(route(path), Ok(Route::Health), "{path}");
    }
    assert_eq!(route("/_rig/v1//connection/sse/t/subscriptions/"), Ok(Route::Subscriptions { token: "t".into() }));
}

#[test]
fn other_paths_are_the_proxys() {
    for path in [
        "/",
        "*",
        "",
        "/_RIG/health",
        "/_rig/Health",
        "/_rig/v1",
        "/_rig%2Fhealth",
        "/_rig/v1/connection",
        "/_rig/v1/connection/sse/t",
        "/_rig/v1/connection/tcp/t/subscriptions",
        "/_rig/v1/connection/sse/t/subscriptions/x",
        "/_rig/v2/events",
        "/_rig/health/x",
        "/%FF",
    ] {
        assert_eq!(route(path), Ok(Route::Other), "{path}");
    }
}

#[test]
fn broken_encoding_in_a_path_is_an_error() {
    for path in ["/%", "/%4", "/%zz", "/_rig/health/%", "/_rig/v1/connection/sse/%G0/subscriptions"] {
        assert_eq!(route(path), Err(BadPath), "{path}");
    }
}

proptest! {
    #[test]
    fn a_prefix_of_anything_is_refused_only_if_all_of_it_is(
        line in "(GET|POST|PRI) [ -~]{0,20} HTTP/[12]\\.[01]\r?\n",
        fields in prop::collection::vec("(host|content-length|transfer-encoding|a) ?: ?[ -~]{0,8}\r?\n", 0..5),
    ) {
        let bytes = format!("{line}{}\r\n", fields.concat()).into_bytes();
        let whole = parse(&bytes, &HeadLimits::default());
        for at in 0..bytes.len() {
            let prefix = parse(&bytes[..at], &HeadLimits::default());
            match &whole {
                Ok(_) => prop_assert!(prefix == Ok(HeadStatus::Partial) || prefix == whole),
                Err(_) => prop_assert!(!matches!(prefix, Ok(HeadStatus::Complete(_) | HeadStatus::Http2))),
            }
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), path in "[/.%_a-f0-9]{0,40}") {
        if let Ok(HeadStatus::Complete(head)) = parse(&bytes, &HeadLimits::default()) {
            prop_assert!(head.head_len <= bytes.len());
        }
        prop_assert!(matches!(route(&path), Ok(_) | Err(BadPath)));
    }
}
