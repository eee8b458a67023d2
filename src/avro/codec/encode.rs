//! From JSON to Avro.

use std::fmt;

use serde_json::{Map, Number, Value};

use super::schema::{Field, Node, NodeId, Schema};

/// Values that may be looked at in vain, as one of a union's types that doesn't fit: this many, and so many more for each
/// value there is. A schema whose unions contain each other could otherwise be tried in endless ways.
const MAX_IN_VAIN: usize = 1_000_000;
/// See [`MAX_IN_VAIN`].
const MAX_IN_VAIN_EACH: usize = 100;
/// Levels of a value with its defaults. Those of the value itself are bounded where its JSON is read.
const MAX_DEPTH: usize = 256;

/// Why JSON doesn't fit a schema: where, and what should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// From the inside out.
    path: Vec<Step>,
    problem: String,
    /// It is of another type altogether.
    other_type: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(Box<str>),
    Item(usize),
}

impl fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("data")?;
        for step in self.path.iter().rev() {
            match step {
                Step::Member(name) => write!(formatter, ".{name}")?,
                Step::Item(index) => write!(formatter, "[{index}]")?,
            }
        }
        write!(formatter, " {}", self.problem)
    }
}

impl std::error::Error for Misfit {}

impl Misfit {
    fn new(problem: impl Into<String>) -> Self {
        Self { path: Vec::new(), problem: problem.into(), other_type: false }
    }

    fn of_other_type(wanted: &str, value: &Value) -> Self {
        Self { other_type: true, ..Self::new(format!("must be {wanted}, not {}", kind(value))) }
    }

    fn inside(mut self, step: Step) -> Self {
        self.path.push(step);
        self.other_type = false;
        self
    }
}

/// Appends a value in Avro's binary encoding. Members that a record doesn't have are left out, and those that are
/// missing get their defaults; of a union, the first type that fits is taken.
///
/// # Errors [`Misfit`] names the first member that doesn't fit; what was appended until then must not be used.
pub fn encode(schema: &Schema, value: &Value, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let max_in_vain = MAX_IN_VAIN.saturating_add(MAX_IN_VAIN_EACH.saturating_mul(count(value)));
    let mut encoder = Encoder { schema, out, visited: 0, in_vain: 0, max_in_vain, depth: 0 };
    encoder.value(schema.root(), value, Origin::Data)
}

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Data,
    /// A default in the schema: there, bytes are characters of their numbers.
    Default,
}

struct Encoder<'a> {
    schema: &'a Schema,
    out: &'a mut Vec<u8>,
    visited: usize,
    in_vain: usize,
    max_in_vain: usize,
    depth: usize,
}

