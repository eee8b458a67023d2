use proptest::prelude::*;

use super::*;

/// What a client's `EventSource` dispatches.
#[derive(Debug, PartialEq, Eq)]
struct Dispatched {
    event: String,
    id: String,
    data: String,
}

/// The stream interpreted as WHATWG HTML, section 9.2.6, says.
fn interpret(stream: &[u8]) -> Vec<Dispatched> {
    let text = std::str::from_utf8(stream).expect("UTF-8").replace("\r\n", "\n").replace('\r', "\n");
    let (mut event, mut id, mut data) = (String::new(), String::new(), String::new());
    let mut dispatched = Vec::new();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        if line.is_empty() {
            if !data.is_empty() {
                data.pop();
                let (event, data) = (std::mem::take(&mut event), std::mem::take(&mut data));
                dispatched.push(Dispatched { event, id: id.clone(), data });
            }
            event.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut event),
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            "data" => data = data + value + "\n",
            _ => {}
        }
    }
    dispatched
}

fn frame(event_type: &str, id: Option<&str>, body: &str) -> String {
    let mut out = Vec::new();
    append_event(event_type, id, body.as_bytes(), &mut out);
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn a_frame_has_type_then_id_then_data() {
    assert_eq!(frame("a.b", None, "{}"), "event: a.b\ndata: {}\n\n");
    assert_eq!(frame("a.b", Some("7-1"), "{}"), "event: a.b\nid: 7-1\ndata: {}\n\n");
}

#[test]
fn every_line_end_starts_a_new_data_line() {
    assert_eq!(frame("t", None, "{\n1,\r\n2,\r3}"), "event: t\ndata: {\ndata: 1,\ndata: 2,\ndata: 3}\n\n");
    assert_eq!(frame("t", None, "{}\n"), "event: t\ndata: {}\ndata: \n\n");
    assert_eq!(frame("t", None, "\n\r\r\n"), "event: t\ndata: \ndata: \ndata: \ndata: \n\n");
}

#[test]
fn line_ends_in_type_and_id_do_not_break_the_stream() {
    assert_eq!(frame("a\nb\r\nc\0", Some("1\n2\r3\0"), "{}"), "event: a b  c \nid: 123\ndata: {}\n\n");
}

#[test]
fn a_heartbeat_dispatches_nothing() {
    let stream = [HEARTBEAT, frame("t", None, "{}").as_bytes(), HEARTBEAT].concat();
    assert_eq!(interpret(&stream).len(), 1);
    assert!(HEARTBEAT.starts_with(b": heartbeat\n"));
}

proptest! {
    #[test]
    fn a_client_gets_the_data_with_line_ends_as_line_feeds(
        event_type in "[^\r\n\0]{1,20}",
        id in "[0-9a-z.:-]{1,20}",
        bodies in prop::collection::vec("[a-z: \u{2028}é\r\n]{0,30}", 1..4),
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            append_event(&event_type, Some(&id), body.as_bytes(), &mut stream);
        }
        let expected: Vec<_> = bodies
            .iter()
            .map(|body| Dispatched {
                event: event_type.clone(),
                id: id.clone(),
                data: body.replace("\r\n", "\n").replace('\r', "\n"),
            })
            .collect();
        prop_assert_eq!(interpret(&stream), expected);
    }

    #[test]
    fn no_type_and_no_id_can_forge_a_second_event(event_type in any::<String>(), id in any::<String>()) {
        let mut stream = Vec::new();
        append_event(&event_type, Some(&id), b"{}", &mut stream);
        let dispatched = interpret(&stream);
        prop_assert_eq!(dispatched.len(), 1);
        prop_assert_eq!(&dispatched[0].data, "{}");
    }
}

#[test]
fn the_body_comes_back_out_of_an_event() {
    for (body, expected) in [("{}", "{}"), ("{\r\n\"a\":\n1}", "{\n\"a\":\n1}"), ("", "")] {
        let mut out = Vec::new();
        append_event("data: x", Some("data: 1"), body.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(body_of(&out)).unwrap(), expected);
    }
}
