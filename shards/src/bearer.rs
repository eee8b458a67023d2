//! What the tokens of one request give: subscriptions, and the identity of a connection.

use serde_json::{Map, Value};

use crate::claims;
use crate::extractor::Extractors;
use crate::sessions::Fingerprint;
use crate::shard::identity::Identity;
use crate::subscription::Subscription;

/// What a verified token says.
#[derive(Clone, Copy, Debug)]
pub struct TokenFacts<'a> {
    /// Its session (`JWT_SESSION_FIELD`).
    pub session: Option<&'a str>,
    /// Its `exp`, in seconds since 1970.
    pub expires_at_s: u64,
    /// Its claims.
    pub claims: &'a Map<String, Value>,
}

/// What the tokens of one request give together; the default is nobody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bearer {
    /// The automatic subscriptions, sorted by type.
    pub automatic: Vec<Subscription>,
    /// Whose connection it is.
    pub identity: Identity,
    /// There was a valid token.
    pub is_known: bool,
}

impl Bearer {
    /// Unites tokens: of a claim that several have, that of the first counts; the earliest `exp` does, if connections
    /// `end_at_expiry`.
    #[must_use]
    pub fn of(tokens: &[TokenFacts<'_>], extractors: &Extractors, end_at_expiry: bool) -> Self {
        let mut sessions: Vec<Fingerprint> =
            tokens.iter().filter_map(|token| token.session).map(Fingerprint::of).collect();
        sessions.sort_unstable();
        sessions.dedup();
        let expires_at_s = tokens.iter().map(|token| token.expires_at_s).min().filter(|_| end_at_expiry);
        let automatic = match tokens {
            [] => Vec::new(),
            [token] => claims::automatic(token.claims, extractors),
            several => {
                let mut united = Map::new();
                for (name, claim) in several.iter().flat_map(|token| token.claims) {
                    united.entry(name).or_insert_with(|| claim.clone());
                }
                claims::automatic(&united, extractors)
            }
        };
        Self { automatic, identity: Identity { sessions, expires_at_s }, is_known: !tokens.is_empty() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::subscription::echo;

    fn extractors() -> Extractors {
        Extractors::parse(
            r#"{"message": {
                "user": {"stable_field_index": 1, "jwt": {"json_pointer": "/user"}, "event": {"json_pointer": "/data/u"}},
                "team": {"stable_field_index": 2, "jwt": {"json_pointer": "/team"}, "event": {"json_pointer": "/data/t"}}}}"#,
        )
        .unwrap()
    }

    fn claims(json: Value) -> Map<String, Value> {
        json.as_object().cloned().unwrap()
    }

    #[test]
    fn without_a_token_there_is_nobody() {
        assert_eq!(Bearer::of(&[], &extractors(), true), Bearer::default());
    }

    #[test]
    fn of_several_tokens_the_first_claim_and_the_earliest_end_count() {
        let (first, second) = (claims(json!({"user": "u1", "exp": 9})), claims(json!({"user": "u2", "team": "t"})));
        let tokens = [
            TokenFacts { session: Some("s1"), expires_at_s: 9, claims: &first },
            TokenFacts { session: Some("s2"), expires_at_s: 7, claims: &second },
            TokenFacts { session: None, expires_at_s: 8, claims: &second },
        ];
        let bearer = Bearer::of(&tokens, &extractors(), true);
        assert_eq!(echo(&bearer.automatic), r#"[{"eventType":"message","oneOf":[{"team":"t","user":"u1"}]}]"#);
        let mut sessions = [Fingerprint::of("s1"), Fingerprint::of("s2")];
        sessions.sort();
        assert_eq!(bearer.identity, Identity { sessions: sessions.to_vec(), expires_at_s: Some(7) });
        assert_eq!(Bearer::of(&tokens, &extractors(), false).identity.expires_at_s, None);
    }
}
