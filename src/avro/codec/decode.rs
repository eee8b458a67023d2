//! From Avro to the text of JSON.

use serde::Serialize;

use super::schema::{Node, NodeId, Schema};

/// Bytes of the longest number: 64 bits in groups of 7.
const MAX_NUMBER_BYTES: u32 = 10;

/// What decoding may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Levels of objects and lists.
    pub max_depth: usize,
    /// Length of the JSON text, in bytes.
    pub max_json_bytes: usize,
}

/// Why bytes are no value of their schema. Offsets count from the beginning of the value, after the schema's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends early, or claims to be longer than it is.
    #[error("the Avro value ends early: {wanted} more bytes should follow at byte {at}")]
    Short {
        /// Where.
        at: usize,
        /// How many bytes should be there.
        wanted: u64,
    },
    /// Bytes are left.
    #[error("the Avro value ends at byte {at}, and more follows: it was written by another schema")]
    Trailing {
        /// Where.
        at: usize,
    },
    /// A part has no meaning.
    #[error("the Avro value has no {what} at byte {at}")]
    Malformed {
        /// Where.
        at: usize,
        /// What should be there.
        what: &'static str,
    },
    /// Too deep.
    #[error("the Avro value is nested more than {0} levels deep")]
    TooDeep(usize),
    /// Too long as JSON.
    #[error("the Avro value is more than {0} bytes as JSON")]
    TooLong(usize),
}

/// The JSON of a value in Avro's binary encoding.
///
/// # Errors
/// [`DecodeError`]: the bytes aren't a value of the schema to their last one, or a limit is exceeded.
pub fn decode(schema: &Schema, bytes: &[u8], limits: &DecodeLimits) -> Result<Vec<u8>, DecodeError> {
    let json = Vec::with_capacity(bytes.len().saturating_mul(2).min(limits.max_json_bytes));
    let mut decoder = Decoder { schema, bytes, at: 0, json, limits };
    decoder.value(schema.root(), 0)?;
    if decoder.at < bytes.len() {
        return Err(DecodeError::Trailing { at: decoder.at });
    }
    Ok(decoder.json)
}

struct Decoder<'a> {
    schema: &'a Schema,
    bytes: &'a [u8],
    at: usize,
    json: Vec<u8>,
    limits: &'a DecodeLimits,
}

impl<'a> Decoder<'a> {
    /// Every value writes at least one byte of JSON, so the bound on its length bounds the work too.
    fn value(&mut self, id: NodeId, depth: usize) -> Result<(), DecodeError> {
        let schema = self.schema;
        match schema.node(id) {
            Node::Null => self.write(b"null"),
            Node::Boolean => match self.take(1)? {
                [0] => self.write(b"false"),
                [1] => self.write(b"true"),
                _ => Err(self.malformed("boolean")),
            },
            Node::Int => {
                let number = i32::try_from(self.number()?).map_err(|_| self.malformed("int"))?;
                self.write_json(&number)
            }
            Node::Long => {
                let number = self.number()?;
                self.write_json(&number)
            }
            Node::Float => {
                let number = f32::from_le_bytes(self.array()?);
                if number.is_finite() { self.write_json(&number) } else { self.write_infinite(number.into()) }
            }
            Node::Double => {
                let number = f64::from_le_bytes(self.array()?);
                if number.is_finite() { self.write_json(&number) } else { self.write_infinite(number) }
            }
            Node::Bytes => {
                let bytes = self.counted()?;
                self.write_bytes(bytes)
            }
            Node::Text => self.text(),
            Node::Fixed { bytes } => {
                let bytes = self.take(*bytes as u64)?;
                self.write_bytes(bytes)
            }
            Node::Enum { symbols } => {
                let number = self.number()?;
                let symbol = usize::try_from(number).ok().and_then(|number| symbols.get(number));
                let symbol = symbol.ok_or_else(|| self.malformed("symbol of the enum"))?;
                self.write_json(symbol)
            }
            Node::Array { items } => self.blocks(depth, *b"[]", |decoder| decoder.value(*items, depth + 1)),
            Node::Map { values } => self.blocks(depth, *b"{}", |decoder| {
                decoder.text()?;
                decoder.write(b":")?;
                decoder.value(*values, depth + 1)
            }),
            Node::Record { fields } => {
                self.open(depth, b'{')?;
                for (index, field) in fields.iter().enumerate() {
                    if index > 0 {
                        self.write(b",")?;
                    }
                    self.write(&field.member)?;
                    self.value(field.node, depth + 1)?;
                }
                self.write(b"}")
            }
            Node::Union { branches } => {
                let number = self.number()?;
                let branch = usize::try_from(number).ok().and_then(|number| branches.get(number));
                let branch = *branch.ok_or_else(|| self.malformed("branch of the union"))?;
                self.value(branch, depth)
            }
        }
    }

