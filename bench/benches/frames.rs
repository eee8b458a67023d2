//! The framing that each transport adds to an event's text.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_bench::samples::{self, EVENT_TYPE};
use tidegate_shards::sse;
use tidegate_shards::ws::encode::{self, OpCode};

fn frames(criterion: &mut Criterion) {
    for bytes in [200, 1_000, 10_000] {
        let mut group = criterion.benchmark_group(format!("frames/{bytes} B"));
        let body = samples::structured(EVENT_TYPE, 1, bytes);
        let mut out = Vec::with_capacity(2 * bytes + 64);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("tidegate: WebSocket frame", |bencher| {
            bencher.iter(|| {
                out.clear();
                encode::append_frame(OpCode::Text, black_box(&body), &mut out);
                black_box(out.as_ptr())
            });
        });
        group.bench_function("tidegate: event of an event stream", |bencher| {
            bencher.iter(|| {
                out.clear();
                sse::append_event(EVENT_TYPE, None, black_box(&body), &mut out);
                black_box(out.as_ptr())
            });
        });
        group.bench_function("floor: memcpy", |bencher| {
            bencher.iter(|| {
                out.clear();
                out.extend_from_slice(black_box(&body));
                black_box(out.as_ptr())
            });
        });
        group.finish();
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
