//! What requests and answers carry, and how types become that: text, bytes, nothing, and anything that serde knows as JSON.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes and what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// Media type; empty if it isn't known.
    pub content_type: Cow<'static, str>,
    /// The body.
    pub bytes: Vec<u8>,
}

/// A value that can't be written, or bytes that are no such value.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Expected text.
    #[error("the payload is not UTF-8 text")]
    Text(#[source] std::str::Utf8Error),
    /// Expected JSON of a certain shape.
    #[error("the payload is not the expected JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Expected nothing.
    #[error("the payload should be empty and has {0} bytes")]
    NotEmpty(usize),
    /// The envelope can't carry it.
    #[error("{0}")]
    Envelope(String),
}

/// A type that can be sent.
pub trait Encode {
    /// The bytes and their media type.
    ///
    /// # Errors
    /// The value has no such form.
    fn encode(self) -> Result<Payload, CodecError>;
}

/// A type that can be received.
pub trait Decode: Sized {
    /// Reads the value.
    ///
    /// # Errors
    /// The bytes are no such value.
    fn decode(payload: Payload) -> Result<Self, CodecError>;
}

/// Any type that serde can write or read, as JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

const TEXT: Cow<'static, str> = Cow::Borrowed("text/plain; charset=utf-8");
const BYTES: Cow<'static, str> = Cow::Borrowed("application/octet-stream");
const JSON: Cow<'static, str> = Cow::Borrowed("application/json");

impl Encode for Payload {
    fn encode(self) -> Result<Payload, CodecError> {
        Ok(self)
    }
}

impl Decode for Payload {
    fn decode(payload: Payload) -> Result<Self, CodecError> {
        Ok(payload)
    }
}

impl Encode for String {
    fn encode(self) -> Result<Payload, CodecError> {
        Ok(Payload { content_type: TEXT, bytes: self.into_bytes() })
    }
}

impl Encode for &str {
    fn encode(self) -> Result<Payload, CodecError> {
        self.to_owned().encode()
    }
}

impl Decode for String {
    fn decode(payload: Payload) -> Result<Self, CodecError> {
        Self::from_utf8(payload.bytes).map_err(|error| CodecError::Text(error.utf8_error()))
    }
}

impl Encode for Vec<u8> {
    fn encode(self) -> Result<Payload, CodecError> {
        Ok(Payload { content_type: BYTES, bytes: self })
    }
}

impl Encode for &[u8] {
    fn encode(self) -> Result<Payload, CodecError> {
        self.to_vec().encode()
    }
}

impl Decode for Vec<u8> {
    fn decode(payload: Payload) -> Result<Self, CodecError> {
        Ok(payload.bytes)
    }
}

impl Encode for () {
    fn encode(self) -> Result<Payload, CodecError> {
        Ok(Payload::default())
    }
}

impl Decode for () {
    /// Takes nothing, and JSON's `null` and `{}`, which is how others write nothing.
    fn decode(payload: Payload) -> Result<Self, CodecError> {
        match payload.bytes.as_slice() {
            b"" | b"null" | b"{}" => Ok(()),
            other => Err(CodecError::NotEmpty(other.len())),
        }
    }
}

impl<T: Serialize> Encode for Json<T> {
    fn encode(self) -> Result<Payload, CodecError> {
        Ok(Payload { content_type: JSON, bytes: serde_json::to_vec(&self.0)? })
    }
}

impl<T: DeserializeOwned> Decode for Json<T> {
    fn decode(payload: Payload) -> Result<Self, CodecError> {
        Ok(Self(serde_json::from_slice(&payload.bytes)?))
    }
}

impl Encode for serde_json::Value {
    fn encode(self) -> Result<Payload, CodecError> {
        Json(self).encode()
    }
}

impl Decode for serde_json::Value {
    fn decode(payload: Payload) -> Result<Self, CodecError> {
        Json::decode(payload).map(|Json(value)| value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Seat {
        row: u8,
        buyer: Option<String>,
    }

    #[test]
    fn each_kind_of_payload_names_its_media_type() {
        assert_eq!("a".encode().unwrap().content_type, "text/plain; charset=utf-8");
        assert_eq!(vec![1_u8].encode().unwrap().content_type, "application/octet-stream");
        assert_eq!(().encode().unwrap(), Payload::default());
        assert_eq!(Json(1).encode().unwrap(), Payload { content_type: JSON, bytes: b"1".to_vec() });
    }

    #[test]
    fn bytes_of_another_kind_are_refused_with_the_reason() {
        let bytes = |bytes: &[u8]| bytes.encode().unwrap();
        assert!(matches!(String::decode(bytes(&[0xff])), Err(CodecError::Text(_))));
        assert!(matches!(Json::<Seat>::decode(bytes(b"{\"row\":true}")), Err(CodecError::Json(_))));
        assert!(matches!(<()>::decode(bytes(b"x")), Err(CodecError::NotEmpty(1))));
        assert!(<()>::decode(bytes(b"null")).is_ok());
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(text: String, data: Vec<u8>, row: u8, buyer: Option<String>) {
            prop_assert_eq!(&String::decode(text.as_str().encode().unwrap()).unwrap(), &text);
            prop_assert_eq!(&Vec::<u8>::decode(data.as_slice().encode().unwrap()).unwrap(), &data);
            let seat = Seat { row, buyer };
            let payload = Json(&seat).encode().unwrap();
            prop_assert_eq!(Json::<Seat>::decode(payload).unwrap().0, seat);
        }
    }
}
