use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::proxy::definition::{Definition, Surroundings};

/// A table of one API with these endpoints: id, method, regex, replacement.
fn table(endpoints: &[(&str, &str, &str, Option<&str>)]) -> ApiTable {
    table_of(&[("api", endpoints)])
}

type Endpoints<'a> = &'a [(&'a str, &'a str, &'a str, Option<&'a str>)];

fn table_of(apis: &[(&str, Endpoints<'_>)]) -> ApiTable {
    let routes = apis.iter().flat_map(|(id, endpoints)| {
        let endpoint = |(id, method, regex, replacement): &(&str, &str, &str, Option<&str>)| {
            json!({ "id": id, "method": method, "path_regex": regex, "path_replacement": replacement })
        };
        let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
        let definition = json!({
            "id": id, "name": id, "proxy": { "target_url": "localhost", "port": 1 },
            "version_data": { "default": { "endpoints": endpoints } },
        });
        let surroundings = Surroundings { environment: &|_| None, avro: false };
        Definition::parse(&definition, &surroundings).expect("a valid definition").routes
    });
    ApiTable::new(routes.collect(), &mut RequestCounters::new(1)).expect("it compiles")
}

fn find(table: &ApiTable, method: Method, path: &str) -> Option<(String, String)> {
    table.find(&method, path).map(|found| (found.endpoint.id.to_string(), found.path))
}

fn found(id: &str, path: &str) -> Option<(String, String)> {
    Some((id.to_owned(), path.to_owned()))
}

#[test]
fn the_first_endpoint_that_matches_counts_and_the_others_are_told() {
    let table = table_of(&[
        ("a", &[("1", "GET", "/x/.*", None), ("2", "GET", "/x/y", None), ("3", "POST", "/x/y", None)]),
        ("b", &[("4", "GET", "/x/y", None), ("5", "GET", "/z", None)]),
    ]);
    let first = table.find(&Method::GET, "/x/y").expect("it matches");
    assert_eq!((&*first.endpoint.id, first.others), ("1", 2));
    assert_eq!(table.find(&Method::GET, "/z").map(|found| found.others), Some(0));
    assert_eq!(find(&table, Method::POST, "/x/y"), found("3", "/x/y"));
    assert_eq!(find(&table, Method::DELETE, "/x/y"), None);
}

#[test]
fn a_head_request_matches_head_and_get() {
    let table = table(&[("get", "GET", "/a", None), ("head", "HEAD", "/b", None), ("post", "POST", "/c", None)]);
    assert_eq!(find(&table, Method::HEAD, "/a"), found("get", "/a"));
    assert_eq!(find(&table, Method::HEAD, "/b"), found("head", "/b"));
    assert_eq!(find(&table, Method::HEAD, "/c"), None);
    assert_eq!(find(&table, Method::GET, "/b"), None);
}

#[test]
fn a_regex_is_anchored_ignores_case_and_knows_unicode() {
    let table = table(&[("a", "GET", "/Straße/\\w+", None), ("b", "GET", "/key", None)]);
    assert_eq!(find(&table, Method::GET, "/STRASSE/x"), None);
    assert_eq!(find(&table, Method::GET, "/straße/äöü"), found("a", "/straße/äöü"));
    assert_eq!(find(&table, Method::GET, "/KEY"), found("b", "/KEY"));
    // The Kelvin sign is a k to a case-insensitive regex.
    assert_eq!(find(&table, Method::GET, "/\u{212a}ey"), found("b", "/\u{212a}ey"));
    for path in ["/key/", "/keys", "/a/key", "key/x"] {
        assert_eq!(find(&table, Method::GET, path), None, "{path}");
    }
}

#[test]
fn what_was_matched_is_what_is_sent() {
    let table = table(&[("admin", "GET", "/admin(/.*)?", None), ("any", "GET", "/[^_].*", None)]);
    for path in ["/admin/x", "//admin//x", "/a/../admin/x", "/a/%2e%2e/admin/./x", "/%61dmin/x", "/./admin/y/../x"] {
        assert_eq!(find(&table, Method::GET, path), found("admin", "/admin/x"), "{path}");
    }
    assert_eq!(find(&table, Method::GET, "/public/..%2fadmin"), None);
    assert_eq!(find(&table, Method::GET, "/a%20b/%C3%A4"), found("any", "/a%20b/%C3%A4"));
}

#[test]
fn a_path_is_rewritten_with_the_groups_of_its_regex() {
    let table = table(&[
        ("seats", "GET", "/halls/(\\d+)/seats(/.*)?", Some("/v1/\\1\\2")),
        ("query", "GET", "/search/(\\w+)", Some("/find?what=\\1")),
        ("bare", "GET", "/out/(.*)", Some("\\1")),
    ]);
    let seats = table.find(&Method::GET, "/HALLS/7/seats/a%2Fb").expect("it matches");
    assert_eq!((&*seats.path, seats.captures), ("/v1/7/a%2Fb", vec!["7".to_owned(), "/a%2Fb".to_owned()]));
    let none = table.find(&Method::GET, "/halls/7/seats").expect("it matches");
    assert_eq!((&*none.path, none.captures), ("/v1/7", vec!["7".to_owned(), String::new()]));
    let search = table.find(&Method::GET, "/search/x").expect("it matches");
    assert_eq!((&*search.path, search.query.as_deref()), ("/find", Some("what=x")));
    assert_eq!(find(&table, Method::GET, "/out/@evil.example/x"), found("bare", "/@evil.example/x"));
}

#[test]
fn own_paths_are_never_the_proxys() {
    let table = table(&[("odd", "GET", "(?-i)/_RIG/.*", None)]);
    assert_eq!(find(&table, Method::GET, "/_RIG/x"), found("odd", "/_RIG/x"));
    for path in ["/_rig/x", "/_rig", "/a/../_rig/health", "/_tidegate/x", "/%5frig/x"] {
        assert_eq!(find(&table, Method::GET, path), None, "{path}");
    }
}

#[test]
fn an_empty_table_takes_nothing() {
    assert_eq!(find(&ApiTable::default(), Method::GET, "/"), None);
    ApiTable::default().count_unmatched(0, &Method::GET);
}

#[test]
fn unmatched_requests_are_counted_by_method_and_invented_methods_together() {
    let mut counters = RequestCounters::new(1);
    let table = ApiTable::new(Vec::new(), &mut counters).expect("it compiles");
    let strange = Method::from_bytes(b"STRANGE").expect("a method");
    table.count_unmatched(0, &Method::GET);
    table.count_unmatched(0, &strange);
    table.count_unmatched(0, &Method::from_bytes(b"STRANGER").expect("a method"));
    let counted: Vec<_> = counters
        .iter()
        .map(|(labels, counts)| (&*labels.method, counts.total(Outcome::NotFound)))
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(counted, [("GET", 1), ("other", 2)]);
}

/// The patterns that the index must treat right: literals, shared prefixes, alternatives, optional parts, flags.
const PATTERNS: [&str; 16] = [
    "/a",
    "/a/",
    "/a/b",
    "/a/b?",
    "/a/b*/c",
    "/a/(b|c)",
    "/a|/b",
    "/a/[^/]+",
    "/a/.*",
    "/(?-i)A/x",
    "/[ab]+",
    "/a/b/c/?",
    "/k",
    "/s/(\\d+)",
    "/a\\.b",
    "^/a/c$",
];

proptest! {
    #[test]
    fn the_table_finds_what_looking_at_each_regex_in_turn_finds(
        order in Just(PATTERNS.to_vec()).prop_shuffle(),
        path in "(/(a|b|c|A|B|k|s|\u{212a}|\u{17f}|1|\\.|bb|a[.-]b)?){1,4}",
    ) {
        let endpoints: Vec<_> = order.iter().map(|pattern| (*pattern, "GET", *pattern, None)).collect();
        let table = table(&endpoints);
        let normal = normalize(&path).expect("a safe path");
        let one = |pattern: &&&str| Regex::new(&format!("(?i)^(?:{pattern})$")).expect("a pattern").is_match(&normal);
        let expected: Vec<_> = order.iter().filter(one).collect();
        let found = table.find(&Method::GET, &path);
        prop_assert_eq!(found.as_ref().map(|found| found.others + 1).unwrap_or(0), expected.len());
        prop_assert_eq!(found.as_ref().map(|found| &*found.endpoint.id), expected.first().map(|pattern| **pattern));
        prop_assert_eq!(found.map(|found| found.path), expected.first().map(|_| normal.into_owned()));
    }
}
