//! A batch of events to every connection, over real sockets, beside the bare sends of the same bytes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_bench::fan_out::FanOut;
use tidegate_bench::floor::sockets::{Sockets, send_all};
use tidegate_bench::samples::{self, EVENT_TYPE};
use tidegate_shards::ws::encode::{self, OpCode};

const EVENT_BYTES: usize = 200;

fn fan_out(criterion: &mut Criterion) {
    for connections in [100, 1_000] {
        for batch in [1, 4, 16] {
            let mut group = criterion.benchmark_group(format!("fan_out/{connections} sockets, batches of {batch}"));
            group.throughput(Throughput::Elements((connections * batch) as u64));
            let sockets = Sockets::connect(connections).expect("the machine allows this many open files");
            let mut fan_out = FanOut::new(&sockets).expect("the machine allows one more open file");
            let events: Vec<_> =
                (0..batch).map(|number| samples::event(EVENT_TYPE, number as u64, EVENT_BYTES)).collect();
            let frames: Vec<Vec<u8>> = events
                .iter()
                .map(|event| {
                    let mut frame = Vec::new();
                    encode::append_frame(OpCode::Text, &event.body, &mut frame);
                    frame
                })
                .collect();
            let coalesced = frames.concat();
            group.bench_function("tidegate: shard and publisher", |bencher| bencher.iter(|| fan_out.deliver(&events)));
            group.bench_function("floor: one send per delivery", |bencher| {
                bencher.iter(|| {
                    for frame in &frames {
                        for socket in sockets.senders() {
                            send_all(socket, frame).expect("the reader stays connected");
                        }
                    }
                });
            });
            group.bench_function("floor: one send per connection", |bencher| {
                bencher.iter(|| {
                    for socket in sockets.senders() {
                        send_all(socket, &coalesced).expect("the reader stays connected");
                    }
                });
            });
            group.finish();
        }
    }
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