    fn open(&mut self, depth: usize, bracket: u8) -> Result<(), DecodeError> {
        if depth >= self.limits.max_depth {
            return Err(DecodeError::TooDeep(self.limits.max_depth));
        }
        self.write(&[bracket])
    }

    /// The items of an array or a map: blocks, each with its count before it, until an empty one. A negative count is
    /// followed by the block's length in bytes, for readers that skip.
    fn blocks(
        &mut self,
        depth: usize,
        [open, close]: [u8; 2],
        mut item: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.open(depth, open)?;
        let mut first = true;
        loop {
            let count = self.number()?;
            if count == 0 {
                return self.write(&[close]);
            }
            if count < 0 {
                let length = self.number()?;
                let left = (self.bytes.len() - self.at) as u64;
                if u64::try_from(length).map_or(true, |length| length > left) {
                    return Err(self.malformed("length of a block"));
                }
            }
            for _ in 0..count.unsigned_abs() {
                if !std::mem::take(&mut first) {
                    self.write(b",")?;
                }
                item(self)?;
            }
        }
    }

    fn text(&mut self) -> Result<(), DecodeError> {
        let bytes = self.counted()?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.malformed("text in UTF-8"))?;
        self.write_json(text)
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.write_json(text),
            Err(_) => self.write_json(&bytes.iter().copied().map(char::from).collect::<String>()),
        }
    }

    /// JSON has no such numbers; their names are what Avro's JSON has for them.
    fn write_infinite(&mut self, number: f64) -> Result<(), DecodeError> {
        let name: &[u8] = match number {
            f64::INFINITY => b"\"Infinity\"",
            f64::NEG_INFINITY => b"\"-Infinity\"",
            _ => b"\"NaN\"",
        };
        self.write(name)
    }

    fn write_json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), DecodeError> {
        serde_json::to_writer(&mut self.json, value).expect("invariant: texts and numbers can be written to memory");
        self.check_length()
    }

    fn write(&mut self, text: &[u8]) -> Result<(), DecodeError> {
        self.json.extend_from_slice(text);
        self.check_length()
    }

    fn check_length(&self) -> Result<(), DecodeError> {
        let max = self.limits.max_json_bytes;
        if self.json.len() <= max { Ok(()) } else { Err(DecodeError::TooLong(max)) }
    }

    /// A number of variable length, zig-zag encoded.
    fn number(&mut self) -> Result<i64, DecodeError> {
        let mut number = 0_u64;
        for group in 0..MAX_NUMBER_BYTES {
            let [byte] = self.array()?;
            // The tenth group has one bit.
            if group == MAX_NUMBER_BYTES - 1 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << (7 * group);
            if byte & 0x80 == 0 {
                return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        Err(self.malformed("number of 64 bits"))
    }

    /// Bytes with their number before them.
    fn counted(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.number()?;
        let length = u64::try_from(length).map_err(|_| self.malformed("length"))?;
        self.take(length)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.take(N as u64)?;
        Ok(taken.try_into().expect("invariant: that many bytes were taken"))
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let taken = taken.ok_or(DecodeError::Short { at: self.at, wanted: count })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn malformed(&self, what: &'static str) -> DecodeError {
        DecodeError::Malformed { at: self.at, what }
    }
}
