//! Schemas: their JSON, read once, with every name resolved.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Nodes of one schema at most.
const MAX_NODES: usize = 100_000;

/// A schema, ready for use. Its nodes refer to each other by number, so one may contain itself.
#[derive(Debug)]
pub struct Schema {
    nodes: Vec<Node>,
    root: NodeId,
}

/// The place of a node.
pub(super) type NodeId = usize;

#[derive(Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed { bytes: usize },
    Enum { symbols: Box<[Box<str>]> },
    Array { items: NodeId },
    Map { values: NodeId },
    Record { fields: Box<[Field]> },
    Union { branches: Box<[NodeId]> },
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: Box<str>,
    /// The name as the member of a JSON object: quoted, with its colon.
    pub(super) member: Box<[u8]>,
    pub(super) aliases: Box<[Box<str>]>,
    pub(super) node: NodeId,
    pub(super) default: Option<Value>,
}

/// Why a text is no schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// No JSON.
    #[error("it is no JSON ({0})")]
    NotJson(String),
    /// A part that must be there isn't, or is of the wrong kind.
    #[error("{what} of {of} must be {kind}")]
    Malformed {
        /// The part.
        what: &'static str,
        /// Of which type it is.
        of: String,
        /// What it must be.
        kind: &'static str,
    },
    /// A name that nothing before it defines.
    #[error("the type {0:?} is not defined in it")]
    UnknownType(String),
    /// The same name twice.
    #[error("the type {0:?} is defined twice")]
    DefinedTwice(String),
    /// A union in a union, or one without branches.
    #[error("a union has types that are no unions, and at least one")]
    BadUnion,
    /// Too much of it.
    #[error("it has more than {MAX_NODES} parts")]
    TooLarge,
}

impl Schema {
    /// Reads the JSON of a schema.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(json: &str) -> Result<Self, SchemaError> {
        let value: Value = serde_json::from_str(json).map_err(|error| SchemaError::NotJson(error.to_string()))?;
        let mut parser = Parser::default();
        let root = parser.read(&value, "")?;
        Ok(Self { nodes: parser.nodes, root })
    }

    pub(super) fn root(&self) -> NodeId {
        self.root
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }
}

#[derive(Default)]
struct Parser {
    nodes: Vec<Node>,
    /// By full name.
    named: HashMap<String, NodeId>,
}

