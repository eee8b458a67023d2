//! What the tests are made of: a real gateway process, and clients that speak each protocol from
//! outside. Every wait has a deadline; nothing sleeps for a fixed time and hopes.

pub(crate) mod backend;
pub(crate) mod backend_http2;
pub(crate) mod clients;
pub(crate) mod events;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod http2;
pub(crate) mod jwt;
pub(crate) mod kafka;
pub(crate) mod longpolling;
pub(crate) mod metrics;
pub(crate) mod registry;
pub(crate) mod service;
pub(crate) mod sse;
pub(crate) mod tls;
pub(crate) mod websocket;
pub(crate) mod websocket_frames;

use std::time::{Duration, Instant};

/// How long a test waits for something that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Pause between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Looks at a condition until it gives a value; fails the test, naming `what`, after [`DEADLINE`].
pub(crate) fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_up_to(DEADLINE, what, condition)
}

/// [`wait_for`] with a deadline of its own, for what takes long by nature (a broker that starts).
pub(crate) fn wait_up_to<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}
