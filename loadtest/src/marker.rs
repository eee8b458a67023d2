//! The mark that every generated event carries, found again without parsing JSON.
//!
//! A mark is 48 bytes of plain ASCII inside a JSON string, so any server may re-encode the event around it:
//! `tgl:` then, in lower-case hexadecimal of fixed width, the run (8), the stream (8), the sequence number in the
//! stream (12) and the intended send time in nanoseconds of the run's clock (16).

use memchr::memmem;

/// The text a mark starts with.
pub(crate) const PREFIX: &[u8; 4] = b"tgl:";
/// Bytes of a whole mark.
pub(crate) const MARK_BYTES: usize = 48;
/// Stream of the probe events that show the path from source to client to be open; no client audits it.
pub(crate) const PROBE_STREAM: u32 = u32::MAX;

const INVALID: u8 = 0xff;
const HEX: [u8; 256] = {
    let mut table = [INVALID; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

/// What a mark says about its event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Mark {
    /// The run that made the event; those of other runs are not audited.
    pub(crate) run: u32,
    /// The ordered stream it belongs to: one for a broadcast, one per key for unicast.
    pub(crate) stream: u32,
    /// Position in the stream, from 0 without gap.
    pub(crate) sequence: u64,
    /// When the schedule wanted it sent, in nanoseconds of the run's clock.
    pub(crate) intended_ns: u64,
}

impl Mark {
    /// Appends the 48 bytes of the mark. A sequence number above 2^48 keeps its low 48 bits.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFIX);
        append_hex(u64::from(self.run), 8, out);
        append_hex(u64::from(self.stream), 8, out);
        append_hex(self.sequence, 12, out);
        append_hex(self.intended_ns, 16, out);
    }

    /// Reads the mark that starts `bytes`, if there is a whole and valid one.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let digits = bytes.get(PREFIX.len()..MARK_BYTES)?;
        if !bytes.starts_with(PREFIX) {
            return None;
        }
        Some(Self {
            run: read_hex(&digits[..8])? as u32,
            stream: read_hex(&digits[8..16])? as u32,
            sequence: read_hex(&digits[16..28])?,
            intended_ns: read_hex(&digits[28..])?,
        })
    }
}

/// Finds marks in payloads. Events of one run look alike, so the place of the last mark is tried first.
#[derive(Debug)]
pub(crate) struct MarkFinder {
    finder: memmem::Finder<'static>,
    likely_offset: usize,
}

impl MarkFinder {
    pub(crate) fn new() -> Self {
        Self { finder: memmem::Finder::new(PREFIX), likely_offset: 0 }
    }

    /// Calls `found` for every mark in `payload`, in the order in which they stand.
    #[inline]
    pub(crate) fn each(&mut self, payload: &[u8], mut found: impl FnMut(Mark)) {
        let mut at = match payload.get(self.likely_offset..).and_then(Mark::read) {
            Some(mark) if self.finder.find(&payload[..self.likely_offset]).is_none() => {
                found(mark);
                self.likely_offset + MARK_BYTES
            }
            _ => 0,
        };
        while let Some(offset) = self.finder.find(&payload[at..]) {
            let start = at + offset;
            match Mark::read(&payload[start..]) {
                Some(mark) => {
                    if at == 0 {
                        self.likely_offset = start;
                    }
                    found(mark);
                    at = start + MARK_BYTES;
                }
                None => at = start + PREFIX.len(),
            }
        }
    }
}

fn append_hex(value: u64, width: usize, out: &mut Vec<u8>) {
    for digit in (0..width).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * digit)) as usize & 15]);
    }
}

#[inline]
fn read_hex(digits: &[u8]) -> Option<u64> {
    let (mut value, mut seen) = (0u64, 0u8);
    for &digit in digits {
        let nibble = HEX[digit as usize];
        seen |= nibble;
        value = value << 4 | u64::from(nibble & 15);
    }
    (seen & 0xf0 == 0).then_some(value)
}

/// Builds the text of structured CloudEvents of one size.
#[derive(Clone, Debug)]
pub(crate) struct EventTemplate {
    run: u32,
    event_type: String,
    event_bytes: usize,
    /// Text before and behind each event.
    envelope: Option<(String, String)>,
}

impl EventTemplate {
    /// `event_bytes` is the size of the whole JSON text; an event that needs more for its attributes is longer.
    pub(crate) fn new(run: u32, event_type: &str, event_bytes: usize) -> Self {
        let quoted = serde_json::Value::from(event_type).to_string();
        Self { run, event_type: quoted, event_bytes, envelope: None }
    }

    /// Puts every event into `envelope` in the place of `{event}`; `{key}` in it becomes the event's key.
    pub(crate) fn in_envelope(mut self, envelope: Option<&str>) -> Self {
        self.envelope = envelope
            .and_then(|envelope| envelope.split_once("{event}"))
            .map(|(before, behind)| (before.to_owned(), behind.to_owned()));
        self
    }

