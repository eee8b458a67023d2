//! The settings of Avro.

use tidegate_shards::auth::check::CheckUrl;

use super::values::Reader;

/// Port of a registry whose setting names none.
const DEFAULT_PORT: u16 = 8081;
const REMEDY: &str = "Use host:port, or a URL such as https://schemas.example:8081";

/// Where the schema registry is, if there is one (`KAFKA_SCHEMA_REGISTRY_HOST`).
pub(super) fn registry(reader: &mut Reader<'_>) -> Option<CheckUrl> {
    reader.word("KAFKA_SERIALIZER", &[("", ()), ("avro", ())]);
    let Some(text) = reader.text("KAFKA_SCHEMA_REGISTRY_HOST") else {
        if is_avro(reader) {
            let wrong = "Avro is written by schemas, and there is no schema registry";
            reader.problem("KAFKA_SERIALIZER", wrong, "Set KAFKA_SCHEMA_REGISTRY_HOST");
        }
        return None;
    };
    match parse(&text) {
        Ok(url) => Some(url),
        Err(wrong) => {
            reader.problem("KAFKA_SCHEMA_REGISTRY_HOST", wrong, REMEDY);
            None
        }
    }
}

/// Whether Kafka gets Avro where there is a schema (`KAFKA_SERIALIZER`).
pub(super) fn is_avro(reader: &Reader<'_>) -> bool {
    reader.text("KAFKA_SERIALIZER").is_some_and(|format| format.eq_ignore_ascii_case("avro"))
}

/// A URL, or a host with or without port.
fn parse(text: &str) -> Result<CheckUrl, String> {
    if text.contains("://") {
        let url = CheckUrl::parse(text)?;
        return if url.path.contains('?') { Err("the URL of a registry has no query".to_owned()) } else { Ok(url) };
    }
    let mut url = CheckUrl::parse(&format!("http://{text}"))?;
    if url.backend.host.is_empty() {
        return Err("there is no host".to_owned());
    }
    let has_port = text.split('/').next().and_then(|host| host.rsplit_once(':')).is_some_and(|(host, port)| {
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && (!host.contains(':') || host.ends_with(']'))
    });
    if !has_port {
        url.backend.port = DEFAULT_PORT;
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_a_host_and_port_or_a_url() {
        for (text, tls, host, port, path) in [
            ("schemas:8082", false, "schemas", 8082, "/"),
            ("schemas", false, "schemas", 8081, "/"),
            ("[::1]:9", false, "::1", 9, "/"),
            ("[::1]", false, "::1", 8081, "/"),
            ("https://schemas.example", true, "schemas.example", 443, "/"),
            ("http://schemas:8081/registry/", false, "schemas", 8081, "/registry/"),
        ] {
            let url = parse(text).unwrap();
            let backend = &url.backend;
            assert_eq!((backend.tls, &*backend.host, backend.port, &*url.path), (tls, host, port, path), "{text}");
        }
        for text in ["a b", "ftp://schemas", "http://u:p@schemas", "http://schemas/?a=1", ":8081"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
