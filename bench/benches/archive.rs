//! Writing an event into a segment with the frames of its transports, and reading the record in place.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_bench::samples::{self, EVENT_TYPE};
use tidegate_shards::interest::Transports;
use tidegate_shards::publisher::Position;
use tidegate_shards::record::{self, Range, Scratch};
use tidegate_shards::segment::SegmentWriter;

const SEGMENT_BYTES: usize = 4 << 20;
const POSITION: Position = Position { partition: 0, offset: 1 };

fn write(criterion: &mut Criterion) {
    for (name, transports) in [("WebSocket", Transports::WS), ("all transports", Transports::ALL)] {
        let mut group = criterion.benchmark_group(format!("archive/write 200 B, {name}"));
        let event = samples::event(EVENT_TYPE, 1, 200);
        group.throughput(Throughput::Elements(1));
        let mut scratch = Scratch::default();
        let mut writer = SegmentWriter::new(0, SEGMENT_BYTES);
        let frame_bytes = frames(&mut writer, transports);
        group.bench_function("tidegate: frames and record", |bencher| {
            bencher.iter(|| {
                let written = record::write(&mut writer, black_box(&event), POSITION, "", 0, transports, &mut scratch);
                if written.is_none() {
                    writer = SegmentWriter::new(0, SEGMENT_BYTES);
                }
                written
            });
        });
        let source = vec![b'x'; frame_bytes];
        let mut copy = Vec::with_capacity(SEGMENT_BYTES);
        group.bench_function("floor: memcpy of the frames", |bencher| {
            bencher.iter(|| {
                if copy.len() + source.len() > SEGMENT_BYTES {
                    copy = Vec::with_capacity(SEGMENT_BYTES);
                }
                copy.extend_from_slice(black_box(&source));
                black_box(copy.as_ptr())
            });
        });
        group.finish();
    }
}

/// Bytes of the frames that one event has.
fn frames(writer: &mut SegmentWriter, transports: Transports) -> usize {
    let event = samples::event(EVENT_TYPE, 1, 200);
    let range = record::write(writer, &event, POSITION, "", 0, transports, &mut Scratch::default())
        .expect("invariant: an empty segment has room");
    let record = record::read(writer.segment(), range);
    (record.ws.get().len + record.sse_chunk.get().len) as usize
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("archive/read");
    let (mut writer, mut scratch) = (SegmentWriter::new(0, SEGMENT_BYTES), Scratch::default());
    let event = samples::event(EVENT_TYPE, 1, 200);
    let records: Vec<Range> =
        std::iter::from_fn(|| record::write(&mut writer, &event, POSITION, "", 0, Transports::WS, &mut scratch))
            .collect();
    let segment = writer.segment();
    group.throughput(Throughput::Elements(1));
    let mut next = records.iter().cycle();
    group.bench_function("tidegate: type, position and frame of a record", |bencher| {
        bencher.iter(|| {
            let range = next.next().copied().unwrap_or_default();
            let record = record::read(segment, range);
            (record.event_type.len(), record.offset.to_native(), record.ws.get().len)
        });
    });
    let numbers: Vec<[u64; 3]> = (0..records.len() as u64).map(|number| [number, number, number]).collect();
    let mut next = numbers.iter().cycle();
    group.bench_function("floor: three numbers of a struct", |bencher| {
        bencher.iter(|| next.next().map(|[a, b, c]| black_box((*a, *b, *c))));
    });
    group.finish();
}

criterion_group!(benches, write, read);
criterion_main!(benches);
