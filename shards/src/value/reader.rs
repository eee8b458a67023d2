//! A strict JSON reader (RFC 8259) that walks one document and hands out strings and numbers as they stand in the text.
//!
//! It exists beside the serde-based parsers because those either lose the text of numbers or treat some object keys
//! specially; what decides whether two values are equal must do neither.

use super::ValueError;

/// How deep arrays and objects may be nested.
pub(crate) const MAX_DEPTH: usize = 128;

/// What the next value is, told by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    True,
    False,
    Number,
    String,
    Array,
    Object,
}

/// The parts of a JSON number, as written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NumberText<'a> {
    pub(crate) negative: bool,
    /// Digits before the point: `0`, or without leading zero.
    pub(crate) integer: &'a str,
    /// Digits behind the point; empty without one.
    pub(crate) fraction: &'a str,
    /// The exponent with its sign, if there is one: `+07`, `-3`, `12`.
    pub(crate) exponent: Option<&'a str>,
    /// All of it.
    pub(crate) text: &'a str,
}

/// A position in a JSON text. Every method either advances past what it read or fails.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(raw_json: &'a [u8]) -> Result<Self, ValueError> {
        let text = std::str::from_utf8(raw_json).map_err(|e| ValueError::NotUtf8 { offset: e.valid_up_to() })?;
        Ok(Reader { text, at: 0, depth: 0 })
    }

    /// The kind of the value that comes next, after white space.
    pub(crate) fn kind(&mut self) -> Result<Kind, ValueError> {
        self.skip_whitespace();
        match self.peek() {
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b't') => self.literal("true", Kind::True),
            Some(b'f') => self.literal("false", Kind::False),
            Some(b'n') => self.literal("null", Kind::Null),
            _ => Err(self.syntax()),
        }
    }

    /// Reads a string and appends its decoded UTF-8 to `out`.
    pub(crate) fn string(&mut self, out: &mut Vec<u8>) -> Result<(), ValueError> {
        self.expect(b'"')?;
        let bytes = self.text.as_bytes();
        loop {
            let start = self.at;
            while bytes.get(self.at).is_some_and(|&byte| byte != b'"' && byte != b'\\' && byte >= 0x20) {
                self.at += 1;
            }
            out.extend_from_slice(&bytes[start..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape(out)?,
                _ => return Err(self.syntax()),
            }
        }
    }

    /// Reads a number without interpreting it.
    pub(crate) fn number(&mut self) -> Result<NumberText<'a>, ValueError> {
        let start = self.at;
        let negative = self.take(b'-');
        let integer = self.digits()?;
        if integer.len() > 1 && integer.starts_with('0') {
            return Err(ValueError::Syntax { offset: start });
        }
        let fraction = if self.take(b'.') { self.digits()? } else { "" };
        let exponent = if self.take(b'e') || self.take(b'E') {
            let exponent_start = self.at;
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
            Some(&self.text[exponent_start..self.at])
        } else {
            None
        };
        Ok(NumberText { negative, integer, fraction, exponent, text: &self.text[start..self.at] })
    }

    /// Enters an array. Call `next_element` before each element.
    pub(crate) fn enter_array(&mut self) -> Result<(), ValueError> {
        self.enter(b'[')
    }

    /// Enters an object. Call `next_key` before each value.
    pub(crate) fn enter_object(&mut self) -> Result<(), ValueError> {
        self.enter(b'{')
    }

    /// Whether another element follows; false leaves the array.
    pub(crate) fn next_element(&mut self, first: bool) -> Result<bool, ValueError> {
        self.next_item(first, b']')
    }

    /// Whether another member follows, appending its decoded key to `key`; false leaves the object.
    pub(crate) fn next_key(&mut self, first: bool, key: &mut Vec<u8>) -> Result<bool, ValueError> {
        if !self.next_item(first, b'}')? {
            return Ok(false);
        }
        self.skip_whitespace();
        self.string(key)?;
        self.skip_whitespace();
        self.expect(b':')?;
        Ok(true)
    }

    /// Fails unless nothing but white space is left.
    pub(crate) fn finish(&mut self) -> Result<(), ValueError> {
        self.skip_whitespace();
        if self.at == self.text.len() { Ok(()) } else { Err(self.syntax()) }
    }

    fn enter(&mut self, open: u8) -> Result<(), ValueError> {
        self.expect(open)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(ValueError::TooDeep { offset: self.at - 1 }) } else { Ok(()) }
    }

    fn next_item(&mut self, first: bool, close: u8) -> Result<bool, ValueError> {
        self.skip_whitespace();
        if self.take(close) {
            self.depth -= 1;
            return Ok(false);
        }
        if !first {
            self.expect(b',')?;
        }
        Ok(true)
    }

    fn literal(&mut self, word: &str, kind: Kind) -> Result<Kind, ValueError> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(kind)
        } else {
            Err(self.syntax())
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), ValueError> {
        let start = self.at;
        self.at += 1;
        let decoded = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let decoded = self.unicode_escape(start)?;
                out.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.syntax()),
        };
        self.at += 1;
        out.push(decoded as u8);
        Ok(())
    }

    fn unicode_escape(&mut self, start: usize) -> Result<char, ValueError> {
        let lone = ValueError::LoneSurrogate { offset: start };
        let unit = self.four_hex_digits()?;
        let code = match unit {
            0xD800..=0xDBFF => {
                if !(self.take(b'\\') && self.take(b'u')) {
                    return Err(lone);
                }
                let low = self.four_hex_digits()?;
                if !(0xDC00..=0xDFFF).contains(&low) {
                    return Err(lone);
                }
                0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
            }
            _ => unit,
        };
        char::from_u32(code).ok_or(lone)
    }

    fn four_hex_digits(&mut self) -> Result<u32, ValueError> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(|| self.syntax())?;
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }

    fn digits(&mut self) -> Result<&'a str, ValueError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.syntax()) } else { Ok(&self.text[start..self.at]) }
    }

    fn skip_whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), ValueError> {
        if self.take(byte) { Ok(()) } else { Err(self.syntax()) }
    }

    fn syntax(&self) -> ValueError {
        ValueError::Syntax { offset: self.at }
    }
}
