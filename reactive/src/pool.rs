//! Threads for handlers. More are started while work waits and all are busy, up to a bound, so that handlers that block do
//! not hold up others.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Work that waits longer than this for a thread gets a new one.
const PATIENCE: Duration = Duration::from_millis(5);

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A queue of work and the threads that do it.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    name: &'static str,
    max_threads: usize,
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// When a job was last taken, or a thread started.
    last_taken: Instant,
    stopped: bool,
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pool").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn new(name: &'static str, max_threads: usize) -> Self {
        let state = State { jobs: VecDeque::new(), threads: 0, idle: 0, last_taken: Instant::now(), stopped: false };
        Self(Arc::new(Shared { name, max_threads: max_threads.max(1), state: Mutex::new(state), work: Condvar::new() }))
    }

    /// Does jobs on the threads, in the order they came. The caller bounds how many wait.
    pub(crate) fn run(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut jobs = jobs.into_iter().peekable();
        if jobs.peek().is_none() {
            return;
        }
        let mut state = self.lock();
        if state.stopped {
            return;
        }
        state.jobs.extend(jobs);
        for _ in 0..state.idle.min(state.jobs.len()) {
            self.0.work.notify_one();
        }
        self.grow(state);
    }

    /// Starts a thread if work has waited too long. Call now and then; true while work waits.
    pub(crate) fn tend(&self) -> bool {
        let state = self.lock();
        let work_waits = !state.jobs.is_empty();
        self.grow(state);
        work_waits
    }

    /// The first job of a future that these threads run to its end.
    pub(crate) fn task(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) -> Job {
        let task = Task { future: Mutex::new(Some(future)), queued: AtomicBool::new(true), pool: self.clone() };
        let task = Arc::new(task);
        Box::new(move || task.poll())
    }

    /// Drops work that waits; threads end when they have done what they are at.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        drop(jobs);
        self.0.work.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grow(&self, mut state: MutexGuard<'_, State>) {
        if state.stopped || state.jobs.is_empty() || state.idle > 0 || state.threads >= self.0.max_threads {
            return;
        }
        if state.threads > 0 && state.last_taken.elapsed() < PATIENCE {
            return;
        }
        state.threads += 1;
        state.last_taken = Instant::now();
        drop(state);
        let pool = self.clone();
        if let Err(error) = thread::Builder::new().name(self.0.name.to_owned()).spawn(move || pool.work()) {
            tracing::warn!(target: "tidegate::reactive", %error, "no further thread for handlers");
            self.lock().threads -= 1;
        }
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.last_taken = Instant::now();
                drop(state);
                job();
                state = self.lock();
            } else if state.stopped {
                state.threads -= 1;
                return;
            } else {
                state.idle += 1;
                state = self.0.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

struct Task {
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    queued: AtomicBool,
    pool: Pool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let task = Arc::clone(&self);
            self.pool.run([Box::new(move || task.poll()) as Job]);
        }
    }
}

impl Task {
    fn poll(self: Arc<Self>) {
        let mut future = self.future.lock().unwrap_or_else(PoisonError::into_inner);
        self.queued.store(false, Ordering::Release);
        let Some(running) = future.as_mut() else { return };
        let waker = Waker::from(Arc::clone(&self));
        if running.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Ready(()) {
            *future = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_channel::oneshot;

    use super::*;

    #[test]
    fn a_job_that_blocks_does_not_hold_up_the_next() {
        let pool = Pool::new("test", 2);
        let (release, blocked) = mpsc::channel::<()>();
        let (done, finished) = mpsc::channel();
        pool.run([Box::new(move || blocked.recv().unwrap_or_default()) as Job]);
        pool.run([Box::new(move || done.send(()).unwrap()) as Job]);
        while finished.try_recv().is_err() {
            pool.tend();
            thread::yield_now();
        }
        drop(release);
        pool.stop();
    }

    #[test]
    fn a_future_that_waits_gives_its_thread_to_others_and_goes_on_when_woken() {
        let pool = Pool::new("test", 1);
        let (wake, waits) = oneshot::channel::<u32>();
        let (done, finished) = mpsc::channel();
        pool.run([pool.task(Box::pin(async move { done.send(waits.await.unwrap()).unwrap() }))]);
        let (other, ran) = mpsc::channel();
        pool.run([Box::new(move || other.send(()).unwrap()) as Job]);
        ran.recv().unwrap();
        wake.send(7).unwrap();
        assert_eq!(finished.recv(), Ok(7));
        pool.stop();
    }
}
