//! A request finds its endpoint among 1,000 definitions, beside the floor: one look-up of the path in a hash map.

use std::hint::black_box;

use ahash::AHashMap;
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use tidegate_shards::proxy::counts::RequestCounters;
use tidegate_shards::proxy::definition::{Definition, Surroundings};
use tidegate_shards::proxy::table::ApiTable;

/// Definitions, of one endpoint each.
const DEFINITIONS: usize = 1_000;
/// Different paths that are asked for in turn, so that no cache of one path's states helps.
const PATHS: usize = 4_096;

/// A table of definitions with these regexes.
fn table(path_regex: impl Fn(usize) -> String) -> ApiTable {
    let surroundings = Surroundings { environment: &|_| None, avro: false };
    let routes = (0..DEFINITIONS).flat_map(|number| {
        let definition = json!({
            "id": format!("api-{number:04}"), "name": "x", "proxy": { "target_url": "localhost", "port": 1 },
            "version_data": { "default": { "endpoints": [
                { "id": "e", "method": "GET", "path_regex": path_regex(number) }
            ] } },
        });
        Definition::parse(&definition, &surroundings).expect("a valid definition").routes
    });
    ApiTable::new(routes.collect(), &mut RequestCounters::new(1)).expect("it compiles")
}

/// Asks for the paths in turn.
fn turn<'a>(paths: &'a [String], next: &mut usize) -> &'a str {
    *next = (*next + 1) % paths.len();
    &paths[*next]
}

/// What it is called, the regex of a definition, and a path.
type Shape = (&'static str, fn(usize) -> String, fn(usize) -> String);

fn finds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route among 1,000 definitions");
    let paths = |path: fn(usize) -> String| (0..PATHS).map(path).collect::<Vec<_>>();
    let shapes: [Shape; 5] = [
        (
            "literal",
            |n| format!("/api/service-{n}/items"),
            |n| format!("/api/service-{}/items", n * 7_919 % DEFINITIONS),
        ),
        (
            "own prefix, then an id",
            |n| format!("/api/service-{n}/items/([^/]+)/details"),
            |n| format!("/api/service-{}/items/{n:08x}/details", n * 7_919 % DEFINITIONS),
        ),
        (
            "an id, then what tells them apart",
            |n| format!("/tenants/([^/]+)/service-{n}/items/?"),
            |n| format!("/tenants/{n:08x}/service-{}/items", n * 7_919 % DEFINITIONS),
        ),
        (
            "groups that leave a choice, for the regex engine",
            |n| format!("/tenants/(.*)/service-{n}/(\\w+-?\\w*)"),
            |n| format!("/tenants/{n:08x}/service-{}/items", n * 7_919 % DEFINITIONS),
        ),
        (
            "no match",
            |n| format!("/tenants/([^/]+)/service-{n}/items/(\\d+)"),
            |n| format!("/tenants/{n:08x}/service-{}/things/{n}", n * 7_919 % DEFINITIONS),
        ),
    ];
    for (name, path_regex, path) in shapes {
        let table = table(path_regex);
        let paths = paths(path);
        let mut next = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| table.find(&http::Method::GET, black_box(turn(&paths, &mut next))));
        });
    }
    let paths = paths(|n| format!("/api/service-{}/items", n * 7_919 % DEFINITIONS));
    let map: AHashMap<String, usize> =
        (0..DEFINITIONS).map(|number| (format!("/api/service-{number}/items"), number)).collect();
    let mut next = 0;
    group.bench_function("floor: one look-up of a path", |bencher| {
        bencher.iter(|| map.get(black_box(turn(&paths, &mut next))));
    });
    group.finish();
}

criterion_group!(benches, finds);
criterion_main!(benches);
