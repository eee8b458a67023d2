use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::endpoint::{KafkaTarget, Wrap};
use super::outbound::{ReplyAddress, RequestMessage};
use super::request_event::*;

fn target() -> KafkaTarget {
    KafkaTarget { topic: "requests".into(), key: None, schema: None, wrap: None }
}

fn wrapping() -> KafkaTarget {
    let wrap = Wrap { event_type: "com.shop.order".into(), source: "/shop".into() };
    KafkaTarget { wrap: Some(wrap), ..target() }
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    HeaderMap::from_iter(pairs.iter().map(field))
}

fn make(target: &KafkaTarget, pairs: &[(&str, &str)], body: &[u8]) -> Result<RequestMessage, NotAnEvent> {
    make_over(false, target, pairs, body)
}

fn make_over(
    secure: bool,
    target: &KafkaTarget,
    pairs: &[(&str, &str)],
    body: &[u8],
) -> Result<RequestMessage, NotAnEvent> {
    let headers = headers(pairs);
    let request = Request {
        method: &Method::POST,
        uri: &Uri::from_static("/shop/seats/a%20b"),
        headers: &headers,
        add_headers: &[(HeaderName::from_static("x-added"), HeaderValue::from_static("by-gateway"))],
        path: "/seats/a%20b",
        query: Some("x=1&y"),
        captures: &["a%20b", "second"],
        peer: Some([10, 0, 0, 1].into()),
        secure,
    };
    message(target, &request, "the-id", None, body)
}

fn value(message: &RequestMessage) -> Value {
    serde_json::from_slice(&message.value).unwrap()
}

const EVENT: &str = r#"{"type":"order","specversion":"0.2","id":"1","source":"/","data":{"n":1.50,"e":1e2,"big":123456789012345678901234567890}}"#;

#[test]
fn the_request_stands_in_the_event_beside_what_the_client_wrote() {
    let pairs = [("host", "shop.example:8080"), ("X-Own", "1"), ("cookie", "a=1"), ("x-added", "by-client")];
    let message = make(&target(), &pairs, EVENT.as_bytes()).unwrap();
    let event = value(&message);
    assert_eq!(&*message.topic, "requests");
    assert_eq!(message.key, None);
    assert!(message.headers.is_empty());
    let rig = &event["rig"];
    let traceparent = event["traceparent"].as_str().unwrap();
    assert_eq!(rig["correlation"], "the-id");
    assert_eq!(rig["remoteip"], "10.0.0.1");
    assert_eq!(rig["host"], "shop.example");
    assert_eq!(rig["port"], 8080);
    assert_eq!(rig["scheme"], "http");
    assert_eq!(rig["method"], "POST");
    assert_eq!(rig["path"], "/seats/a%20b");
    assert_eq!(rig["query"], "x=1&y");
    let expected = json!([
        ["cookie", "a=1"],
        ["host", "shop.example:8080"],
        ["traceparent", traceparent],
        ["x-added", "by-gateway"],
        ["x-own", "1"]
    ]);
    assert_eq!(rig["headers"], expected);
}

#[test]
fn scheme_and_port_are_those_that_the_client_called() {
    let told = |secure, host| {
        let message = make_over(secure, &target(), &[("host", host)], EVENT.as_bytes()).unwrap();
        let rig = value(&message)["rig"].clone();
        (rig["scheme"].as_str().unwrap().to_owned(), rig["port"].as_u64().unwrap())
    };
    assert_eq!(told(false, "shop.example"), ("http".to_owned(), 80));
    assert_eq!(told(true, "shop.example"), ("https".to_owned(), 443));
    assert_eq!(told(true, "shop.example:8443"), ("https".to_owned(), 8443));
}

