//! The request of every call, made once; only its number changes.

use std::ops::Range;

use super::number::{CallNumber, HEADER, NUMBER_BYTES};
use super::scenario::{HttpCalls, RequestBody};
use crate::endpoint::Endpoint;

/// What stands for the number in an address.
const PLACEHOLDER: &str = "{number}";
/// Stands for the number while the template is made: no hexadecimal digits, so that it can't stand there by chance.
const MARK: &str = "%NUMBER-OF-THE-CALL%%";

/// An HTTP request with places for the number of the call and the filler of its body.
#[derive(Clone, Debug)]
pub(crate) struct CallTemplate {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
    filler: Range<usize>,
}

impl CallTemplate {
    pub(crate) fn http(calls: &HttpCalls, endpoint: &Endpoint) -> Self {
        let (body, filler_bytes, content_type) = match calls.body {
            RequestBody::None => (String::new(), 0, None),
            RequestBody::Plain { bytes } => (MARK.to_owned(), bytes.saturating_sub(NUMBER_BYTES), Some("text/plain")),
            RequestBody::CloudEvent { bytes } => {
                let event = cloud_event();
                let filler_bytes = bytes.saturating_sub(event.len());
                (event, filler_bytes, Some("application/json"))
            }
        };
        let path = if endpoint.path.starts_with('/') { endpoint.path.clone() } else { format!("/{}", endpoint.path) };
        let mut text = format!("{} {} HTTP/1.1\r\nhost: {}\r\n", calls.method, path, endpoint.authority);
        text.push_str(&format!("{HEADER}: {MARK}\r\n"));
        for header in &calls.headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        if let Some(content_type) = content_type {
            let length = body.len() + filler_bytes;
            text.push_str(&format!("content-type: {content_type}\r\ncontent-length: {length}\r\n"));
        }
        text.push_str("\r\n");
        let text = text.replace(PLACEHOLDER, MARK) + &body;
        Self::new(text, filler_bytes, if matches!(calls.body, RequestBody::CloudEvent { .. }) { 3 } else { 0 })
    }

    /// `tail_bytes`: how much of the text stands behind the filler.
    fn new(text: String, filler_bytes: usize, tail_bytes: usize) -> Self {
        let numbers = text.match_indices(MARK).map(|(at, _)| at).collect();
        let filler_at = text.len() - tail_bytes;
        let mut bytes = text.into_bytes();
        let tail = bytes.split_off(filler_at);
        bytes.resize(filler_at + filler_bytes, b' ');
        bytes.extend_from_slice(&tail);
        Self { bytes, numbers, filler: filler_at..filler_at + filler_bytes }
    }

    /// Appends the request of this call.
    pub(crate) fn append(&self, call: CallNumber, out: &mut Vec<u8>) {
        let base = out.len();
        out.extend_from_slice(&self.bytes);
        let mut text = Vec::with_capacity(NUMBER_BYTES);
        call.append_text(&mut text);
        for at in &self.numbers {
            out[base + at..base + at + NUMBER_BYTES].copy_from_slice(&text);
        }
        out[base + self.filler.start..base + self.filler.end].fill(call.filler());
    }
}

/// A CloudEvent 1.0 whose `id` is the number; the filler goes in front of its last three bytes.
fn cloud_event() -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{MARK}","source":"/tidegate-load","type":"load.request","data":{{"filler":""}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str, body: RequestBody) -> String {
        let calls = HttpCalls {
            method: "POST".to_owned(),
            headers: vec!["accept: */*".to_owned()],
            body,
            ..HttpCalls::get(url)
        };
        let template = CallTemplate::http(&calls, &Endpoint::parse(url).unwrap());
        let mut out = Vec::new();
        template.append(CallNumber { run: 1, number: 2 }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_number_stands_in_the_path_the_head_and_the_body() {
        assert_eq!(
            request("http://127.0.0.1:9/a/{number}?n={number}", RequestBody::Plain { bytes: 24 }),
            "POST /a/00000001-000000000002?n=00000001-000000000002 HTTP/1.1\r\nhost: 127.0.0.1:9\r\n\
             x-load-number: 00000001-000000000002\r\naccept: */*\r\ncontent-type: text/plain\r\ncontent-length: 24\r\n\r\n\
             00000001-000000000002ccc"
        );
    }

    #[test]
    fn a_request_without_body_has_no_length_and_an_address_without_path_means_the_root() {
        let text = request("http://127.0.0.1:9", RequestBody::None);
        assert!(text.starts_with("POST / HTTP/1.1\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        assert!(!text.contains("content-length"));
    }

    #[test]
    fn an_event_is_json_of_the_size_asked_for_with_the_number_as_its_id() {
        for bytes in [0, 200, 1_000] {
            let text = request("http://127.0.0.1:9/", RequestBody::CloudEvent { bytes });
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let event: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(event["id"], "00000001-000000000002");
            assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
            assert!(bytes == 0 || body.len() == bytes);
            let filler = event["data"]["filler"].as_str().unwrap();
            assert!(filler.bytes().all(|byte| byte == b'c') && filler.is_empty() == (bytes == 0));
        }
    }
}