impl Encoder<'_> {
    fn value(&mut self, id: NodeId, value: &Value, origin: Origin) -> Result<(), Misfit> {
        self.visited += 1;
        if self.depth == MAX_DEPTH {
            return Err(Misfit::new("is nested too deep"));
        }
        self.depth += 1;
        let written = self.at_depth(id, value, origin);
        self.depth -= 1;
        written
    }

    fn at_depth(&mut self, id: NodeId, value: &Value, origin: Origin) -> Result<(), Misfit> {
        let schema = self.schema;
        let node = schema.node(id);
        match (node, value) {
            (Node::Null, Value::Null) => {}
            (Node::Boolean, Value::Bool(value)) => self.out.push(u8::from(*value)),
            (Node::Int, Value::Number(number)) => {
                let fits = number.as_i64().filter(|number| i32::try_from(*number).is_ok());
                self.number(fits.ok_or_else(|| Misfit::new("must be a whole number of 32 bits"))?);
            }
            (Node::Long, Value::Number(number)) => {
                self.number(number.as_i64().ok_or_else(|| Misfit::new("must be a whole number of 64 bits"))?);
            }
            (Node::Float, Value::Number(number)) => {
                #[expect(clippy::cast_possible_truncation, reason = "a float is what the schema asks for")]
                let float = finite(number)? as f32;
                if float.is_infinite() {
                    return Err(Misfit::new("must be a float, which it is too large for"));
                }
                self.out.extend_from_slice(&float.to_le_bytes());
            }
            (Node::Double, Value::Number(number)) => self.out.extend_from_slice(&finite(number)?.to_le_bytes()),
            (Node::Text, Value::String(text)) => self.counted(text.as_bytes()),
            (Node::Bytes, Value::String(text)) => match origin {
                Origin::Data => self.counted(text.as_bytes()),
                Origin::Default => {
                    let bytes = latin1(text);
                    self.counted(&bytes.ok_or_else(|| Misfit::new("has a default that isn't bytes"))?);
                }
            },
            (Node::Fixed { bytes }, Value::String(text)) => self.fixed(*bytes, text, origin)?,
            (Node::Enum { symbols }, Value::String(text)) => {
                let number = symbols.iter().position(|symbol| **symbol == **text);
                let number = number.ok_or_else(|| Misfit::new(format!("must be one of {}", symbols.join(", "))))?;
                self.number(i64::try_from(number).unwrap_or(i64::MAX));
            }
            (Node::Array { items }, Value::Array(values)) => {
                self.block(values.len());
                for (index, value) in values.iter().enumerate() {
                    self.value(*items, value, origin).map_err(|misfit| misfit.inside(Step::Item(index)))?;
                }
                self.out.push(0);
            }
            (Node::Map { values }, Value::Object(members)) => {
                self.block(members.len());
                for (name, value) in members {
                    self.counted(name.as_bytes());
                    self.value(*values, value, origin).map_err(|misfit| misfit.inside(member(name)))?;
                }
                self.out.push(0);
            }
            (Node::Record { fields }, Value::Object(members)) => {
                for field in fields {
                    self.field(field, members, origin).map_err(|misfit| misfit.inside(member(&field.name)))?;
                }
            }
            (Node::Union { branches }, value) => self.union(branches, value, origin)?,
            (node, value) => return Err(Misfit::of_other_type(name(node), value)),
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, members: &Map<String, Value>, origin: Origin) -> Result<(), Misfit> {
        let names = std::iter::once(&field.name).chain(&field.aliases);
        if let Some(value) = names.into_iter().find_map(|name| members.get(&**name)) {
            return self.value(field.node, value, origin);
        }
        let default = field.default.as_ref().ok_or_else(|| Misfit::new("is missing"))?;
        self.value(field.node, default, Origin::Default)
    }

    fn union(&mut self, branches: &[NodeId], value: &Value, origin: Origin) -> Result<(), Misfit> {
        let start = self.out.len();
        let mut likeliest = None;
        for (index, &branch) in branches.iter().enumerate() {
            self.number(i64::try_from(index).unwrap_or(i64::MAX));
            let visited = self.visited;
            match self.value(branch, value, origin) {
                Ok(()) => return Ok(()),
                Err(misfit) if misfit.other_type => {}
                Err(misfit) => likeliest = likeliest.or(Some(misfit)),
            }
            self.in_vain += self.visited - visited;
            if self.in_vain > self.max_in_vain {
                return Err(Misfit::new("has too many types that might fit"));
            }
            self.out.truncate(start);
        }
        Err(likeliest.unwrap_or_else(|| {
            let names: Vec<_> = branches.iter().map(|branch| name(self.schema.node(*branch))).collect();
            Misfit::of_other_type(&names.join(" or "), value)
        }))
    }

    fn fixed(&mut self, bytes: usize, text: &str, origin: Origin) -> Result<(), Misfit> {
        let as_text = Some(text.as_bytes()).filter(|text| text.len() == bytes && origin == Origin::Data);
        if let Some(text) = as_text {
            self.out.extend_from_slice(text);
            return Ok(());
        }
        let fits = latin1(text).filter(|characters| characters.len() == bytes);
        self.out.extend_from_slice(&fits.ok_or_else(|| Misfit::new(format!("must be a text of {bytes} bytes")))?);
        Ok(())
    }

    /// Of a block of all items, which an empty one follows.
    fn block(&mut self, count: usize) {
        if count > 0 {
            self.number(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn counted(&mut self, bytes: &[u8]) {
        self.number(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        self.out.extend_from_slice(bytes);
    }

    /// Zig-zag encoded, in groups of 7 bits.
    fn number(&mut self, number: i64) {
        let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
        while rest > 0x7f {
            #[expect(clippy::cast_possible_truncation, reason = "the lowest group is meant")]
            self.out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        #[expect(clippy::cast_possible_truncation, reason = "7 bits are left")]
        self.out.push(rest as u8);
    }
}

/// A value and all in it.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

fn finite(number: &Number) -> Result<f64, Misfit> {
    number.as_f64().filter(|number| number.is_finite()).ok_or_else(|| Misfit::new("must be a double"))
}

/// Each character's number as a byte.
fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|character| u8::try_from(character).ok()).collect()
}

fn member(name: &str) -> Step {
    Step::Member(name.into())
}

fn name(node: &Node) -> &'static str {
    match node {
        Node::Null => "null",
        Node::Boolean => "boolean",
        Node::Int => "int",
        Node::Long => "long",
        Node::Float => "float",
        Node::Double => "double",
        Node::Bytes => "bytes (a text)",
        Node::Text => "string",
        Node::Fixed { .. } => "fixed (a text)",
        Node::Enum { .. } => "enum (a text)",
        Node::Array { .. } => "array",
        Node::Map { .. } => "map (an object)",
        Node::Record { .. } => "record (an object)",
        Node::Union { .. } => "union",
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
