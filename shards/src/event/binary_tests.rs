use proptest::prelude::*;

use super::*;

type Headers<'a> = &'a [(&'a str, &'a str)];

fn decode(
    transport: BinaryTransport,
    headers: Headers<'_>,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<String, EventError> {
    let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
    let event = decode_binary(transport, headers, content_type, body, &Extractors::default(), &EventLimits::default())?;
    Ok(String::from_utf8(event.body.into_owned()).expect("UTF-8"))
}

fn http(headers: Headers<'_>, content_type: Option<&str>, body: &[u8]) -> Result<String, EventError> {
    decode(BinaryTransport::Http, headers, content_type, body)
}

fn kafka(headers: Headers<'_>, content_type: Option<&str>, body: &[u8]) -> Result<String, EventError> {
    decode(BinaryTransport::Kafka, headers, content_type, body)
}

const V02: [(&str, &str); 3] = [("ce-specversion", "0.2"), ("ce-type", "t"), ("ce-id", "7")];
const V10: [(&str, &str); 4] = [("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-id", "7"), ("ce-source", "/s")];
const KAFKA_V02: [(&str, &str); 3] = [("ce_specversion", "0.2"), ("ce_type", "t"), ("ce_id", "7")];

#[test]
fn json_data_is_embedded_as_it_was_sent_and_keys_are_sorted() {
    let headers = [("CE-Type", "t"), ("accept", "*/*"), ("ce-specversion", "0.2"), ("Ce-Zed", "z"), ("ce-id", "7")];
    let body = http(&headers, Some("Application/JSON; charset=utf-8"), b" {\"b\":1.50,\"a\":[ ]}\n");
    assert_eq!(body.as_deref(), Ok(r#"{"data":{"b":1.50,"a":[ ]},"id":"7","specversion":"0.2","type":"t","zed":"z"}"#));
}

#[test]
fn other_data_is_text_with_the_exact_content_type() {
    for content_type in ["text/plain; charset=\"x\"", "application/vnd.api+json"] {
        let quoted = serde_json::to_string(content_type).expect("text");
        let body = http(&V02, Some(content_type), "{\"é\":\n}".as_bytes()).expect("an event");
        let data = r#""data":"{\"é\":\n}""#;
        assert_eq!(body, format!(r#"{{"contenttype":{quoted},{data},"id":"7","specversion":"0.2","type":"t"}}"#));
        let body = http(&V10, Some(content_type), b"x").expect("an event");
        let types = format!(r#""contenttype":{quoted},"data":"x","datacontenttype":{quoted}"#);
        assert_eq!(body, format!(r#"{{{types},"id":"7","source":"/s","specversion":"1.0","type":"t"}}"#));
    }
}

#[test]
fn null_and_false_are_data() {
    for data in ["null", "false", "0", "\"\""] {
        let body = http(&V02, Some("application/json"), data.as_bytes()).expect("an event");
        assert_eq!(body, format!(r#"{{"data":{data},"id":"7","specversion":"0.2","type":"t"}}"#));
        let body = kafka(&KAFKA_V02, Some("application/json"), data.as_bytes()).expect("an event");
        assert_eq!(body, format!(r#"{{"data":{data},"id":"7","specversion":"0.2","type":"t"}}"#));
    }
}

#[test]
fn json_data_that_is_empty_or_broken_is_refused() {
    for data in [&b""[..], b"{", b"{}x", b"\xff", b"nul"] {
        let refused = http(&V02, Some("application/json"), data).expect_err("not JSON");
        assert!(matches!(refused, EventError::NotJson { .. } | EventError::NotUtf8 { .. }), "{refused}");
    }
}

#[test]
fn extensions_that_parse_as_json_are_json_before_version_1() {
    let extensions =
        [("ce-n", "1.50"), ("ce-o", r#" {"b":[1],"a":2} "#), ("ce-q", r#""q""#), ("ce-u", "text"), ("ce-v", "")];
    let headers = [&V02[..], &extensions].concat();
    assert_eq!(
        http(&headers, None, b"").as_deref(),
        Ok(r#"{"id":"7","n":1.50,"o":{"b":[1],"a":2},"q":"q","specversion":"0.2","type":"t","u":"text","v":""}"#)
    );
    let headers = [&V10[..], &extensions].concat();
    assert_eq!(
        http(&headers, None, b"").as_deref(),
        Ok(
            r#"{"id":"7","n":"1.50","o":" {\"b\":[1],\"a\":2} ","q":"\"q\"","source":"/s","specversion":"1.0","type":"t","u":"text","v":""}"#
        )
    );
}

#[test]
fn values_of_version_1_are_percent_decoded_over_http_only() {
    let headers = [&V10[..], &[("ce-subject", "Euro%20%E2%82%AC 100%"), ("ce-bad", "%FF")]].concat();
    let body = http(&headers, None, b"").expect("an event");
    assert!(body.contains(r#""subject":"Euro € 100%""#) && body.contains(r#""bad":"%FF""#), "{body}");
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.replace("ce-", "ce_"), *value)).collect();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let body = kafka(&headers, Some("text/plain"), b"").expect("an event");
    assert!(body.contains(r#""subject":"Euro%20%E2%82%AC 100%""#), "{body}");
}

#[test]
fn the_first_version_gets_its_own_names() {
    let expected = r#"{"cloudEventsVersion":"0.1","data":1,"eventID":"7","eventType":"t","ext":true,"source":"5"}"#;
    let names = [("ce-cloudeventsversion", "0.1"), ("ce-eventtype", "t"), ("ce-eventid", "7")];
    let later_names = [("ce-specversion", "0.1"), ("ce-type", "t"), ("ce-id", "7")];
    for attributes in [names, later_names] {
        let headers = [&attributes[..], &[("ce-source", "5"), ("ce-ext", "true")]].concat();
        assert_eq!(http(&headers, Some("application/json"), b"1").as_deref(), Ok(expected));
    }
    let headers = [("ce_cloudEventsVersion", "0.1"), ("ce_eventType", "t"), ("ce_eventID", "7")];
    assert_eq!(
        kafka(&headers, Some("text/plain"), b"1").as_deref(),
        Ok(r#"{"cloudEventsVersion":"0.1","contentType":"text/plain","data":"1","eventID":"7","eventType":"t"}"#)
    );
}

#[test]
fn kafka_needs_a_content_type_and_its_own_prefix() {
    for content_type in [None, Some(""), Some(" ")] {
        assert_eq!(kafka(&KAFKA_V02, content_type, b"1"), Err(EventError::MissingContentType));
    }
    assert_eq!(kafka(&V02, Some("text/plain"), b"1"), Err(EventError::MissingVersion));
}

#[test]
fn bytes_that_are_no_text_become_base64_in_version_1_alone() {
    let data = b"ab\xff\x00";
    let body = http(&V10, Some("image/png"), data).expect("an event");
    assert!(body.contains(r#""data_base64":"YWL/AA==""#) && !body.contains(r#""data""#), "{body}");
    let refused = http(&V02, Some("image/png"), data);
    assert_eq!(refused, Err(EventError::DataNotText { offset: 2, version: "0.2" }));
}

#[test]
fn a_header_that_can_be_no_attribute_is_named() {
    for header in ["ce-", "ce-data", "CE-Data_Base64"] {
        let headers = [&V02[..], &[(header, "x")]].concat();
        assert!(
            matches!(http(&headers, None, b""), Err(EventError::BadHeader { header: named, .. }) if named == header)
        );
    }
    let headers = [("ce-specversion", &b"0.2"[..]), ("ce-x", b"\xff")];
    let limits = EventLimits::default();
    let refused = decode_binary(BinaryTransport::Http, headers.into_iter(), None, b"", &Extractors::default(), &limits);
    assert!(matches!(refused, Err(EventError::BadHeader { header, .. }) if header == "ce-x"));
}

#[test]
fn required_attributes_are_required() {
    let refused = http(&[("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-id", "1")], None, b"");
    assert_eq!(refused, Err(EventError::MissingAttribute { attribute: "source", version: "1.0" }));
    let refused = http(&[("ce-specversion", "0.2"), ("ce-type", ""), ("ce-id", "1")], None, b"");
    assert!(matches!(refused, Err(EventError::BadAttribute { attribute: "type", .. })));
    let refused = http(&[("ce-specversion", "3")], None, b"");
    assert_eq!(refused, Err(EventError::UnsupportedVersion { attribute: "specversion" }));
    assert_eq!(http(&[], None, b""), Err(EventError::MissingVersion));
}

#[test]
fn of_two_headers_with_one_name_the_first_counts_and_tracestate_is_dropped() {
    let headers =
        [&V02[..], &[("ce-x", "a"), ("CE-X", "b"), ("ce-tracestate", "k=v"), ("ce-traceparent", "00-ab")]].concat();
    assert_eq!(
        http(&headers, None, b"").as_deref(),
        Ok(r#"{"id":"7","specversion":"0.2","traceparent":"00-ab","type":"t","x":"a"}"#)
    );
}

#[test]
fn limits_hold_for_body_and_nesting() {
    let limits = EventLimits { max_depth: 2, max_body_bytes: 4 };
    let decode = |body| {
        let headers = V02.iter().map(|(name, value)| (*name, value.as_bytes()));
        let json = Some("application/json");
        decode_binary(BinaryTransport::Http, headers, json, body, &Extractors::default(), &limits)
    };
    assert!(decode(b"[1]").is_ok());
    assert!(matches!(decode(b"[[]]"), Err(EventError::TooDeep { .. })));
    assert!(matches!(decode(b"[1,2]"), Err(EventError::BodyTooLarge { bytes: 5, max_bytes: 4 })));
}

proptest! {
    #[test]
    fn whatever_comes_in_what_goes_out_is_an_event_in_json(
        version in prop::sample::select(vec!["0.1", "0.2", "1.0"]),
        name in "[a-z\"\\\\é]{1,5}",
        value in any::<String>(),
        body in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let name = format!("ce-{name}");
        let headers = [("ce-specversion", version), ("ce-type", "t"), ("ce-id", "7"), ("ce-source", "/s"), (&*name, &*value)];
        if let Ok(text) = http(&headers, Some("text/plain"), &body) {
            let parsed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            if let Ok(body) = std::str::from_utf8(&body) {
                prop_assert_eq!(&parsed["data"], body);
            }
        } else {
            prop_assert!(std::str::from_utf8(&body).is_err() || name == "ce-data");
        }
    }
}
