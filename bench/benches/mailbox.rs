//! One event there, one answer back: the hop from ingress into a shard's executor.
//!
//! Both directions are measured together, because only one clock is needed then: `tidegate` goes there through the
//! production mailbox, which wakes a glommio executor, and comes back through a queue that this thread polls.

use std::future::poll_fn;
use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use glommio::{Latency, LocalExecutorBuilder, Placement, Shares};
use tidegate_shards::mailbox::{Control, ControlLane, Inbox, lanes};
use tidegate_shards::record::Range;
use tidegate_shards::segment::SegmentWriter;

/// As production sets its executors up.
const PREEMPT: Duration = Duration::from_millis(1);
const IO_MEMORY_BYTES: usize = 64 * 1024;
const RING_DEPTH: usize = 512;
const ENTRIES: usize = 64;

/// The shard's side: drains the mailbox from a latency-sensitive task queue until told to shut down.
async fn drain(mut inbox: Inbox, mut answers: rtrb::Producer<()>) {
    loop {
        poll_fn(|context| {
            inbox.waker.register(context.waker());
            if inbox.events.is_empty() && inbox.control.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        if let Some(Control::Shutdown) = inbox.control.pop() {
            return;
        }
        while let Ok(mail) = inbox.events.pop() {
            black_box(mail);
            let answered = answers.push(());
            debug_assert!(answered.is_ok(), "the other side takes every answer");
        }
    }
}

fn start_shard(inbox: Inbox, answers: rtrb::Producer<()>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(IO_MEMORY_BYTES)
            .ring_depth(RING_DEPTH)
            .preempt_timer(PREEMPT)
            .make()
            .expect("an executor starts where io_uring is allowed: see `tidegate check`");
        executor.run(async move {
            let queue =
                glommio::executor().create_task_queue(Shares::Static(1000), Latency::Matters(PREEMPT), "mailbox");
            let task = glommio::spawn_local_into(drain(inbox, answers), queue);
            task.expect("invariant: the queue was just created").await;
        });
    })
}

fn stop_shard(control: &ControlLane, shard: thread::JoinHandle<()>) {
    control.send(Control::Shutdown).expect("invariant: nothing else waits in the lane");
    shard.join().expect("the shard's thread ends without a panic");
}

fn hop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox/there and back");

    let (mut lane, control, inbox) = lanes(ENTRIES);
    let (producer, mut answers) = rtrb::RingBuffer::new(ENTRIES);
    let shard = start_shard(inbox, producer);
    let writer = SegmentWriter::new(0, 64);
    for (name, batch) in [("one event", 1), ("16 events", 16)] {
        group.bench_function(format!("tidegate: mailbox that wakes an executor, {name}"), |bencher| {
            bencher.iter(|| {
                for _ in 0..batch {
                    lane.push_event(writer.segment(), Range { offset: 0, len: 1 });
                }
                lane.flush();
                for _ in 0..batch {
                    while answers.pop().is_err() {
                        spin_loop();
                    }
                }
            });
        });
    }
    stop_shard(&control, shard);

    let (mut there, mut arrivals) = rtrb::RingBuffer::<()>::new(ENTRIES);
    let (mut back, mut answers) = rtrb::RingBuffer::<()>::new(ENTRIES);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let echo = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            match arrivals.pop() {
                Ok(()) => while back.push(()).is_err() {},
                Err(_) => spin_loop(),
            }
        }
    });
    for (name, batch) in [("one event", 1), ("16 events", 16)] {
        group.bench_function(format!("floor: two spinning threads, {name}"), |bencher| {
            bencher.iter(|| {
                for _ in 0..batch {
                    while there.push(()).is_err() {}
                }
                for _ in 0..batch {
                    while answers.pop().is_err() {
                        spin_loop();
                    }
                }
            });
        });
    }
    stop.store(true, Ordering::Relaxed);
    echo.join().expect("the echo thread ends without a panic");
    group.finish();
}

criterion_group!(benches, hop);
criterion_main!(benches);
