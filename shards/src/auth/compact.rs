//! The compact form of a signed token (RFC 7515 section 3.1), taken apart within limits and without trust.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::TokenRefusal;

/// Bytes of the longest token; request heads hold no more than twice as much.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Depth of arrays and objects in the header and in the claims.
pub const MAX_DEPTH: usize = 32;
/// Bytes of the longest signature (RSA with 8,192 bits).
const MAX_SIGNATURE_BYTES: usize = 1024;

/// A token taken apart. Nothing in here is to be believed before the signature is verified.
#[derive(Debug)]
pub struct Compact<'a> {
    /// The bytes that are signed.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: Vec<u8>,
    /// `alg` of the header, as sent.
    pub algorithm: String,
    /// `kid` of the header: the key that shall have signed it.
    pub key_id: Option<String>,
    /// The claims.
    pub claims: Map<String, Value>,
}

/// What counts of a header. Members that occur twice are refused.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Names extensions that must be understood (RFC 7515 section 4.1.11); none is.
    crit: Option<IgnoredAny>,
    /// The payload isn't encoded (RFC 7797), which only means something beside `crit`.
    b64: Option<IgnoredAny>,
}

impl<'a> Compact<'a> {
    /// Takes a token apart. Length and depth are looked at before anything is parsed.
    ///
    /// # Errors
    /// [`TokenRefusal::Oversized`], [`TokenRefusal::TooDeep`], [`TokenRefusal::Malformed`]; [`TokenRefusal::Signature`] for an
    /// empty signature.
    pub fn parse(token: &'a str) -> Result<Self, TokenRefusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRefusal::Oversized);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenRefusal::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenRefusal::Malformed)?;
        if claims.contains('.') {
            return Err(TokenRefusal::Malformed);
        }
        let header: Header = json(header)?;
        if header.crit.is_some() || header.b64.is_some() {
            return Err(TokenRefusal::Malformed);
        }
        if signature.is_empty() {
            return Err(TokenRefusal::Signature);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenRefusal::Malformed)?;
        if signature.len() > MAX_SIGNATURE_BYTES {
            return Err(TokenRefusal::Signature);
        }
        let claims = json(claims)?;
        Ok(Self { signed: signed.as_bytes(), signature, algorithm: header.alg, key_id: header.kid, claims })
    }
}

fn json<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, TokenRefusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenRefusal::Malformed)?;
    if !is_shallow(&bytes) {
        return Err(TokenRefusal::TooDeep);
    }
    serde_json::from_slice(&bytes).map_err(|_| TokenRefusal::Malformed)
}

/// Whether brackets outside of texts nest no deeper than [`MAX_DEPTH`].
fn is_shallow(json: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return false;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(header: &str, claims: &str, signature: &str) -> String {
        [header, claims, signature].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
    }

    fn refusal(token: &str) -> TokenRefusal {
        Compact::parse(token).expect_err("it is refused")
    }

    const HEADER: &str = r#"{"alg":"HS256","typ":"JWT","kid":"7"}"#;

    #[test]
    fn a_token_is_taken_apart() {
        let text = token(HEADER, r#"{"exp":5}"#, "sig");
        let compact = Compact::parse(&text).unwrap();
        assert_eq!((compact.algorithm.as_str(), compact.key_id.as_deref()), ("HS256", Some("7")));
        assert_eq!(compact.signature, b"sig");
        assert_eq!(compact.claims["exp"], 5);
        assert_eq!(compact.signed, text.rsplit_once('.').unwrap().0.as_bytes());
    }

    #[test]
    fn what_is_no_signed_token_is_malformed() {
        let padded =
            format!("{}=.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"} "#), URL_SAFE_NO_PAD.encode("{}"));
        for text in [
            "",
            ".",
            "..",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            "a.b.c.d.e",
            &token("[]", "{}", "s"),
            &token("{}", "{}", "s"),
            &token(r#"{"alg":5}"#, "{}", "s"),
            &token(r#"{"alg":"HS256","alg":"none"}"#, "{}", "s"),
            &token(r#"{"alg":"HS256","kid":{"a":1}}"#, "{}", "s"),
            &token(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, "{}", "s"),
            &token(r#"{"alg":"HS256","b64":true}"#, "{}", "s"),
            &token(HEADER, "[]", "s"),
            &token(HEADER, "5", "s"),
            &token(HEADER, "{} x", "s"),
            &token(HEADER, "{\"a\":\"\u{1}\"}", "s"),
            &padded,
        ] {
            assert_eq!(refusal(text), TokenRefusal::Malformed, "{text}");
        }
    }

    #[test]
    fn a_token_without_its_signature_is_refused() {
        let whole = token(HEADER, "{}", "sig");
        let stripped = &whole[..=whole.rfind('.').unwrap()];
        assert_eq!(refusal(stripped), TokenRefusal::Signature);
        assert_eq!(refusal(stripped.trim_end_matches('.')), TokenRefusal::Malformed);
    }

    #[test]
    fn an_oversized_token_is_refused_before_it_is_looked_into() {
        assert_eq!(refusal(&"x".repeat(MAX_TOKEN_BYTES + 1)), TokenRefusal::Oversized);
        assert_eq!(refusal(&"x".repeat(MAX_TOKEN_BYTES)), TokenRefusal::Malformed);
    }

    #[test]
    fn a_deeply_nested_token_is_refused_before_it_is_parsed() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert_eq!(refusal(&token(HEADER, &nested(MAX_DEPTH + 1), "s")), TokenRefusal::TooDeep);
        assert_eq!(refusal(&token(&nested(MAX_DEPTH + 1), "{}", "s")), TokenRefusal::TooDeep);
        assert!(Compact::parse(&token(HEADER, &nested(MAX_DEPTH), "s")).is_ok());
        let in_text = format!(r#"{{"a":"{}\"{}"}}"#, "[".repeat(100), "{".repeat(100));
        assert!(Compact::parse(&token(HEADER, &in_text, "s")).is_ok(), "brackets in texts don't count");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = Compact::parse(&text);
        }

        #[test]
        fn no_parts_make_it_panic(header in ".{0,80}", claims in ".{0,80}", signature in ".{0,40}") {
            let _ = Compact::parse(&token(&header, &claims, &signature));
        }
    }
}