#[test]
fn members_are_sorted_and_numbers_stay_as_the_client_wrote_them() {
    let text = String::from_utf8(make(&target(), &[], EVENT.as_bytes()).unwrap().value.to_vec()).unwrap();
    assert!(text.contains(r#""data":{"n":1.50,"e":1e2,"big":123456789012345678901234567890}"#), "{text}");
    let event: Value = serde_json::from_str(&text).unwrap();
    let names: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["data", "id", "rig", "source", "specversion", "traceparent", "type"]);
}

#[test]
fn a_clients_rig_member_is_replaced_and_only_its_partition_counts() {
    let body = r#"{"specversion":"0.2","rig":{"target_partition":"seat-1","correlation":"forged","x":1}}"#;
    let message = make(&target(), &[], body.as_bytes()).unwrap();
    assert_eq!(message.key.as_deref(), Some(&b"seat-1"[..]));
    let rig = &value(&message)["rig"];
    assert_eq!(rig["correlation"], "the-id");
    assert!(rig.get("x").is_none() && rig.get("target_partition").is_none());
}

#[test]
fn no_or_an_empty_partition_is_no_key_and_one_that_is_no_text_is_refused() {
    for rig in ["{}", r#"{"target_partition":""}"#, r#"{"target_partition":null}"#, "5", "null", "[]"] {
        let body = format!(r#"{{"specversion":"0.2","rig":{rig}}}"#);
        assert_eq!(make(&target(), &[], body.as_bytes()).unwrap().key, None, "{rig}");
    }
    for partition in ["7", "true", "{}", "[\"a\"]"] {
        let body = format!(r#"{{"specversion":"0.2","rig":{{"target_partition":{partition}}}}}"#);
        assert_eq!(make(&target(), &[], body.as_bytes()).unwrap_err(), NotAnEvent::PartitionNotText, "{partition}");
    }
}

#[test]
fn what_is_no_event_is_refused_with_rigs_first_line_and_the_usage() {
    let not_json: [&[u8]; 6] = [b"", b"{", b"{\"specversion\":\"0.2\"} garbage", b"\xff", b"{\"a\":\"\xff\"}", b"nope"];
    for body in not_json {
        let text = make(&target(), &[], body).unwrap_err().to_string();
        assert!(text.starts_with("Bad request: expected a JSON encoded request body.\n\n# Usage\n"), "{text}");
    }
    for body in ["{}", "[]", "5", "null", r#""specversion""#, r#"[{"specversion":"0.2"}]"#] {
        let text = make(&target(), &[], body.as_bytes()).unwrap_err().to_string();
        assert!(text.starts_with("Bad request: the body does not look like a CloudEvent.\n\n# Usage\n"), "{text}");
    }
    assert!(make(&target(), &[], br#"{"cloudEventsVersion":"0.1"}"#).is_ok());
}

#[test]
fn a_content_type_inside_the_event_is_a_header_of_the_message_too() {
    for name in ["contenttype", "contentType"] {
        let body = format!(r#"{{"specversion":"0.2","{name}":"application/json"}}"#);
        let message = make(&target(), &[], body.as_bytes()).unwrap();
        let expected: (Box<str>, bytes::Bytes) = (format!("ce_{name}").into(), "application/json".into());
        assert_eq!(message.headers, [expected]);
    }
}

#[test]
fn a_valid_trace_goes_on_and_its_state_with_it() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let event = value(&make(&target(), &[("traceparent", parent), ("tracestate", "a=1")], EVENT.as_bytes()).unwrap());
    assert_eq!(event["traceparent"].as_str().unwrap()[..36], parent[..36]);
    assert_eq!(event["tracestate"], "a=1");
    let event = value(&make(&target(), &[("traceparent", "x"), ("tracestate", "a=1")], EVENT.as_bytes()).unwrap());
    assert!(event.get("tracestate").is_none());
}

#[test]
fn a_service_is_told_where_and_until_when_an_answer_is_awaited() {
    let headers = HeaderMap::new();
    let request = Request {
        method: &Method::POST,
        uri: &Uri::from_static("/"),
        headers: &headers,
        add_headers: &[],
        path: "/",
        query: None,
        captures: &[],
        peer: None,
        secure: false,
    };
    let address = ReplyAddress { topic: "replies".into(), partition: 3 };
    let expected = Expected { endpoint: "buy", deadline_unix_ms: 1_700_000_000_000, reply_to: Some(&address) };
    let message = message(&target(), &request, "the-id", Some(expected), EVENT.as_bytes()).unwrap();
    let headers: Vec<_> = message.headers.iter().map(|(name, value)| (&**name, &value[..])).collect();
    let expected: [(&str, &[u8]); 5] = [
        (CORRELATION, b"the-id"),
        (SERVICE, b"buy"),
        (REPLY_TOPIC, b"replies"),
        (REPLY_PARTITION, b"3"),
        (DEADLINE, b"1700000000000"),
    ];
    assert_eq!(headers, expected);
    let event = value(&message);
    assert_eq!((event["rig"]["host"].as_str(), event["rig"]["port"].as_u64()), (Some(""), Some(80)));
    assert_eq!((event["rig"]["query"].as_str(), event["rig"]["remoteip"].as_str()), (Some(""), Some("")));
}

#[test]
fn an_endpoint_that_wraps_makes_an_event_of_any_body() {
    let json = value(&make(&wrapping(), &[("content-type", "application/json")], br#"{"n":1.50}"#).unwrap());
    assert_eq!(json["specversion"], "1.0");
    assert_eq!(json["type"], "com.shop.order");
    assert_eq!(json["source"], "/shop");
    assert_eq!(json["datacontenttype"], "application/json");
    assert_eq!(json["data"].to_string(), r#"{"n":1.50}"#);
    assert_eq!(json["id"].as_str().unwrap().len(), 36);
    assert!(json["time"].as_str().unwrap().ends_with('Z'));
    let bare = value(&make(&wrapping(), &[], b"[1]").unwrap());
    assert_eq!((bare["data"].to_string(), bare["datacontenttype"].as_str()), ("[1]".into(), Some("application/json")));
    let text = value(&make(&wrapping(), &[("content-type", "text/plain")], b"5").unwrap());
    assert_eq!((&text["data"], &text["datacontenttype"]), (&json!("5"), &json!("text/plain")));
    let bytes = value(&make(&wrapping(), &[("content-type", "image/png")], b"\xff\x00").unwrap());
    assert_eq!((&bytes["data_base64"], &bytes["datacontenttype"]), (&json!("/wA="), &json!("image/png")));
    let empty = value(&make(&wrapping(), &[], b"").unwrap());
    assert!(empty.get("data").is_none() && empty.get("datacontenttype").is_none());
}

#[test]
fn an_endpoint_that_wraps_leaves_events_alone_and_takes_declared_json_at_its_word() {
    let event = value(&make(&wrapping(), &[], EVENT.as_bytes()).unwrap());
    assert_eq!(event["type"], "order");
    let broken = make(&wrapping(), &[("content-type", "application/json")], b"{").unwrap_err();
    assert_eq!(broken, NotAnEvent::NotJson);
}

#[test]
fn a_key_comes_from_the_path_or_a_header_before_the_event() {
    let keyed = |key: &str| KafkaTarget { key: Some(key.into()), ..target() };
    let body = r#"{"specversion":"0.2","rig":{"target_partition":"from-event"}}"#;
    let key = |template: &str| {
        let message = make(&keyed(template), &[("x-tenant", "t1")], body.as_bytes()).unwrap();
        String::from_utf8(message.key.unwrap().to_vec()).unwrap()
    };
    assert_eq!(key(r"\1"), "a b");
    assert_eq!(key(r"${x-tenant}/\2"), "t1/second");
    assert_eq!(key(r"$\9$x${nobody}\"), r"$$x\");
    assert_eq!(key(r"${nobody}"), "from-event", "an empty key is none");
}

proptest! {
    #[test]
    fn no_body_panics_and_what_passes_is_json_with_a_rig_member(body: Vec<u8>, text in ".*", wrap: bool) {
        let target = if wrap { wrapping() } else { target() };
        let near = format!(r#"{{"specversion":"0.2","x":{text}}}"#);
        for body in [&body[..], text.as_bytes(), near.as_bytes()] {
            if let Ok(message) = make(&target, &[], body) {
                prop_assert!(value(&message)["rig"].is_object());
            }
        }
    }

    #[test]
    fn no_key_template_panics(template in ".*", header in "[ -~]*") {
        let target = KafkaTarget { key: Some(template.into()), ..target() };
        prop_assert!(make(&target, &[("x", header.as_str())], EVENT.as_bytes()).is_ok());
    }
}

#[test]
fn with_a_schema_attributes_are_headers_and_the_value_is_the_data() {
    let target = KafkaTarget { schema: Some("orders".into()), ..target() };
    let body = r#"{"specversion":"1.0","type":"\u00e4","list":[1, 2],"n":1e2,"no":null,"yes":true,"data":{"a":1.50}}"#;
    let message = make(&target, &[("tracestate", "x=1")], body.as_bytes()).unwrap();
    assert_eq!((&message.value[..], message.schema.as_deref()), (&br#"{"a":1.50}"#[..], Some("orders")));
    let header = |name: &str| message.headers.iter().find(|(key, _)| &**key == name).map(|(_, value)| &value[..]);
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_type", "ä"),
        ("ce_list", "[1, 2]"),
        ("ce_n", "1e2"),
        ("ce_yes", "true"),
        ("content-type", "avro/binary"),
    ] {
        assert_eq!(header(name), Some(value.as_bytes()), "{name}");
    }
    let rig: Value = serde_json::from_slice(header("ce_rig").unwrap()).unwrap();
    assert_eq!(rig["correlation"], "the-id");
    assert!(header("ce_traceparent").is_some() && header("ce_no").is_none() && header("ce_data").is_none());
    assert_eq!(make(&target, &[], br#"{"specversion":"1.0"}"#).unwrap().value, "{}");
    for (body, refused) in [
        (&br#"{"specversion":"1.0","data_base64":"AA=="}"#[..], NotAnEvent::Base64),
        (br#"{"specversion":"1.0","a\u0000b":1}"#, NotAnEvent::BadName),
        (br#"{"specversion":"1.0","":1}"#, NotAnEvent::BadName),
    ] {
        assert_eq!(make(&target, &[], body).unwrap_err(), refused);
    }
}
