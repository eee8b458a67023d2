//! What is written is read back, whichever envelope; what others write is read; rubbish is refused.

use proptest::prelude::*;

use super::*;

type Written = (Vec<(String, Vec<u8>)>, Vec<u8>);

fn request() -> RequestMessage {
    RequestMessage {
        correlation: b"c-1".to_vec(),
        service: "seats/reserve".to_owned(),
        topic: "orders".to_owned(),
        reply_to: Some(ReplyTo { topic: "replies".to_owned(), partition: Some(3) }),
        instance: Some("00ff".to_owned()),
        deadline_ms: Some(1_700_000_000_000),
        headers: Headers::new().with("traceparent", "00-1").with("x-user", "jane"),
        payload: Payload { content_type: "application/json".into(), bytes: br#"{"row":1}"#.to_vec() },
    }
}

fn answer() -> AnswerMessage {
    AnswerMessage {
        correlation: b"c-1".to_vec(),
        reply_topic: "replies".to_owned(),
        status: 201,
        verdict: None,
        serving_us: Some(40),
        headers: Headers::new().with("traceparent", "00-1"),
        payload: Payload { content_type: "text/plain; charset=utf-8".into(), bytes: b"done".to_vec() },
    }
}

fn written(encode: impl FnOnce(PutHeader<'_>) -> Result<Vec<u8>, CodecError>) -> Written {
    let mut headers = Vec::new();
    let value = encode(&mut |name, value| headers.push((name.to_owned(), value.to_vec()))).unwrap();
    (headers, value)
}

fn pairs(headers: &[(String, Vec<u8>)]) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
}

fn write_request(request: &RequestMessage, envelope: Envelope) -> Written {
    written(|put| request.encode(envelope, put).map(Cow::into_owned))
}

fn write_answer(answer: &AnswerMessage, envelope: Envelope) -> Written {
    written(|put| answer.encode(envelope, put).map(Cow::into_owned))
}

#[test]
fn a_request_in_headers_leaves_the_payload_as_it_is() {
    let (headers, value) = write_request(&request(), Envelope::Headers);
    assert_eq!(value, br#"{"row":1}"#);
    let find = |name: &str| pairs(&headers).find(|(found, _)| *found == name).map(|(_, value)| value.to_vec()).unwrap();
    assert_eq!(find(names::REPLY_TOPIC), b"replies");
    assert_eq!(find(names::REPLY_PARTITION), b"3");
    assert_eq!(find(names::DEADLINE), b"1700000000000");
    let (read, envelope) = RequestMessage::decode(pairs(&headers), &value).unwrap();
    assert_eq!((read, envelope), (RequestMessage { topic: String::new(), ..request() }, Envelope::Headers));
}

#[test]
fn a_request_in_json_is_what_the_reference_reads() {
    let (headers, value) = write_request(&request(), Envelope::Json);
    let json: serde_json::Value = serde_json::from_slice(&value).unwrap();
    let expected = serde_json::json!({
        "correlationId": "c-1",
        "destination": {"medium": "kafka", "topic": "orders", "serviceId": "seats/reserve"},
        "payload": "{\"row\":1}",
        "replyTo": "replies",
        "headers": {"traceparent": "00-1", "x-user": "jane"},
    });
    assert_eq!(json, expected);
    let (read, envelope) = RequestMessage::decode(pairs(&headers), &value).unwrap();
    let expected = RequestMessage { payload: Payload { content_type: "".into(), ..request().payload }, ..request() };
    assert_eq!((read, envelope), (expected, Envelope::Json));
}

#[test]
fn a_request_that_the_reference_wrote_is_read() {
    let value = br#"{"correlationId":"akka://a/1","destination":{"medium":"kafka","topic":"t","serviceId":"echo"},
        "payload":"hi","replyTo":"back","headers":{}}"#;
    let (request, envelope) = RequestMessage::decode(std::iter::empty(), value).unwrap();
    assert_eq!(envelope, Envelope::Json);
    assert_eq!((request.service.as_str(), request.payload.bytes.as_slice()), ("echo", &b"hi"[..]));
    assert_eq!(request.reply_to, Some(ReplyTo { topic: "back".to_owned(), partition: None }));
}

#[test]
fn an_answer_of_the_reference_is_read_and_its_status_is_looked_at() {
    let read = |status: u16| {
        let value = format!(
            r#"{{"correlationId":"c","replyTo":"r","response":"x","statusCode":{status},"headers":{{"a":"b"}}}}"#
        );
        AnswerMessage::decode(std::iter::empty(), value.as_bytes()).unwrap()
    };
    assert_eq!((read(200).verdict, read(200).headers.text("a")), (None, Some("b")));
    assert_eq!(read(404).verdict, Some(Verdict::NoSuchService));
    assert_eq!(read(300).verdict, Some(Verdict::BadRequest));
    assert_eq!(read(500).verdict, Some(Verdict::HandlerFailed));
}

#[test]
fn an_answer_reads_back_from_both_envelopes() {
    let (headers, value) = write_answer(&answer(), Envelope::Headers);
    let read = AnswerMessage::decode(pairs(&headers), &value).unwrap();
    assert_eq!(read, AnswerMessage { reply_topic: String::new(), ..answer() });
    assert_eq!(AnswerMessage::correlation_of(pairs(&headers), &value), Some(b"c-1".to_vec()));

    let (headers, value) = write_answer(&answer(), Envelope::Json);
    let read = AnswerMessage::decode(pairs(&headers), &value).unwrap();
    assert_eq!((read.status, read.payload.bytes, read.serving_us), (201, b"done".to_vec(), Some(40)));
    assert_eq!(AnswerMessage::correlation_of(pairs(&headers), &value), Some(b"c-1".to_vec()));
}

#[test]
fn a_service_may_write_the_names_of_its_headers_in_any_case() {
    let headers = [("Rig-Correlation", &b"c"[..]), ("RIG-RESPONSE-CODE", b"404"), ("X-A", b"1")];
    let answer = AnswerMessage::decode(headers.into_iter(), b"").unwrap();
    assert_eq!((answer.status, answer.headers.text("x-a")), (404, Some("1")));
}

#[test]
fn bytes_that_are_no_text_are_refused_by_the_json_envelope() {
    let binary = RequestMessage { payload: Payload { content_type: "".into(), bytes: vec![0xff] }, ..request() };
    assert!(matches!(binary.encode(Envelope::Json, &mut |_, _| {}), Err(CodecError::Envelope(_))));
}

#[test]
fn what_is_no_request_is_refused_with_the_reason() {
    let decode = |headers: &[(&'static str, &'static [u8])], value: &[u8]| {
        RequestMessage::decode(headers.iter().copied(), value).unwrap_err()
    };
    assert!(matches!(decode(&[], b"hello"), EnvelopeError::Unknown(_)));
    assert!(matches!(decode(&[("rig-service", b"s"), ("rig-deadline", b"soon")], b""), EnvelopeError::Header { .. }));
    assert!(matches!(decode(&[("rig-service", &[0xff])], b""), EnvelopeError::Header { .. }));
    assert_eq!(decode(&[("rig-service", b"s"), ("rig-reply-topic", b"r")], b""), EnvelopeError::NoCorrelation);
    let bad_code = [("rig-correlation", &b"c"[..]), ("rig-response-code", b"7")];
    assert!(AnswerMessage::decode(bad_code.into_iter(), b"").is_err());
}

proptest! {
    #[test]
    fn any_request_survives_the_header_envelope(
        correlation in prop::collection::vec(any::<u8>(), 1..50),
        service in "[a-z/]{1,20}",
        partition in prop::option::of(0_i32..1_000),
        deadline_ms: Option<u64>,
        values in prop::collection::vec(("x-[a-z]{1,5}", prop::collection::vec(any::<u8>(), 0..20)), 0..5),
        bytes: Vec<u8>,
    ) {
        let request = RequestMessage {
            correlation,
            service,
            topic: String::new(),
            reply_to: Some(ReplyTo { topic: "r".to_owned(), partition }),
            instance: None,
            deadline_ms,
            headers: values.into_iter().collect(),
            payload: Payload { content_type: "".into(), bytes },
        };
        let (headers, value) = write_request(&request, Envelope::Headers);
        let (read, _) = RequestMessage::decode(pairs(&headers), &value).unwrap();
        prop_assert_eq!(read, request);
    }

    #[test]
    fn no_message_makes_it_panic(
        headers in prop::collection::vec(("(rig-[a-z-]{1,16})|[a-z]{0,9}", prop::collection::vec(any::<u8>(), 0..20)), 0..6),
        value: Vec<u8>,
    ) {
        let _ = RequestMessage::decode(pairs(&headers), &value);
        let _ = AnswerMessage::decode(pairs(&headers), &value);
        let _ = AnswerMessage::correlation_of(pairs(&headers), &value);
    }
}
