//! The top level of a definition.

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::section::{PRESENT, Section, one_of};
use super::{Definition, DefinitionErrors, Surroundings, backend, endpoints};
use crate::proxy::endpoint::TokenPlace;

/// Where errors of the top level stand.
const API: &str = "api";

/// Reads a whole definition; the result counts only if no error was added.
pub(super) fn compile(
    fields: &Map<String, Value>,
    surroundings: &Surroundings<'_>,
    errors: &mut DefinitionErrors,
) -> Option<Definition> {
    let mut api = Section { place: API, fields, errors };
    let id = api.required_text("id");
    api.required_text("name");
    let backend = api.present_map("proxy").and_then(|proxy| {
        backend::backend(&mut Section { place: API, fields: proxy, errors: api.errors }, surroundings)
    });
    let versions = versions(&mut api);
    let versioned = api.switch("versioned");
    let active = api.get("active").is_none() || api.switch("active");
    let jwt = api.word("auth_type", &["jwt", "none"]) == Some("jwt");
    let auth = api.optional_map("auth");

    let id = id.unwrap_or_default();
    let token = token_place(id, auth, jwt, errors);
    let add_headers = add_headers(versions.get("default").copied(), errors);
    let parts = endpoints::Api {
        id,
        backend: backend.as_ref(),
        token: jwt.then_some(token),
        add_headers: add_headers.as_deref(),
        surroundings,
    };
    let list = versions.get("default").and_then(|version| version.get("endpoints")).and_then(Value::as_array);
    let routes = list.into_iter().flatten().filter_map(|value| endpoints::compile(&parts, value, errors)).collect();
    Some(Definition { id: id.into(), matches: active && !versioned, routes, fields: fields.clone() })
}

/// The versions that are objects; each must have a list of endpoints.
fn versions<'a>(api: &mut Section<'a, '_>) -> Versions<'a> {
    let Some(versions) = api.present_map("version_data") else { return Versions::new() };
    if versions.is_empty() {
        api.error("version_data", "must have at least one version, e.g. default");
    }
    let mut found = Versions::new();
    for (name, version) in versions {
        let Value::Object(version) = version else {
            api.error(name, "must be map");
            continue;
        };
        if !version.get("endpoints").is_some_and(Value::is_array) {
            api.error("endpoints", "must be list");
        }
        found.insert(name.as_str(), version);
    }
    found
}

type Versions<'a> = std::collections::BTreeMap<&'a str, &'a Map<String, Value>>;

/// `auth`: where the token is beside the `authorization` header.
fn token_place(id: &str, auth: Option<&Map<String, Value>>, jwt: bool, errors: &mut DefinitionErrors) -> TokenPlace {
    let Some(fields) = auth else { return TokenPlace::default() };
    let mut auth = Section { place: id, fields, errors };
    let (use_header, use_query) = (auth.switch("use_header"), auth.switch("use_query"));
    let header = if use_header { auth.present_text("header_name") } else { None };
    let query = if use_query { auth.present_text("query_name") } else { None };
    let header = header.and_then(|name| {
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
        if parsed.is_none() {
            auth.error("header_name", "must be the name of a header");
        }
        parsed
    });
    if (use_header || use_query) && !jwt {
        auth.error("auth_type", one_of(&["jwt"]));
    }
    TokenPlace { header, query: query.map(Into::into) }
}

/// Headers that frame a message or belong to one connection: adding them would break it.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// `transform_request_headers.add_headers` of a version; `None` if there is none. `host` is left out, as in RIG.
fn add_headers(
    version: Option<&Map<String, Value>>,
    errors: &mut DefinitionErrors,
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let mut version = Section { place: API, fields: version?, errors };
    let fields = version.optional_map("transform_request_headers")?;
    let mut transform = Section { place: API, fields, errors: version.errors };
    if transform.get("add_headers").is_none() {
        transform.error("add_headers", PRESENT);
    }
    let headers = transform.optional_map("add_headers")?;
    let mut added = Vec::new();
    for (name, value) in headers {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => {
                transform.error("add_headers", format!("{name:?} must be string"));
                continue;
            }
        };
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(text.as_bytes())) {
            (Ok(name), _) if FRAMING.contains(&name.as_str()) => {
                transform.error("add_headers", format!("{name:?} frames the message and can't be set"));
            }
            (Ok(name), Ok(_)) if name == http::header::HOST => {}
            (Ok(name), Ok(value)) => {
                added.retain(|(other, _)| *other != name);
                added.push((name, value));
            }
            (Err(_), _) => transform.error("add_headers", format!("{name:?} must be the name of a header")),
            (_, Err(_)) => transform.error("add_headers", format!("{name:?} must be the value of a header")),
        }
    }
    Some(added)
}
