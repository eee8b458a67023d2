//! Settings of tokens: who issues them, with which keys, and where they are needed.

use std::sync::Arc;

use serde::Deserialize;
use tidegate_shards::auth::algorithm::{Algorithm, Algorithms};
use tidegate_shards::auth::check::{Check, CheckUrl};
use tidegate_shards::auth::key::{Key, Material};
use tidegate_shards::auth::settings::{Issuer, TokenSettings};
use tidegate_shards::auth::{jwk, pem};
use tidegate_shards::pointer::JsonPointer;

use super::values::Reader;
use super::{MAX_BYTES, MAX_TIMEOUT_MS};

/// How tokens are verified, as a node is told at start.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// What the shards are told.
    pub settings: TokenSettings,
    /// Keys that come over the network.
    pub remote: Vec<RemoteKeys>,
    /// Time between two looks at them, in milliseconds (`JWT_JWKS_REFRESH_SECONDS`).
    pub refresh_ms: u64,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// A set of keys behind a URL.
#[derive(Clone, Debug)]
pub struct RemoteKeys {
    /// The issuer that they belong to, by its place in the list.
    pub issuer: usize,
    /// Where they are.
    pub url: CheckUrl,
    /// The URL as configured, for logs and metrics.
    pub name: String,
    /// What they may be used for; none says: for the usual algorithm of each.
    pub allowed: Algorithms,
    /// Keys of the same issuer that come from elsewhere.
    pub own: Arc<[Key]>,
}

/// One entry of `JWT_ISSUERS`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    issuer: Option<String>,
    #[serde(default)]
    audience: OneOrMany,
    #[serde(default)]
    algorithms: OneOrMany,
    secret: Option<String>,
    #[serde(default)]
    keys: OneOrMany,
    jwks: Option<String>,
}

/// A text, or a list of texts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// Said of definitions with secured endpoints where no token can be verified.
pub(super) const SECURED_WITHOUT_KEY: &str = "secured endpoints answer 401 to every call: there is no key (JWT_SECRET_KEY, JWT_KEY_FILES, JWT_JWKS, JWT_ISSUERS)";

/// Secrets shorter than the hash of the shortest algorithm can be found by trying (RFC 7518 section 3.2).
const SHORT_SECRET_BYTES: usize = 32;

/// Reads and validates them.
pub(super) fn tokens(reader: &mut Reader<'_>) -> TokenConfig {
    let session_field = JsonPointer::parse(&reader.text("JWT_SESSION_FIELD").unwrap_or_default());
    let session_field = session_field.ok().filter(|pointer| !pointer.tokens().is_empty());
    if session_field.is_none() {
        reader.problem("JWT_SESSION_FIELD", "not a JSON pointer", "Use a pointer such as /jti");
    }
    let mut building = Building { issuers: Vec::new(), remote: Vec::new(), warnings: Vec::new() };
    let own = own_entry(reader);
    building.add(reader, "JWT_SECRET_KEY", &own);
    for entry in entries(reader) {
        building.add(reader, "JWT_ISSUERS", &entry);
    }
    let cookie = reader.text("JWT_COOKIE");
    if cookie
        .as_deref()
        .is_some_and(|name| name.bytes().any(|byte| !byte.is_ascii_graphic() || b"=;,\"".contains(&byte)))
    {
        reader.problem("JWT_COOKIE", "not the name of a cookie", "Use a name such as token");
    }
    let defaults = TokenSettings::default();
    let settings = TokenSettings {
        issuers: building.issuers,
        session_field: session_field.unwrap_or(defaults.session_field),
        leeway_s: reader.number("JWT_LEEWAY_SECONDS", 0..=3_600),
        cache_bytes: reader.size("JWT_CACHE_BYTES", 0..=MAX_BYTES),
        cookie: cookie.map(Into::into),
        subscription_check: check(reader, "SUBSCRIPTION_CHECK"),
        submission_check: check(reader, "SUBMISSION_CHECK"),
        check_timeout_ms: reader.number("CHECK_TIMEOUT_MS", 1..=MAX_TIMEOUT_MS),
        check_cache_ms: reader.number("CHECK_CACHE_MS", 0..=MAX_TIMEOUT_MS),
    };
    let refresh_ms = reader.number("JWT_JWKS_REFRESH_SECONDS", 1..=MAX_TIMEOUT_MS / 1_000) * 1_000;
    let mut warnings = building.warnings;
    let checks = [&settings.subscription_check, &settings.submission_check];
    if settings.issuers.is_empty() && checks.contains(&&Check::Token) {
        warnings.push(
            "jwt_validation without a key refuses everybody: set JWT_SECRET_KEY, JWT_JWKS or JWT_ISSUERS".to_owned(),
        );
    }
    TokenConfig { settings, remote: building.remote, refresh_ms, warnings }
}