    /// Appends one CloudEvents 1.0 text, in its envelope if there is one. `key` goes into `subject`, which keys it in
    /// Kafka, and into `data.key`.
    pub(crate) fn append(&self, stream: u32, sequence: u64, intended_ns: u64, key: &str, out: &mut Vec<u8>) {
        let Some((before, behind)) = &self.envelope else {
            return self.append_event(stream, sequence, intended_ns, key, out);
        };
        out.extend_from_slice(before.replace("{key}", key).as_bytes());
        self.append_event(stream, sequence, intended_ns, key, out);
        out.extend_from_slice(behind.replace("{key}", key).as_bytes());
    }

    fn append_event(&self, stream: u32, sequence: u64, intended_ns: u64, key: &str, out: &mut Vec<u8>) {
        const TAIL: &[u8] = b"\"}}";
        let start = out.len();
        out.extend_from_slice(br#"{"specversion":"1.0","type":"#);
        out.extend_from_slice(self.event_type.as_bytes());
        out.extend_from_slice(br#","source":"/load","id":""#);
        append_hex(u64::from(stream), 8, out);
        out.push(b'-');
        append_hex(sequence, 8, out);
        out.extend_from_slice(br#"","subject":""#);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(br#"","data":{"key":""#);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(br#"","m":""#);
        Mark { run: self.run, stream, sequence, intended_ns }.append_to(out);
        out.extend_from_slice(br#"","p":""#);
        let padded = (start + self.event_bytes).saturating_sub(TAIL.len()).max(out.len());
        out.resize(padded, b'.');
        out.extend_from_slice(TAIL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(stream: u32, sequence: u64) -> Mark {
        Mark { run: 0xdead_beef, stream, sequence, intended_ns: 123_456_789 }
    }

    fn found(finder: &mut MarkFinder, payload: &[u8]) -> Vec<Mark> {
        let mut marks = Vec::new();
        finder.each(payload, |mark| marks.push(mark));
        marks
    }

    #[test]
    fn a_mark_reads_back_as_it_was_written() {
        let mut bytes = Vec::new();
        mark(7, (1 << 48) - 1).append_to(&mut bytes);
        assert_eq!(bytes.len(), MARK_BYTES);
        assert_eq!(Mark::read(&bytes), Some(mark(7, (1 << 48) - 1)));
    }

    #[test]
    fn a_mark_cut_short_or_with_other_letters_is_none() {
        let mut bytes = Vec::new();
        mark(7, 9).append_to(&mut bytes);
        for length in 0..MARK_BYTES {
            assert_eq!(Mark::read(&bytes[..length]), None, "{length} bytes");
        }
        bytes[20] = b'G';
        assert_eq!(Mark::read(&bytes), None);
    }

    #[test]
    fn every_mark_of_a_payload_is_found_in_order_also_when_the_likely_place_is_not_the_first() {
        let mut finder = MarkFinder::new();
        let template = EventTemplate::new(0xdead_beef, "load.test", 200);
        let mut one = b"{\"events\":[".to_vec();
        template.append(1, 5, 99, "k1", &mut one);
        assert_eq!(found(&mut finder, &one).len(), 1);
        let mut three = Vec::new();
        for sequence in 6..9 {
            three.extend_from_slice(b"tgl:not a mark,");
            template.append(1, sequence, 99, "k1", &mut three);
        }
        let sequences: Vec<u64> = found(&mut finder, &three).iter().map(|mark| mark.sequence).collect();
        assert_eq!(sequences, [6, 7, 8]);
        let mut shifted = Vec::new();
        mark(1, 1).append_to(&mut shifted);
        shifted.resize(finder.likely_offset, b' ');
        mark(1, 2).append_to(&mut shifted);
        let sequences: Vec<u64> = found(&mut finder, &shifted).iter().map(|mark| mark.sequence).collect();
        assert_eq!(sequences, [1, 2]);
    }

    #[test]
    fn an_event_is_a_json_cloudevent_of_exactly_the_wanted_size() {
        let template = EventTemplate::new(3, "load.\"quoted\"", 512);
        let mut text = Vec::new();
        template.append(17, 4, 1_000, "k17", &mut text);
        assert_eq!(text.len(), 512);
        let event: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(event["type"], "load.\"quoted\"");
        assert_eq!(event["subject"], "k17");
        assert_eq!(event["data"]["key"], "k17");
    }

    #[test]
    fn an_envelope_goes_around_the_event_with_its_key() {
        let template = EventTemplate::new(3, "t", 200).in_envelope(Some(r#"{"channel":"c:{key}","data":{event}}"#));
        let mut text = Vec::new();
        template.append(17, 4, 1_000, "k17", &mut text);
        let publication: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(publication["channel"], "c:k17");
        assert_eq!(publication["data"]["subject"], "k17");
    }

    #[test]
    fn an_event_that_needs_more_than_the_wanted_size_is_whole_and_longer() {
        let mut text = Vec::new();
        EventTemplate::new(3, "load.broadcast", 10).append(0, 0, 0, "all", &mut text);
        assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok());
        assert!(text.len() > 10 && text.len() <= 200, "the smallest event fits the 200 bytes of the figures");
    }
}
