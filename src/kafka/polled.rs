//! A producer whose delivery reports are taken by a thread of its own.
//!
//! rdkafka has one too (`ThreadedProducer`), but its polls of 100 ms each end in a busy wait of up to a millisecond, which
//! costs an idle process 1 % of a core.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rdkafka::producer::{BaseProducer, NoCustomPartitioner, Partitioner, ProducerContext};

/// Length of one poll. Reports are taken as they come; only the end of the thread waits for it.
const POLL: Duration = Duration::from_secs(10);

/// A [`BaseProducer`] that is polled until it is dropped.
pub struct PolledProducer<C: ProducerContext<P> + 'static, P: Partitioner + Send + Sync + 'static = NoCustomPartitioner>
{
    producer: Arc<BaseProducer<C, P>>,
    stopping: Arc<AtomicBool>,
}

impl<C: ProducerContext<P> + 'static, P: Partitioner + Send + Sync + 'static> PolledProducer<C, P> {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(producer: BaseProducer<C, P>) -> io::Result<Self> {
        let (producer, stopping) = (Arc::new(producer), Arc::<AtomicBool>::default());
        let (polled, until) = (Arc::clone(&producer), Arc::clone(&stopping));
        thread::Builder::new().name("producer".to_owned()).spawn(move || {
            while !until.load(Ordering::Relaxed) {
                polled.poll(POLL);
            }
        })?;
        Ok(Self { producer, stopping })
    }
}

impl<C: ProducerContext<P> + 'static, P: Partitioner + Send + Sync + 'static> Deref for PolledProducer<C, P> {
    type Target = BaseProducer<C, P>;

    fn deref(&self) -> &BaseProducer<C, P> {
        &self.producer
    }
}

impl<C: ProducerContext<P> + 'static, P: Partitioner + Send + Sync + 'static> Drop for PolledProducer<C, P> {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}
