//! API definitions, paths, and how they meet.
//!
//! The input is up to three texts with NUL bytes between them: a definition, a regex for an endpoint of its own, a path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tidegate_shards::proxy::counts::RequestCounters;
use tidegate_shards::proxy::definition::{Definition, Surroundings};
use tidegate_shards::proxy::path::{is_own, normalize};
use tidegate_shards::proxy::table::ApiTable;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |&byte| byte == 0).map(|part| std::str::from_utf8(part).unwrap_or_default());
    let mut next = || parts.next().unwrap_or_default();
    let (definition, path_regex, path) = (next(), next(), next());
    let surroundings = Surroundings { environment: &|_| None, avro: definition.len() % 2 == 1 };

    let value: Value = serde_json::from_str(definition).unwrap_or_default();
    match Definition::parse(&value, &surroundings) {
        Ok(parsed) => assert_eq!(Value::Object(parsed.fields), value, "a definition is kept as it was given"),
        Err(errors) => assert!(!errors.is_empty(), "refused without a reason"),
    }
    if let Some(normal) = normalize(path) {
        assert_eq!(normalize(&normal).as_deref(), Some(&*normal), "a normal path is normal");
        assert!(!normal.split('/').any(|segment| matches!(segment, "." | "..")));
    }
    let own = json!({
        "id": "x", "name": "x", "proxy": { "target_url": "localhost", "port": 1 },
        "version_data": { "default": { "endpoints": [{ "id": "e", "method": "GET", "path_regex": path_regex }] } },
    });
    let Ok(parsed) = Definition::parse(&own, &surroundings) else { return };
    let regex = parsed.routes[0].regex.clone();
    let Ok(table) = ApiTable::new(parsed.routes, &mut RequestCounters::new(1)) else { return };
    let found = table.find(&http::Method::GET, path);
    let normal = normalize(path);
    let matches = normal.as_ref().is_some_and(|normal| !is_own(normal) && regex.is_match(normal));
    assert_eq!(found.is_some(), matches, "the table finds what the regex matches");
    assert_eq!(found.map(|found| found.path), normal.filter(|_| matches).map(Into::into), "what was matched is sent");
});
