//! The one form of a path that is matched and sent (RFC 3986, section 6.2.2): whoever spells a path in another way gets to
//! the same endpoint, so nobody walks round a secured one.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::query::is_well_encoded;

/// First segments of Tidegate's own calls, which are never the proxy's.
pub const OWN_SEGMENTS: [&str; 2] = ["_rig", "_tidegate"];

/// Resolves dot segments, drops empty ones, and decodes percent-encoded unreserved characters (letters, digits, `-._~`);
/// every other percent-encoding stays as it was. The result begins with a slash, and ends with one if `path` did.
///
/// `None` for a path that has no safe form: broken percent-encoding, or a segment that a backend could take for a way
/// out (`..%2f`, `..\`, `..;x`).
#[must_use]
pub fn normalize(path: &str) -> Option<Cow<'_, str>> {
    if is_normal(path) {
        return Some(Cow::Borrowed(path));
    }
    if !is_well_encoded(path.as_bytes()) {
        return None;
    }
    let decoded = decode_unreserved(path);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment if hides_dots(segment) => return None,
            segment => segments.push(segment),
        }
    }
    let ends_open = matches!(decoded.rsplit('/').next(), Some("" | "." | ".."));
    let mut normal = String::with_capacity(decoded.len() + 1);
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if normal.is_empty() || ends_open {
        normal.push('/');
    }
    Some(Cow::Owned(normal))
}

/// Whether a normalised path is one of Tidegate's own, or could become one.
#[must_use]
pub fn is_own(normal: &str) -> bool {
    let first = normal.trim_start_matches('/').split('/').next().unwrap_or_default();
    OWN_SEGMENTS.contains(&first)
}

/// Cheap and on the safe side: a path without anything that could need work.
fn is_normal(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.first() == Some(&b'/')
        && memchr::memchr3(b'%', b'\\', b';', bytes).is_none()
        && memchr::memchr_iter(b'/', bytes).all(|at| !matches!(bytes.get(at + 1), Some(b'/' | b'.')))
}

fn decode_unreserved(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    let unreserved = |at: usize| {
        let byte = hex(*bytes.get(at + 1)?)? << 4 | hex(*bytes.get(at + 2)?)?;
        (byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)).then_some(char::from(byte))
    };
    let mut decoded = String::new();
    let mut copied = 0;
    for at in memchr::memchr_iter(b'%', bytes) {
        if let Some(character) = unreserved(at) {
            decoded.push_str(&path[copied..at]);
            decoded.push(character);
            copied = at + 3;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(path);
    }
    decoded.push_str(&path[copied..]);
    Cow::Owned(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Whether a backend that decodes slashes, takes backslashes for them, or cuts path parameters off would find a dot
/// segment in it.
fn hides_dots(segment: &str) -> bool {
    if !segment.contains(['%', '\\', ';']) {
        return false;
    }
    let decoded: Vec<u8> = percent_decode_str(segment).collect();
    let mut pieces = decoded.split(|byte| matches!(byte, b'/' | b'\\'));
    pieces.any(|piece| {
        let name = piece.split(|byte| *byte == b';').next().unwrap_or_default();
        matches!(name, b"." | b"..")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(path: &str) -> String {
        normalize(path).expect("a safe path").into_owned()
    }

    #[test]
    fn dot_segments_and_empty_ones_are_resolved() {
        for (path, expected) in [
            ("/", "/"),
            ("", "/"),
            ("*", "/*"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/.hidden/..b/c..", "/.hidden/..b/c.."),
        ] {
            assert_eq!(normal(path), expected, "{path}");
        }
    }

    #[test]
    fn encoded_dots_are_dots_and_encoded_letters_letters() {
        assert_eq!(normal("/a/%2e%2E/b"), "/b");
        assert_eq!(normal("/a/.%2e/b/%2e"), "/b/");
        assert_eq!(normal("/%61dmin/%7Ex"), "/admin/~x");
    }

    #[test]
    fn every_other_encoding_stays_as_it_was() {
        assert_eq!(normal("/a%2Fb/%c3%A4/%20%3f"), "/a%2Fb/%c3%A4/%20%3f");
        assert_eq!(normal("/%252e%252e/x"), "/%252e%252e/x");
    }

    #[test]
    fn hidden_ways_out_have_no_safe_form() {
        for path in ["/a/..%2fb", "/a/%2e%2e%2Fb", "/a/..;x/b", "/a/..%5cb", "/a/b%2f..", "/a/..%3bx", "/a%", "/%zz"] {
            assert_eq!(normalize(path), None, "{path}");
        }
        assert!(normalize("/a;x=1/b%2fc").is_some());
    }

    #[test]
    fn own_paths_are_told_from_those_that_look_like_them() {
        for path in ["/_rig", "/_rig/health", "/_tidegate/x"] {
            assert!(is_own(path), "{path}");
        }
        for path in ["/", "/_rigging", "/a/_rig/health", "/_RIG/x"] {
            assert!(!is_own(path), "{path}");
        }
        assert!(is_own(&normal("//a/../%5frig/./health")));
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing_and_no_dot_segment_is_left(
            path in "(/|\\.|%2e|%2E|%2f|%5c|;|\\\\|a|%61|%25|%|ä|_rig){0,20}"
        ) {
            if let Some(once) = normalize(&path) {
                let twice = normalize(&once);
                prop_assert_eq!(twice.as_deref(), Some(&*once));
                prop_assert!(once.starts_with('/') && !once.contains("//"));
                let decoded: Vec<u8> = percent_decode_str(&once).collect();
                let mut pieces = decoded.split(|byte| matches!(byte, b'/' | b'\\'));
                prop_assert!(!pieces.any(|piece| matches!(piece, b"." | b"..")), "{}", once);
            }
        }

        #[test]
        fn no_path_makes_it_panic(path in ".*") {
            let _ = normalize(&path);
        }
    }
}
