//! The frame of a value in Kafka, Confluent's "wire format": a zero byte, the schema's id in four bytes, big end first,
//! and the value.

/// Bytes before the value.
const HEAD_BYTES: usize = 5;

/// Can this be a framed value? No JSON begins like it.
#[must_use]
pub fn is_framed(bytes: &[u8]) -> bool {
    bytes.len() >= HEAD_BYTES && bytes[0] == 0
}

/// The schema's id, and the value; `None` if there is no frame.
#[must_use]
pub fn unframe(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (&[0, a, b, c, d], value) = bytes.split_first_chunk::<HEAD_BYTES>()? else { return None };
    Some((u32::from_be_bytes([a, b, c, d]), value))
}

/// The beginning of a framed value, to which the value is appended.
#[must_use]
pub fn frame(id: u32) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend_from_slice(&id.to_be_bytes());
    framed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_zero_byte_and_the_id_big_end_first() {
        assert_eq!(frame(0x0102_0304), [0, 1, 2, 3, 4]);
        assert_eq!(unframe(&[0, 1, 2, 3, 4, 9, 8]), Some((0x0102_0304, &[9, 8][..])));
        assert_eq!(unframe(&[0, 0, 0, 0, 7]), Some((7, &[][..])));
    }

    #[test]
    fn json_and_what_is_too_short_have_none() {
        for bytes in [&b""[..], b"\0", b"\0\0\0\0", b"{\"a\":1}", b"\x01\0\0\0\0\0"] {
            assert_eq!(unframe(bytes), None);
            assert!(!is_framed(bytes));
        }
    }
}
