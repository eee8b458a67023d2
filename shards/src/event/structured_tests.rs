use proptest::prelude::*;

use super::*;
use crate::event::peek_type;

fn decode(body: &str) -> Result<Event<'_>, EventError> {
    decode_structured(body.as_bytes(), &Extractors::default(), &EventLimits::default())
}

fn body_of(text: &str) -> String {
    String::from_utf8(decode(text).expect("an event").body.into_owned()).expect("UTF-8")
}

#[test]
fn all_three_versions_are_read() {
    let event = decode(r#"{"cloudEventsVersion":"0.1","eventType":"a","eventID":"1"}"#).expect("0.1");
    assert_eq!((&*event.event_type, &*event.id), ("a", "1"));
    let event = decode(r#"{"specversion":"0.2","type":"b","id":"2"}"#).expect("0.2");
    assert_eq!((&*event.event_type, &*event.id), ("b", "2"));
    let event = decode(r#"{"specversion":"1.0","type":"c","id":"3","source":"/s","subject":"x"}"#).expect("1.0");
    assert_eq!((&*event.event_type, &*event.id, event.subject.as_deref()), ("c", "3", Some("x")));
}

#[test]
fn a_missing_required_attribute_is_named() {
    let missing = |text| match decode(text) {
        Err(EventError::MissingAttribute { attribute, version }) => (attribute, version),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(missing(r#"{"specversion":"1.0","id":"1","source":"/"}"#), ("type", "1.0"));
    assert_eq!(missing(r#"{"specversion":"1.0","type":"a","source":"/"}"#), ("id", "1.0"));
    assert_eq!(missing(r#"{"specversion":"1.0","type":"a","id":"1"}"#), ("source", "1.0"));
    assert_eq!(missing(r#"{"cloudEventsVersion":"0.1","eventID":"1","type":"a"}"#), ("eventType", "0.1"));
    assert_eq!(missing(r#"{"cloudEventsVersion":"0.1","eventType":"1","id":"a"}"#), ("eventID", "0.1"));
    assert_eq!(decode(r#"{"type":"a","id":"1"}"#), Err(EventError::MissingVersion));
}

#[test]
fn a_version_that_is_unknown_or_no_text_is_refused() {
    for version in [r#""0.3""#, r#""2.0""#, r#""""#, "1.0", "null", "[]"] {
        let text = format!(r#"{{"specversion":{version},"type":"a","id":"1","source":"/"}}"#);
        assert_eq!(decode(&text), Err(EventError::UnsupportedVersion { attribute: "specversion" }), "{version}");
    }
}

#[test]
fn a_numeric_id_is_taken_as_it_is() {
    for id in ["5", "-1.50", "1e3", "123456789012345678901234567890"] {
        let text = format!(r#"{{"specversion":"0.2","type":"a","id":{id}}}"#);
        assert_eq!(&*decode(&text).expect("an event").id, id);
    }
}

#[test]
fn an_empty_or_non_text_type_is_refused() {
    for (value, found) in [
        (r#""""#, "an empty text"),
        ("5", "a number"),
        ("null", "null"),
        ("{}", "an object"),
        ("[\"a\"]", "a list"),
        ("true", "a boolean"),
    ] {
        let text = format!(r#"{{"specversion":"0.2","type":{value},"id":"1"}}"#);
        let expected = "a non-empty text";
        assert_eq!(decode(&text), Err(EventError::BadAttribute { attribute: "type", expected, found }));
    }
}

#[test]
fn an_id_that_identifies_nothing_is_refused() {
    for value in [r#""""#, "null", "{}", "true"] {
        let text = format!(r#"{{"specversion":"0.2","type":"a","id":{value}}}"#);
        assert!(matches!(decode(&text), Err(EventError::BadAttribute { attribute: "id", .. })), "{value}");
    }
}

#[test]
fn of_members_with_one_name_the_first_counts() {
    let event = decode(r#"{"specversion":"0.2","type":"a","type":"b","id":"1","id":"2"}"#).expect("an event");
    assert_eq!((&*event.event_type, &*event.id), ("a", "1"));
}

#[test]
fn what_is_no_object_is_refused_with_its_kind() {
    for (text, found) in [("[]", "a list"), ("null", "null"), (" 5", "a number"), (r#""x""#, "a text")] {
        assert_eq!(decode(text), Err(EventError::NotAnObject { found }));
    }
}

#[test]
fn anything_broken_behind_the_attributes_is_found() {
    let start = r#"{"specversion":"0.2","type":"a","id":"1","data":{"f":"v"}}"#;
    for tail in ["garbage", "}", "{}", ",", "\u{0}"] {
        let text = format!("{start}{tail}");
        assert!(matches!(decode(&text), Err(EventError::NotJson { offset, .. }) if offset == start.len()), "{text}");
    }
    for length in 0..start.len() {
        assert!(matches!(decode(&start[..length]), Err(EventError::NotJson { .. })), "{length} bytes");
    }
    let bytes = [&start.as_bytes()[..start.len() - 3], b"\xff\"}}"].concat();
    let refused = decode_structured(&bytes, &Extractors::default(), &EventLimits::default());
    assert_eq!(refused, Err(EventError::NotUtf8 { offset: start.len() - 3 }));
}

#[test]
fn limits_refuse_with_the_limit() {
    let text = r#"{"specversion":"0.2","type":"a","id":"1","data":[[]]}"#;
    let with = |max_depth, max_body_bytes| {
        let limits = EventLimits { max_depth, max_body_bytes };
        decode_structured(text.as_bytes(), &Extractors::default(), &limits)
    };
    assert!(with(3, text.len()).is_ok());
    assert_eq!(with(2, 100), Err(EventError::TooDeep { offset: 49, max_depth: 2 }));
    let too_large = with(3, text.len() - 1).expect_err("too large");
    assert_eq!(too_large, EventError::BodyTooLarge { bytes: text.len(), max_bytes: text.len() - 1 });
    assert_eq!(too_large.http_status(), 413);
}

#[test]
fn the_http_text_starts_as_the_one_of_rig() {
    let refused = decode("{}").expect_err("no event");
    assert_eq!(refused.http_status(), 400);
    assert!(refused.http_text().starts_with("The request body does not look like a CloudEvent: "));
}

#[test]
fn an_event_goes_out_as_it_came_in() {
    let text = " {\"specversion\" : \"0.2\",\r\n\t\"type\":\"a\\u0062\",\"id\":1.50,\"data\":null,\"n\":1e3,\"data_base64\":\"AA==\",\"id\":2 } \n";
    let event = decode(text).expect("an event");
    assert!(matches!(event.body, Cow::Borrowed(_)));
    assert_eq!(&*event.body, text.as_bytes());
    assert_eq!(&*event.event_type, "ab");
}

#[test]
fn tracestate_is_cut_out_wherever_it_stands() {
    let rest = r#""specversion":"0.2", "type":"a" ,"id":"1""#;
    assert_eq!(body_of(&format!(r#"{{ "tracestate" : "x=1" , {rest} }}"#)), format!("{{ {rest} }}"));
    assert_eq!(body_of(&format!(r#"{{ {rest} , "tracestate" : "x=1" }}"#)), format!("{{ {rest}  }}"));
    assert_eq!(body_of(&format!(r#"{{{rest},"tracestate":{{"a":[1,2]}},"z":0}}"#)), format!(r#"{{{rest},"z":0}}"#));
    assert_eq!(
        body_of(&format!(r#"{{"tracestate":1,"trace\u0073tate":2,{rest},"tracestate":3}}"#)),
        format!("{{{rest}}}")
    );
}

#[test]
fn a_nested_tracestate_stays() {
    let text = r#"{"specversion":"0.2","type":"a","id":"1","data":{"tracestate":"x"},"Tracestate":1}"#;
    assert_eq!(body_of(text), text);
}

#[test]
fn contenttype_does_not_hide_data_from_extractors() {
    let extractors = Extractors::parse(
        r#"{"a":{"f":{"stable_field_index":0,"event":{"json_pointer":"/data/f"}},"g":{"stable_field_index":1,"event":{"json_pointer":"/source"}}}}"#,
    )
    .expect("extractors");
    let limits = EventLimits::default();
    let text = br#"{"specversion":"0.2","type":"a","id":"1","contenttype":null,"data":{"f":[1,2]},"source":"s"}"#;
    let event = decode_structured(text, &extractors, &limits).expect("an event");
    assert_eq!(event.fields.iter().map(|field| field.position).collect::<Vec<_>>(), [0, 0, 0, 1]);
    for data in ["\"text\"", "5", "true", "null", "[]"] {
        let text = format!(r#"{{"specversion":"0.2","type":"a","id":"1","data":{data}}}"#);
        let event = decode_structured(text.as_bytes(), &extractors, &limits).expect("an event");
        assert_eq!(event.fields, [], "{data}");
    }
}

proptest! {
    #[test]
    fn decoding_and_peeking_agree_whatever_the_members(
        members in prop::collection::vec(
            prop::sample::select(vec![
                r#""type":"t""#, r#""type":"u""#, r#""type":5"#, r#""ty\u0070e":"v""#, r#""specversion":"0.2""#,
                r#""specversion":"1.0""#, r#""specversion":"7""#, r#""id":"1""#, r#""source":"s""#,
                r#""cloudEventsVersion":"0.1""#, r#""eventType":"o""#, r#""eventID":"1""#, r#""data":{"type":"n"}"#,
                r#""tracestate":"x""#,
            ]),
            0..9,
        )
    ) {
        let text = format!("{{{}}}", members.join(","));
        if let Ok(event) = decode(&text) {
            prop_assert_eq!(peek_type(text.as_bytes()), Some(event.event_type), "{}", text);
        }
    }

    #[test]
    fn removing_tracestate_leaves_the_other_members_byte_for_byte(
        others in prop::collection::vec((r#"[a-z]{1,4}"#, r#"(1\.50|"[a-z,{}]{0,5}"|\{ "tracestate" : \[1 ,2\] \})"#, " {0,2}"), 0..6),
        positions in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let mut members: Vec<String> = vec![r#""specversion":"0.2""#.into(), r#" "type":"a" "#.into(), r#""id":1.50"#.into()];
        members.extend(others.iter().map(|(key, value, space)| format!("{space}\"x{key}\"{space}:{space}{value}{space}")));
        let kept: Vec<String> = members.iter().map(|member| member.trim().to_owned()).collect();
        for position in positions {
            members.insert(position.index(members.len() + 1), r#" "tracestate" : "a=b,c" "#.into());
        }
        let text = format!("{{{}}}", members.join(","));
        let body = body_of(&text);
        let walked: Vec<String> = Members::of(body.as_bytes())
            .expect("an object")
            .map(|member| body[member.start..member.end].to_owned())
            .collect();
        prop_assert_eq!(walked, kept);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok());
    }

    #[test]
    fn any_bytes_are_refused_or_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(decode_structured(&bytes, &Extractors::default(), &EventLimits::default()).is_err());
    }
}
