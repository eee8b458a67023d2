//! The values that extractors find in an event.

use super::{
    EventError, FieldValue,
    walk::{Elements, Members},
};
use crate::{
    extractor::Extractors,
    pointer::{JsonPointer, array_index},
    value::canonicalize,
};

/// Values that one event may have under its extractors; a list counts by its elements. A list of two-byte numbers would
/// otherwise take many times the memory of its body.
pub(super) const MAX_FIELD_VALUES: usize = 65_536;

/// Reads the fields of an event that has been validated. A pointer that leads nowhere finds nothing.
pub(super) fn extract(body: &[u8], event_type: &str, extractors: &Extractors) -> Result<Vec<FieldValue>, EventError> {
    let mut fields = Vec::new();
    let Some(of_type) = extractors.for_type(event_type) else { return Ok(fields) };
    for (position, field) in (0_u16..).zip(of_type.fields()) {
        let Some(value) = field.event_pointer.as_ref().and_then(|pointer| resolve(body, pointer)) else { continue };
        push(&mut fields, position, value);
        for element in Elements::of(value).into_iter().flatten() {
            if fields.len() == MAX_FIELD_VALUES {
                return Err(EventError::TooManyFieldValues { max_values: MAX_FIELD_VALUES });
            }
            push(&mut fields, position, element);
        }
    }
    Ok(fields)
}

fn push(fields: &mut Vec<FieldValue>, position: u16, raw: &[u8]) {
    let mut value = Vec::with_capacity(raw.len());
    // A value without a canonical form equals no constraint, so it is as good as absent.
    if canonicalize(raw, &mut value).is_ok() {
        fields.push(FieldValue { position, value: value.into_boxed_slice() });
    }
}

/// The value that a pointer finds, as written (RFC 6901, section 4; of two members with one key the first).
fn resolve<'a>(body: &'a [u8], pointer: &JsonPointer) -> Option<&'a [u8]> {
    pointer.tokens().iter().try_fold(body.trim_ascii(), |value, token| match value.first()? {
        b'{' => Members::of(value)?.find(|member| member.is(token)).map(|member| member.value),
        b'[' => Elements::of(value)?.nth(array_index(token)?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#" {"a":{"b":[10,{"c":"x"}],"~/":1,"":2,"\u0064":3},"a":"second","s":"text","n":null} "#;

    fn find(pointer: &str) -> Option<&'static str> {
        let pointer = JsonPointer::parse(pointer).expect("a pointer");
        resolve(BODY, &pointer).map(|raw| std::str::from_utf8(raw).expect("UTF-8"))
    }

    fn canonical(raw: &str) -> Box<[u8]> {
        let mut out = Vec::new();
        canonicalize(raw.as_bytes(), &mut out).expect("a value");
        out.into_boxed_slice()
    }

    fn extractors(pointer: &str) -> Extractors {
        let json = format!(r#"{{"t":{{"f":{{"stable_field_index":0,"event":{{"json_pointer":"{pointer}"}}}}}}}}"#);
        Extractors::parse(&json).expect("extractors")
    }

    fn values(body: &str, pointer: &str) -> Vec<Box<[u8]>> {
        let fields = extract(body.as_bytes(), "t", &extractors(pointer)).expect("fields");
        fields.into_iter().map(|field| field.value).collect()
    }

    #[test]
    fn a_pointer_goes_through_objects_and_lists() {
        assert_eq!(find("/a/b/0"), Some("10"));
        assert_eq!(find("/a/b/1/c"), Some(r#""x""#));
        assert_eq!(find("/a/~0~1"), Some("1"));
        assert_eq!(find("/a/"), Some("2"));
        assert_eq!(find("/a/d"), Some("3"));
        assert_eq!(find("").map(|whole| whole.len()), Some(BODY.len() - 2));
    }

    #[test]
    fn a_pointer_that_leads_nowhere_finds_nothing() {
        for pointer in [
            "/s/x",
            "/n/x",
            "/a/b/c",
            "/a/b/2",
            "/a/b/01",
            "/a/b/-",
            "/a/b/0/x",
            "/zzz",
            "/s/0",
            "/a/b/99999999999999999999",
        ] {
            assert_eq!(find(pointer), None, "{pointer}");
        }
    }

    #[test]
    fn a_list_gives_itself_and_its_elements() {
        assert_eq!(
            values(r#"{"x":[1,"a",[2]]}"#, "/x"),
            [canonical(r#"[1,"a",[2]]"#), canonical("1"), canonical(r#""a""#), canonical("[2]")]
        );
        assert_eq!(values(r#"{"x":[]}"#, "/x"), [canonical("[]")]);
    }

    #[test]
    fn a_null_is_a_value_and_an_absent_field_is_not() {
        assert_eq!(values(r#"{"x":null}"#, "/x"), [canonical("null")]);
        assert_eq!(values(r#"{"y":null}"#, "/x"), Vec::<Box<[u8]>>::new());
    }

    #[test]
    fn a_list_with_too_many_elements_is_refused() {
        let body = format!(r#"{{"x":[{}0]}}"#, "0,".repeat(MAX_FIELD_VALUES));
        let refused = extract(body.as_bytes(), "t", &extractors("/x"));
        assert_eq!(refused.err(), Some(EventError::TooManyFieldValues { max_values: MAX_FIELD_VALUES }));
    }
}
