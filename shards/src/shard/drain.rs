//! Moving connections away before the node ends: spread over the time of the drain, so that the node which gets them next
//! is not stormed. Each client is told in its own protocol, and comes back by itself.

use super::Shard;
use super::connection::{Address, Closing, Output};
use crate::sse;
use crate::ws::close_code;

/// Milliseconds per connection at the slowest: a few connections don't have to take the whole time.
const LONGEST_GAP_MS: u64 = 50;
/// Shortest time after which a client of an event stream comes back, in milliseconds.
const RETRY_MS: u64 = 500;
/// What chance adds to it at most, in milliseconds.
const RETRY_JITTER_MS: u64 = 2_500;
/// How long a long-polling session whose client isn't there is kept for its next call, in milliseconds.
const SESSION_PATIENCE_MS: u64 = 10_000;
/// The reason in the close frame of a WebSocket.
const REASON: &str = "The gateway is being restarted. Connect again.";

/// Who is moved away, and when.
#[derive(Debug)]
pub(super) struct Drain {
    started_ms: u64,
    moving_ms: u64,
    addresses: Vec<Address>,
    moved: usize,
}

impl Drain {
    /// Moving takes nine tenths of `drain_ms`; the rest is for the last ones to close.
    fn new(addresses: Vec<Address>, drain_ms: u64, now_ms: u64) -> Self {
        Self { started_ms: now_ms, moving_ms: drain_ms / 10 * 9, addresses, moved: 0 }
    }

    /// How many of the connections should have been moved by now.
    fn due(&self, now_ms: u64) -> usize {
        let elapsed_ms = now_ms.saturating_sub(self.started_ms);
        if elapsed_ms >= self.moving_ms {
            return self.addresses.len();
        }
        let share = self.addresses.len() as u128 * u128::from(elapsed_ms) / u128::from(self.moving_ms.max(1));
        let at_least = elapsed_ms / LONGEST_GAP_MS + 1;
        usize::try_from(share.max(u128::from(at_least))).unwrap_or(usize::MAX).min(self.addresses.len())
    }
}

impl Shard {
    /// Begins to move connections away; [`Self::tick`] goes on with it, until all are told after `drain_ms` at the latest.
    /// With 0 all are told at once.
    pub fn start_drain(&mut self, drain_ms: u64, now_ms: u64) {
        let mut addresses = Vec::new();
        for (address, connection) in self.connections.iter_mut() {
            match connection.output {
                // It tells its client itself, with its next answer or at once.
                Output::Http => connection.wake(),
                _ => addresses.push(address),
            }
        }
        self.drain = Some(Box::new(Drain::new(addresses, drain_ms, now_ms)));
        self.drain_step(now_ms);
    }

    /// A stream or a session began although the node drains: it is moved too.
    pub(super) fn drain_later(&mut self, address: Address) {
        if let Some(drain) = &mut self.drain {
            drain.addresses.push(address);
        }
    }

    pub(super) fn drain_step(&mut self, now_ms: u64) {
        let Some(drain) = &mut self.drain else { return };
        let due = drain.due(now_ms);
        let from = std::mem::replace(&mut drain.moved, due);
        if from >= due {
            drain.moved = from;
            return;
        }
        let next = drain.addresses[from..due].to_vec();
        for address in next {
            self.move_away(address, now_ms);
        }
    }

    fn move_away(&mut self, address: Address, now_ms: u64) {
        let Some(connection) = self.connections.get(address) else { return };
        if connection.closing != Closing::No {
            return;
        }
        self.metrics.connections_moved.add(1);
        match connection.output {
            Output::WebSocket(_) => self.finish(address, Some(close_code::SERVICE_RESTART), REASON),
            Output::EventStream { chunked, .. } => {
                let retry = sse::retry(retry_ms(address, now_ms));
                let bytes = if chunked { format!("{:x}\r\n{retry}\r\n", retry.len()) } else { retry };
                self.send(address, bytes.into());
                self.finish(address, None, "");
            }
            Output::Pulled => {
                self.send(address, sse::retry(retry_ms(address, now_ms)).into());
                self.finish(address, None, "");
            }
            Output::Session(_) => {
                if !self.leave_session(address, now_ms + SESSION_PATIENCE_MS) {
                    self.remove(address);
                }
            }
            Output::Http => {}
        }
    }
}

/// Spread by chance: the time, and the address, which differs between the connections that are told together.
fn retry_ms(address: Address, now_ms: u64) -> u64 {
    let seed = now_ms ^ (u64::from(address.slot) << 32) ^ u64::from(address.generation);
    // The finaliser of SplitMix64: neighbouring seeds give unrelated numbers.
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    RETRY_MS + (mixed ^ (mixed >> 31)) % RETRY_JITTER_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(count: u32, drain_ms: u64) -> Drain {
        Drain::new((0..count).map(|slot| Address { slot, generation: 1 }).collect(), drain_ms, 1_000)
    }

    #[test]
    fn many_connections_are_moved_evenly_over_nine_tenths_of_the_time() {
        let drain = drain(10_000, 30_000);
        assert_eq!(drain.due(1_000), 1);
        assert_eq!(drain.due(1_000 + 13_500), 5_000);
        assert_eq!(drain.due(1_000 + 26_999), 9_999);
        assert_eq!(drain.due(1_000 + 27_000), 10_000);
    }

    #[test]
    fn a_few_connections_do_not_take_the_whole_time() {
        let drain = drain(3, 30_000);
        assert_eq!((drain.due(1_000), drain.due(1_050), drain.due(1_100)), (1, 2, 3));
        assert_eq!(drain.due(2_000), 3);
    }

    #[test]
    fn without_time_all_are_told_at_once() {
        assert_eq!(drain(10_000, 0).due(1_000), 10_000);
    }

    #[test]
    fn the_times_to_come_back_are_spread() {
        let times: std::collections::BTreeSet<_> =
            (0..1_000).map(|slot| retry_ms(Address { slot, generation: 7 }, 5_000)).collect();
        assert!(times.len() > 700, "{} different times", times.len());
        assert!(times.iter().all(|ms| (RETRY_MS..RETRY_MS + RETRY_JITTER_MS).contains(ms)));
        let early = times.iter().filter(|ms| **ms < RETRY_MS + RETRY_JITTER_MS / 2).count();
        assert!((250..650).contains(&early), "{early} come back in the first half");
    }
}
