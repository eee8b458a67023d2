//! An event that nobody wants must end at its type; one that is wanted is proven to be valid JSON once.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_bench::samples::{self, EVENT_TYPE};
use tidegate_shards::event::{EventLimits, decode_structured, peek_type};
use tidegate_shards::extractor::Extractors;
use tidegate_shards::interest::Interest;

fn drop_unwanted(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode/drop 1 kB");
    let body = samples::structured("com.example.nobody.wants.this", 1, 1_000);
    let mut interest = Interest::new(1, 0);
    interest.add(
        0,
        EVENT_TYPE.into(),
        tidegate_shards::interest::Transports::WS,
        &tidegate_shards::cursor::Vector::default(),
    );
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("tidegate: type and interest", |bencher| {
        bencher.iter(|| peek_type(black_box(&body)).is_some_and(|event_type| interest.wants(&event_type)));
    });
    group.bench_function("floor: one memchr pass", |bencher| {
        bencher.iter(|| memchr::memchr(0, black_box(&body)));
    });
    group.bench_function("sonic-rs: lazy type", |bencher| {
        bencher.iter(|| sonic_rs::get(black_box(&body[..]), ["type"]).is_ok());
    });
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    for bytes in [200, 1_000] {
        let mut group = criterion.benchmark_group(format!("decode/structured {bytes} B"));
        let body = samples::structured(EVENT_TYPE, 1, bytes);
        let plain = Extractors::default();
        let keyed = Extractors::parse(&samples::extractors()).expect("invariant: the sample is valid");
        let limits = EventLimits::default();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("tidegate", |bencher| {
            bencher.iter(|| decode_structured(black_box(&body), &plain, &limits).is_ok());
        });
        group.bench_function("tidegate, one extractor", |bencher| {
            bencher.iter(|| decode_structured(black_box(&body), &keyed, &limits).is_ok());
        });
        let mut copy = Vec::with_capacity(bytes);
        group.bench_function("floor: memcpy", |bencher| {
            bencher.iter(|| {
                copy.clear();
                copy.extend_from_slice(black_box(&body));
                black_box(copy.as_ptr())
            });
        });
        group.bench_function("serde_json: whole document", |bencher| {
            bencher.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(&body)).is_ok());
        });
        group.bench_function("sonic-rs: whole document", |bencher| {
            bencher.iter(|| sonic_rs::from_slice::<sonic_rs::Value>(black_box(&body)).is_ok());
        });
        group.finish();
    }
}

criterion_group!(benches, drop_unwanted, decode);
criterion_main!(benches);
