//! The `prefer` header (RFC 7240): does a caller want to wait for its answer?

use http::HeaderMap;

/// What a caller prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preference {
    /// `respond-async` (section 4.1): rather a 202 at once than a wait.
    pub respond_async: bool,
    /// `wait` (section 4.3), in milliseconds.
    pub wait_ms: Option<u64>,
}

impl Preference {
    /// Reads all `prefer` fields. What isn't understood is ignored, and the first of two that contradict counts (section 2).
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        let mut preference = Self::default();
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for token in values.flat_map(|value| value.split(',')) {
            let token = token.split(';').next().unwrap_or_default();
            let (name, value) = token.split_once('=').map_or((token, ""), |(name, value)| (name, value));
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name.eq_ignore_ascii_case("respond-async") {
                preference.respond_async = true;
            } else if name.eq_ignore_ascii_case("wait") && preference.wait_ms.is_none() {
                preference.wait_ms = value.parse::<u32>().ok().map(|seconds| u64::from(seconds) * 1_000);
            }
        }
        preference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static str]) -> Preference {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", http::HeaderValue::from_static(value));
        }
        Preference::read(&headers)
    }

    #[test]
    fn both_preferences_are_read_from_one_field_or_several() {
        let both = Preference { respond_async: true, wait_ms: Some(10_000) };
        assert_eq!(read(&["respond-async, wait=10"]), both);
        assert_eq!(read(&["Respond-Async", "WAIT = \"10\"; x=y"]), both);
        assert_eq!(read(&["wait=3, wait=9"]).wait_ms, Some(3_000));
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        assert_eq!(read(&[]), Preference::default());
        for other in ["return=minimal", "wait", "wait=x", "wait=-1", "wait=99999999999", ",,", "respond-asyncs"] {
            assert_eq!(read(&[other]), Preference::default(), "{other}");
        }
    }
}