impl Parser {
    fn add(&mut self, node: Node) -> Result<NodeId, SchemaError> {
        if self.nodes.len() == MAX_NODES {
            return Err(SchemaError::TooLarge);
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// The JSON is at most as deep as `serde_json` reads it, which bounds the recursion.
    fn read(&mut self, value: &Value, namespace: &str) -> Result<NodeId, SchemaError> {
        match value {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => self.union(branches, namespace),
            Value::Object(members) => self.object(members, namespace),
            _ => Err(malformed("a type", "it", "a text, a list or an object")),
        }
    }

    fn by_name(&mut self, name: &str, namespace: &str) -> Result<NodeId, SchemaError> {
        if let Some(primitive) = primitive(name) {
            return self.add(primitive);
        }
        let found = self.named.get(&full_name(name, namespace)).or_else(|| self.named.get(name));
        found.copied().ok_or_else(|| SchemaError::UnknownType(name.to_owned()))
    }

    fn union(&mut self, branches: &[Value], namespace: &str) -> Result<NodeId, SchemaError> {
        let ids = branches.iter().map(|branch| self.read(branch, namespace)).collect::<Result<Box<[_]>, _>>()?;
        if ids.is_empty() || ids.iter().any(|id| matches!(self.nodes[*id], Node::Union { .. })) {
            return Err(SchemaError::BadUnion);
        }
        self.add(Node::Union { branches: ids })
    }

    fn object(&mut self, members: &Map<String, Value>, namespace: &str) -> Result<NodeId, SchemaError> {
        let kind = match members.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(nested) => return self.read(nested, namespace),
            None => return Err(malformed("\"type\"", "a type", "there")),
        };
        match kind {
            "array" => {
                let items = self.part(members, "items", kind, namespace)?;
                self.add(Node::Array { items })
            }
            "map" => {
                let values = self.part(members, "values", kind, namespace)?;
                self.add(Node::Map { values })
            }
            "record" | "error" => self.record(members, namespace),
            "enum" => {
                let full = self.name(members, namespace)?;
                let symbols = texts(members.get("symbols")).ok_or_else(|| malformed("symbols", &full, "texts"))?;
                let id = self.add(Node::Enum { symbols })?;
                self.define(full, id)
            }
            "fixed" => {
                let full = self.name(members, namespace)?;
                let size = members.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
                let bytes = size.ok_or_else(|| malformed("size", &full, "a number of bytes"))?;
                let id = self.add(Node::Fixed { bytes })?;
                self.define(full, id)
            }
            name => self.by_name(name, namespace),
        }
    }

    fn part(
        &mut self,
        members: &Map<String, Value>,
        what: &'static str,
        of: &str,
        namespace: &str,
    ) -> Result<NodeId, SchemaError> {
        let part = members.get(what).ok_or_else(|| malformed(what, of, "a type"))?;
        self.read(part, namespace)
    }

    fn record(&mut self, members: &Map<String, Value>, namespace: &str) -> Result<NodeId, SchemaError> {
        let full = self.name(members, namespace)?;
        let inner = full.rsplit_once('.').map_or(String::new(), |(namespace, _)| namespace.to_owned());
        // Its fields may be of its own type.
        let id = self.add(Node::Null)?;
        self.define(full.clone(), id)?;
        let fields = members.get("fields").and_then(Value::as_array);
        let fields = fields.ok_or_else(|| malformed("fields", &full, "a list"))?;
        let fields = fields.iter().map(|field| self.field(field, &full, &inner)).collect::<Result<Box<[_]>, _>>()?;
        self.nodes[id] = Node::Record { fields };
        Ok(id)
    }

    fn field(&mut self, field: &Value, record: &str, namespace: &str) -> Result<Field, SchemaError> {
        let name = field.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| malformed("the name", &format!("a field of {record}"), "a text"))?;
        let kind = field.get("type").ok_or_else(|| malformed("\"type\"", &format!("{record}.{name}"), "there"))?;
        let node = self.read(kind, namespace)?;
        let member = format!("{}:", Value::from(name));
        Ok(Field {
            name: name.into(),
            member: member.into_bytes().into(),
            aliases: texts(field.get("aliases")).unwrap_or_default(),
            node,
            default: field.get("default").cloned(),
        })
    }

    /// The full name of a type that is being defined.
    fn name(&self, members: &Map<String, Value>, namespace: &str) -> Result<String, SchemaError> {
        let name = members.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| malformed("the name", "a type", "a text"))?;
        let namespace = members.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = full_name(name, namespace);
        if self.named.contains_key(&full) {
            return Err(SchemaError::DefinedTwice(full));
        }
        Ok(full)
    }

    fn define(&mut self, full: String, id: NodeId) -> Result<NodeId, SchemaError> {
        self.named.insert(full, id);
        Ok(id)
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn primitive(name: &str) -> Option<Node> {
    Some(match name {
        "null" => Node::Null,
        "boolean" => Node::Boolean,
        "int" => Node::Int,
        "long" => Node::Long,
        "float" => Node::Float,
        "double" => Node::Double,
        "bytes" => Node::Bytes,
        "string" => Node::Text,
        _ => return None,
    })
}

fn texts(value: Option<&Value>) -> Option<Box<[Box<str>]>> {
    value?.as_array()?.iter().map(|text| text.as_str().map(Into::into)).collect()
}

fn malformed(what: &'static str, of: &str, kind: &'static str) -> SchemaError {
    SchemaError::Malformed { what, of: of.to_owned(), kind }
}
