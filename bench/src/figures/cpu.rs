//! Which CPU a thread, and what it starts, may run on.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPU of the servers that are measured.
pub const SERVER: usize = 0;
/// CPU of the load generator and of producers.
pub const LOAD: usize = 1;

/// Binds the calling thread; threads and processes that it starts later inherit this. On a machine without that CPU, or
/// where it is not allowed, the thread stays where it was: a figure is then worth less, but still a figure.
pub fn bind_thread(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = sched_setaffinity(None, &set) {
        eprintln!("a thread can't be bound to CPU {cpu}: {error}");
    }
}

/// Runs `work` with the calling thread bound to `cpu`, and lets it loose afterwards.
pub fn bound_to<T>(cpu: usize, work: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None);
    bind_thread(cpu);
    let result = work();
    if let Ok(before) = before {
        // What was in force once can be in force again.
        let _ = sched_setaffinity(None, &before);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_bound_while_it_works_and_free_again_afterwards() {
        let before = sched_getaffinity(None).unwrap().count();
        let during = bound_to(SERVER, || sched_getaffinity(None).unwrap().count());
        assert_eq!((during, sched_getaffinity(None).unwrap().count()), (1, before));
    }
}
