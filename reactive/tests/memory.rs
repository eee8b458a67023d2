//! Memory after a million requests that nobody answered is what it was at the start.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

use futures_channel::oneshot;
use tidegate_reactive::pending::Pending;

/// The system's allocator, and how many bytes it has handed out.
struct Counting(AtomicIsize);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_add(layout.size().cast_signed(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.0.fetch_sub(layout.size().cast_signed(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting(AtomicIsize::new(0));

#[test]
fn a_million_unanswered_requests_give_all_their_memory_back() {
    let mut pending = Pending::new(7, 1_000_000, 0);
    let round = |pending: &mut Pending<oneshot::Sender<Vec<u8>>>, begin_ms: u64| {
        let callers: Vec<_> = (0..1_000_000)
            .map(|number| {
                let (answer, caller) = oneshot::channel();
                pending.insert(answer, begin_ms + 1 + number % 5_000).unwrap();
                caller
            })
            .collect();
        let held = ALLOCATOR.0.load(Relaxed);
        let mut ended = 0;
        pending.expire(begin_ms + 6_000, |_, answer| {
            drop(answer);
            ended += 1;
        });
        assert_eq!((ended, pending.len()), (1_000_000, 0));
        assert!(callers.into_iter().all(|mut caller| caller.try_recv().is_err()));
        held
    };
    let start = ALLOCATOR.0.load(Relaxed);
    for begin_ms in [0, 10_000, 20_000] {
        let held = round(&mut pending, begin_ms);
        let left = ALLOCATOR.0.load(Relaxed) - start;
        assert!(held - start > 50_000_000, "a million requests are held at once: {held}");
        assert!(left < 256 << 10, "{left} bytes are left");
    }
}
