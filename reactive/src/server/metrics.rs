//! What a server counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::histogram::{Histogram, Snapshot};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters and histograms of a server.
        #[derive(Debug, Default)]
        pub(super) struct ServerMetrics {
            $(pub(super) $name: AtomicU64,)*
            pub(super) serving: Histogram,
            pub(super) answering: Histogram,
        }

        /// The state of a server's metrics at one time.
        #[derive(Clone, Debug)]
        pub struct ServerStatistics {
            /// Requests in the works.
            pub held: usize,
            $($(#[$doc])* pub $name: u64,)*
            /// From reading a request to handing over its answer.
            pub serving: Snapshot,
            /// From there to Kafka's acknowledgement.
            pub answering: Snapshot,
        }

        impl ServerMetrics {
            pub(super) fn read(&self, held: usize) -> ServerStatistics {
                ServerStatistics {
                    held,
                    $($name: self.$name.load(Relaxed),)*
                    serving: self.serving.snapshot(),
                    answering: self.answering.snapshot(),
                }
            }
        }
    };
}

counters! {
    /// Requests read.
    requests,
    /// Answers acknowledged by Kafka.
    answered,
    /// Answers that Kafka did not take.
    unanswered,
    /// Requests skipped because their callers no longer waited.
    too_late,
    /// Handlers given up because their time was over.
    timed_out,
    /// Handlers that failed, panics included.
    failed,
    /// Handlers that panicked.
    panicked,
    /// Requests for services that are not served here.
    unknown_service,
    /// Messages that are no requests, and payloads that are not of the handler's type.
    undecodable,
    /// Messages put into the dead-letter topic.
    dead_letters,
    /// Requests answered from memory, by their idempotency key.
    repeated,
    /// Requests refused because their idempotency key was used for another payload.
    key_reused,
    /// Commits, each of any number of offsets.
    commits,
    /// Commits that failed; they are repeated.
    failed_commits,
    /// Requests not handled because their offset could not be committed first (at most once).
    uncommitted,
}

impl ServerMetrics {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}
