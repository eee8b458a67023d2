//! The monotonic clock that all threads of a node share.

use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

/// Microseconds since the first call in this process; monotonic.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now_us() -> u64 {
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds since the first call in this process; monotonic.
#[must_use]
pub fn now_ms() -> u64 {
    now_us() / 1_000
}

/// A time of the calendar, in milliseconds since 1970 (UTC), on this clock; 0 for what was before its start.
#[must_use]
pub fn us_at_unix_ms(unix_ms: i64) -> u64 {
    let ago_ms = jiff::Timestamp::now().as_millisecond().saturating_sub(unix_ms);
    let now_us = i64::try_from(now_us()).unwrap_or(i64::MAX);
    u64::try_from(now_us.saturating_sub(ago_ms.saturating_mul(1_000))).unwrap_or(0)
}
