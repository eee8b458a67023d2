//! Equality of JSON values, made as cheap as comparing bytes.
//!
//! Events and subscriptions write the same value in different ways (`1`, `1.0`, `1e0`; `"a"`, `"\u0061"`; members in any
//! order). Both sides are brought into one canonical encoding once, so that matching hashes and compares bytes only.

mod reader;

#[cfg(test)]
mod tests;

pub(crate) use reader::{Kind, NumberText, Reader};

/// Why a text is not a JSON value that can be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The text is not UTF-8 (RFC 8259, section 8.1).
    #[error("the JSON text is not UTF-8 at byte {offset}")]
    NotUtf8 {
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// The text is not JSON, or something follows it.
    #[error("the text is not valid JSON at byte {offset}")]
    Syntax {
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// Arrays and objects are nested more than 128 deep.
    #[error("the JSON value is nested deeper than {} levels at byte {offset}", reader::MAX_DEPTH)]
    TooDeep {
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// A `\u` escape names half of a surrogate pair, which is no character.
    #[error("the JSON string holds half of a surrogate pair at byte {offset}")]
    LoneSurrogate {
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// The exponent of a number lies beyond ±10^18.
    #[error("the number {text:.40} has an exponent beyond ±10^18")]
    ExponentOutOfRange {
        /// The number as written.
        text: String,
    },
}

const NULL: u8 = b'n';
const TRUE: u8 = b't';
const FALSE: u8 = b'f';
const NUMBER: u8 = b'd';
const STRING: u8 = b's';
const ARRAY: u8 = b'[';
const ARRAY_END: u8 = b']';
const OBJECT: u8 = b'{';
const OBJECT_END: u8 = b'}';
/// Ends strings and numbers; the byte occurs in no UTF-8 text.
const TEXT_END: u8 = 0xFF;

/// Appends the canonical encoding of one JSON value to `out`.
///
/// Two values are equal as JSON values if and only if their encodings are equal bytes: numbers by exact decimal value
/// whatever their notation or length (`-0.0` equals `0`), strings by their characters after decoding, objects without
/// regard to the order of members (of members with one name, the first counts), and a string never equals a number.
///
/// # Errors
/// If `raw_json` is not exactly one JSON value within the limits that [`ValueError`] names. `out` is then as before.
pub fn canonicalize(raw_json: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let start = out.len();
    let result = Reader::new(raw_json).and_then(|mut reader| {
        write_value(&mut reader, out)?;
        reader.finish()
    });
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// The canonical encoding of `null`, which in a constraint matches anything.
pub(crate) const CANONICAL_NULL: &[u8] = &[NULL];

fn write_value(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), ValueError> {
    match reader.kind()? {
        Kind::Null => out.push(NULL),
        Kind::True => out.push(TRUE),
        Kind::False => out.push(FALSE),
        Kind::Number => write_number(&reader.number()?, out)?,
        Kind::String => {
            out.push(STRING);
            reader.string(out)?;
            out.push(TEXT_END);
        }
        Kind::Array => {
            out.push(ARRAY);
            reader.enter_array()?;
            let mut first = true;
            while reader.next_element(first)? {
                write_value(reader, out)?;
                first = false;
            }
            out.push(ARRAY_END);
        }
        Kind::Object => write_object(reader, out)?,
    }
    Ok(())
}

/// A member already written to the output, as byte positions in it.
#[derive(Clone, Copy)]
struct Member {
    start: usize,
    key_end: usize,
    end: usize,
}

fn write_object(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), ValueError> {
    out.push(OBJECT);
    reader.enter_object()?;
    let members_start = out.len();
    let mut members: Vec<Member> = Vec::new();
    loop {
        let start = out.len();
        if !reader.next_key(members.is_empty(), out)? {
            break;
        }
        out.push(TEXT_END);
        let key_end = out.len();
        write_value(reader, out)?;
        members.push(Member { start, key_end, end: out.len() });
    }
    let key = |member: &Member| &out[member.start..member.key_end];
    if !members.is_sorted_by(|a, b| key(a) < key(b)) {
        members.sort_by(|a, b| key(a).cmp(key(b)));
        members.dedup_by(|later, earlier| key(later) == key(earlier));
        let sorted: Vec<u8> = members.iter().flat_map(|member| &out[member.start..member.end]).copied().collect();
        out.truncate(members_start);
        out.extend_from_slice(&sorted);
    }
    out.push(OBJECT_END);
    Ok(())
}

/// Writes sign, significant digits and a power of ten, so that the value is `0.digits × 10^power`.
fn write_number(number: &NumberText<'_>, out: &mut Vec<u8>) -> Result<(), ValueError> {
    out.push(NUMBER);
    let integer = number.integer.trim_start_matches('0');
    let (leading, trailing) = if integer.is_empty() {
        (number.fraction.trim_start_matches('0').trim_end_matches('0'), "")
    } else {
        let fraction = number.fraction.trim_end_matches('0');
        if fraction.is_empty() { (integer.trim_end_matches('0'), "") } else { (integer, fraction) }
    };
    if !leading.is_empty() {
        let zeros_behind_point = number.fraction.len() - number.fraction.trim_start_matches('0').len();
        let point = if integer.is_empty() { -to_i64(zeros_behind_point) } else { to_i64(integer.len()) };
        let power = match number.exponent {
            Some(text) => point + parse_exponent(text, number.text)?,
            None => point,
        };
        out.push(if number.negative { b'-' } else { b'+' });
        out.extend_from_slice(leading.as_bytes());
        out.extend_from_slice(trailing.as_bytes());
        out.push(b'e');
        out.extend_from_slice(&power.to_le_bytes());
    }
    out.push(TEXT_END);
    Ok(())
}

/// A length in bytes; no text in memory is longer than `i64::MAX`.
fn to_i64(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Reads at most 18 significant digits, so that adding the length of a text in memory cannot overflow.
fn parse_exponent(exponent: &str, number: &str) -> Result<i64, ValueError> {
    let (negative, digits) = match exponent.as_bytes().first() {
        Some(b'-') => (true, &exponent[1..]),
        Some(b'+') => (false, &exponent[1..]),
        _ => (false, exponent),
    };
    let digits = digits.trim_start_matches('0');
    if digits.len() > 18 {
        return Err(ValueError::ExponentOutOfRange { text: number.chars().take(40).collect() });
    }
    let magnitude = digits.bytes().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Ok(if negative { -magnitude } else { magnitude })
}