fn check(reader: &mut Reader<'_>, variable: &'static str) -> Check {
    Check::parse(&reader.text(variable).unwrap_or_default()).unwrap_or_else(|wrong| {
        reader.problem(variable, wrong, "Use no_check, jwt_validation or a URL");
        Check::Nobody
    })
}

/// The issuer that settings of their own describe. The default of `JWT_ALG` is for the secret alone: keys in files and
/// sets are for the usual algorithm of their kind.
fn own_entry(reader: &Reader<'_>) -> Entry {
    let algorithms = if reader.values().is_set("JWT_ALG") { reader.list("JWT_ALG") } else { Vec::new() };
    Entry {
        issuer: reader.text("JWT_ISSUER"),
        audience: OneOrMany::Many(reader.list("JWT_AUDIENCE")),
        algorithms: OneOrMany::Many(algorithms),
        secret: reader.text("JWT_SECRET_KEY"),
        keys: OneOrMany::Many(reader.list("JWT_KEY_FILES")),
        jwks: reader.text("JWT_JWKS"),
    }
}

fn entries(reader: &mut Reader<'_>) -> Vec<Entry> {
    const REMEDY: &str = "Give a list of issuers as JSON, or the path of a file that holds one; see docs/operations.md";
    let Some(text) = reader.text("JWT_ISSUERS") else { return Vec::new() };
    let read = super::json_or_file(&text).and_then(|json| {
        serde_json::from_str(&json).map_err(|error| format!("not a list of issuers ({})", told(&error)))
    });
    read.unwrap_or_else(|wrong| {
        reader.problem("JWT_ISSUERS", wrong, REMEDY);
        Vec::new()
    })
}

/// What is wrong with JSON that may hold secrets: only messages that name members, not values, are told in full.
fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if ["unknown field", "missing field", "duplicate field"].iter().any(|start| text.starts_with(start)) {
        return text;
    }
    format!("at line {}, column {}", error.line(), error.column())
}

struct Building {
    issuers: Vec<Issuer>,
    remote: Vec<RemoteKeys>,
    warnings: Vec<String>,
}

