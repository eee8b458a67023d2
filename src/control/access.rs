//! Who may call the internal port: those who know its token, where there is one (RFC 6750).

use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::router::json;

/// Shorter tokens could be guessed.
pub const MIN_TOKEN_CHARACTERS: usize = 16;

/// The rule.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// SHA-256 of the token: of one length, so that comparing tells nothing about the token's.
    token: Option<[u8; 32]>,
    open_health: bool,
}

impl Access {
    /// Without `token` everybody may call. With `open_health` everybody may ask for `/health`.
    #[must_use]
    pub fn new(token: Option<&str>, open_health: bool) -> Self {
        Self { token: token.map(|token| Sha256::digest(token).into()), open_health }
    }

    /// Is a token asked for?
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.token.is_some()
    }

    /// The answer to a call that isn't allowed.
    pub(super) fn refuse(&self, path: &str, headers: &HeaderMap) -> Option<Response> {
        let token = self.token.as_ref()?;
        if self.open_health && path == "/health" {
            return None;
        }
        let mut given = headers.get_all(AUTHORIZATION).iter().filter_map(bearer);
        if given.any(|given| bool::from(Sha256::digest(given).ct_eq(token))) {
            return None;
        }
        let mut answer = json(StatusCode::UNAUTHORIZED, r#"{"errors":{"detail":"Unauthorized"}}"#);
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Some(answer)
    }
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_let_in(access: &Access, path: &str, authorization: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        match access.refuse(path, &headers) {
            None => true,
            Some(answer) => {
                assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
                assert_eq!(answer.headers()[WWW_AUTHENTICATE], "Bearer");
                false
            }
        }
    }

    #[test]
    fn only_the_whole_token_opens_the_door() {
        let access = Access::new(Some("correct-horse-battery"), true);
        assert!(is_let_in(&access, "/metrics", &["Bearer correct-horse-battery"]));
        assert!(is_let_in(&access, "/metrics", &["bearer  correct-horse-battery "]));
        assert!(is_let_in(&access, "/metrics", &["Basic eDp5", "Bearer correct-horse-battery"]));
        for wrong in ["Bearer correct-horse-batter", "Bearer correct-horse-batteryx", "Bearer ", "Bearer", ""] {
            assert!(!is_let_in(&access, "/metrics", &[wrong]), "{wrong:?}");
        }
        assert!(!is_let_in(&access, "/metrics", &["Basic correct-horse-battery"]));
        assert!(!is_let_in(&access, "/metrics", &[]));
    }

    #[test]
    fn health_may_stay_open_and_without_a_token_everything_is() {
        assert!(is_let_in(&Access::new(Some("correct-horse-battery"), true), "/health", &[]));
        assert!(!is_let_in(&Access::new(Some("correct-horse-battery"), false), "/health", &[]));
        assert!(is_let_in(&Access::new(None, false), "/v3/apis", &[]));
    }
}
