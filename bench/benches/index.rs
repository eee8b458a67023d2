//! Matching must cost what the matches cost, however many subscriptions there are.

use std::collections::HashMap;
use std::hint::black_box;

use ahash::RandomState;
use criterion::{Criterion, criterion_group, criterion_main};
use tidegate_bench::samples::{EVENT_TYPE, OneField};
use tidegate_bench::subscribers::{self, MANY};

fn matches(criterion: &mut Criterion) {
    for subscriptions in [10, 10_000, 1_000_000] {
        let mut group = criterion.benchmark_group(format!("index/{subscriptions} subscriptions"));
        let mut index = subscribers::index(subscriptions);
        let mut matched = Vec::with_capacity(MANY);
        let events = [
            ("no match", subscribers::absent_key()),
            ("one match", subscribers::key(u32::try_from(subscriptions / 2).unwrap_or(0))),
            ("many matches", subscribers::popular_key()),
        ];
        for (name, key) in events {
            let field = OneField(key);
            group.bench_function(format!("tidegate: {name}"), |bencher| {
                bencher.iter(|| {
                    matched.clear();
                    index.matches(black_box(EVENT_TYPE), black_box(&field), &mut matched);
                    matched.len()
                });
            });
        }
        group.bench_function("tidegate: unknown type", |bencher| {
            let field = OneField(subscribers::absent_key());
            bencher.iter(|| index.matches(black_box("com.example.other"), &field, &mut matched));
        });
        let map: HashMap<Vec<u8>, u32, RandomState> = (0..u32::try_from(subscriptions).unwrap_or(u32::MAX))
            .map(|number| (subscribers::key(number), number))
            .collect();
        let (present, absent) = (subscribers::key(0), subscribers::absent_key());
        group.bench_function("floor: one look-up that misses", |bencher| bencher.iter(|| map.get(black_box(&absent))));
        group.bench_function("floor: one look-up that hits", |bencher| bencher.iter(|| map.get(black_box(&present))));
        group.finish();
    }
}

criterion_group!(benches, matches);
criterion_main!(benches);