impl Building {
    /// Adds an issuer, unless it has no keys at all.
    fn add(&mut self, reader: &mut Reader<'_>, variable: &'static str, entry: &Entry) {
        let mut allowed = Vec::new();
        for name in entry.algorithms.texts() {
            let place = if variable == "JWT_SECRET_KEY" { "JWT_ALG" } else { variable };
            match Algorithm::configured(name) {
                Ok(algorithm) => allowed.push(algorithm),
                Err(wrong) => reader.problem(place, wrong, "Name algorithms that the keys are for"),
            }
        }
        let allowed: Algorithms = allowed.into_iter().collect();
        let mut keys = Vec::new();
        let is_own = variable == "JWT_SECRET_KEY";
        if let Some(secret) = &entry.secret {
            let by_default = is_own && entry.algorithms.texts().is_empty();
            let allowed = if by_default { Algorithm::Hs256.into() } else { allowed };
            keys.extend(self.secret(reader, variable, secret, allowed));
        }
        for path in entry.keys.texts() {
            let place = if is_own { "JWT_KEY_FILES" } else { variable };
            let read = std::fs::read_to_string(path).map_err(|error| format!("{path:?} can't be read ({error})"));
            let of_file = read.and_then(|text| {
                let materials = pem::read(&text).map_err(|error| format!("{path:?} holds {error}"))?;
                let made = materials.into_iter().map(|material| Key::new(None, material, allowed));
                made.collect::<Result<Vec<_>, _>>().map_err(|error| format!("{path:?} holds {error}"))
            });
            match of_file {
                Ok(of_file) => keys.extend(of_file),
                Err(wrong) => reader.problem(place, wrong, "Give files with PEM public keys or certificates"),
            }
        }
        let place = if is_own { "JWT_JWKS" } else { variable };
        let jwks = entry.jwks.as_deref();
        if let Some(path) = jwks.filter(|jwks| !jwks.contains("://")) {
            let read = std::fs::read(path).map_err(|error| format!("{path:?} can't be read ({error})"));
            let set = read
                .and_then(|json| jwk::read(&json, allowed, true).map_err(|error| format!("{path:?} holds {error}")));
            match set {
                Ok(set) => {
                    if let Some((count, first)) = set.unusable {
                        self.warnings
                            .push(format!("{place}: {count} keys in {path:?} are not used, the first is {first}"));
                    }
                    keys.extend(set.keys);
                }
                Err(wrong) => reader.problem(place, wrong, "Give a JSON Web Key Set (RFC 7517), as a path or a URL"),
            }
        }
        let issuer = self.issuers.len();
        let own: Arc<[Key]> = keys.into();
        let mut refresh = None;
        if let Some(url) = jwks.filter(|jwks| jwks.contains("://")) {
            match CheckUrl::parse(url) {
                Ok(parsed) => {
                    let name = url.to_owned();
                    self.remote.push(RemoteKeys { issuer, url: parsed, name, allowed, own: Arc::clone(&own) });
                    refresh = Some(());
                }
                Err(wrong) => reader.problem(place, wrong, "Give a JSON Web Key Set (RFC 7517), as a path or a URL"),
            }
        }
        if own.is_empty() && refresh.is_none() {
            if !is_own {
                reader.problem(variable, "an issuer without a key", "Give it a secret, keys or jwks");
            }
            return;
        }
        let audiences = entry.audience.texts().iter().map(|text| text.as_str().into()).collect();
        self.issuers.push(Issuer {
            name: entry.issuer.as_deref().map(Into::into),
            audiences,
            keys: own,
            refresh: None,
        });
    }

    /// A shared secret, or public keys in its place.
    fn secret(
        &mut self,
        reader: &mut Reader<'_>,
        variable: &'static str,
        secret: &str,
        allowed: Algorithms,
    ) -> Vec<Key> {
        let is_pem = secret.contains("-----BEGIN");
        let symmetric: Algorithms = allowed.iter().filter(|algorithm| algorithm.is_symmetric()).collect();
        if !is_pem && symmetric.is_empty() && !allowed.is_empty() {
            let wrong = "JWT_ALG names an algorithm that needs a PEM public key, and this is none";
            reader.problem(variable, wrong, "Put the PEM text here, or use HS256, HS384 or HS512");
            return Vec::new();
        }
        if is_pem && allowed == symmetric && !allowed.is_empty() {
            // Everybody knows a public key: as a secret it would let everybody in.
            let wrong = "a public key, but its algorithm is one of a shared secret";
            reader.problem(variable, wrong, "Name the algorithm of the key in JWT_ALG, such as RS256");
            return Vec::new();
        }
        let materials =
            if is_pem { pem::read(secret) } else { Material::secret(secret.as_bytes()).map(|key| vec![key]) };
        let keys = materials.and_then(|materials| {
            materials.into_iter().map(|material| Key::new(None, material, allowed)).collect::<Result<Vec<_>, _>>()
        });
        if !is_pem && secret.len() < SHORT_SECRET_BYTES {
            self.warnings.push(format!(
                "{variable}: a secret of fewer than {SHORT_SECRET_BYTES} bytes can be found by trying; use a longer one"
            ));
        }
        keys.unwrap_or_else(|error| {
            reader.problem(variable, error.to_string(), "Give a shared secret, or PEM public keys");
            Vec::new()
        })
    }
}
