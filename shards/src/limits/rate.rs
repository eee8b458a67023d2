//! How often something may happen: a bucket of tokens that fills at a constant rate, in the form that needs one number per
//! bucket (generic cell rate algorithm, ITU-T I.371: the time at which the bucket will be full again).

use std::hash::Hash;
use std::net::IpAddr;

/// Buckets that share a place in the table.
const WAYS: usize = 8;
/// Places in the table: 65,536 buckets, 1 MiB.
const PLACES: usize = 8_192;

/// How fast buckets fill and how much they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time in which one token comes, in nanoseconds.
    interval_ns: u64,
    /// Time in which an empty bucket becomes full, in nanoseconds.
    whole_ns: u64,
}

/// A bucket; full when new. Its number is the time at which it is full again, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(u64);

/// The bucket was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// Time until the next token, in milliseconds, rounded up.
    pub retry_after_ms: u64,
}

impl TooMany {
    /// As `retry-after` says it (RFC 9110, section 10.2.3).
    #[must_use]
    pub fn retry_after_s(self) -> u64 {
        self.retry_after_ms.div_ceil(1_000).max(1)
    }
}

impl Rate {
    /// `count` in `per_ms`, of which `burst` may come at once (at least one).
    #[must_use]
    pub fn new(count: u32, per_ms: u64, burst: u64) -> Self {
        let interval_ns = (per_ms.saturating_mul(1_000_000) / u64::from(count.max(1))).max(1);
        Self { interval_ns, whole_ns: interval_ns.saturating_mul(burst.max(1)) }
    }

    /// Takes a token at `now_us`.
    ///
    /// # Errors
    /// [`TooMany`] where there is none; nothing has been taken then.
    pub fn take(self, bucket: &mut Bucket, now_us: u64) -> Result<(), TooMany> {
        let now_ns = now_us.saturating_mul(1_000);
        let full_ns = bucket.0.max(now_ns).saturating_add(self.interval_ns);
        let over_ns = (full_ns - now_ns).saturating_sub(self.whole_ns);
        if over_ns > 0 {
            return Err(TooMany { retry_after_ms: over_ns.div_ceil(1_000_000) });
        }
        bucket.0 = full_ns;
        Ok(())
    }
}

/// One bucket per key, for any number of keys in bounded memory: where there is no room, the fullest of a few buckets goes,
/// which is the one with the least to remember. A key without bucket has a full one.
#[derive(Debug)]
pub struct RateTable {
    rate: Rate,
    places: Box<[[(u64, Bucket); WAYS]]>,
    /// Keyed at random: which keys share a place can't be known from outside.
    hasher: ahash::RandomState,
}

impl RateTable {
    /// A table of full buckets.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self::with_places(rate, PLACES)
    }

    fn with_places(rate: Rate, places: usize) -> Self {
        let places = vec![[(0, Bucket::default()); WAYS]; places].into_boxed_slice();
        Self { rate, places, hasher: ahash::RandomState::new() }
    }

    /// Takes a token from the bucket of `key` at `now_us`.
    ///
    /// # Errors
    /// [`TooMany`] where it is empty.
    pub fn take(&mut self, key: impl Hash, now_us: u64) -> Result<(), TooMany> {
        let hash = self.hasher.hash_one(key);
        let place = usize::try_from(hash % self.places.len() as u64).unwrap_or(0);
        let ways = &mut self.places[place];
        let known = ways.iter().position(|(tag, _)| *tag == hash);
        let way = known.unwrap_or_else(|| {
            let fullest = ways.iter().enumerate().min_by_key(|(_, (_, bucket))| bucket.0);
            let way = fullest.map_or(0, |(way, _)| way);
            ways[way] = (hash, Bucket::default());
            way
        });
        self.rate.take(&mut ways[way].1, now_us)
    }
}

/// What counts as one client: an IPv4 address, or a network of 64 bits, of which a client of IPv6 has one or more for itself
/// (RFC 6177).
#[must_use]
pub fn client_key(address: IpAddr) -> u128 {
    match address.to_canonical() {
        // Outside of what the upper half of an IPv6 address can be.
        IpAddr::V4(address) => u128::from(address.to_bits()) | 1 << 64,
        IpAddr::V6(address) => address.to_bits() >> 64,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate_counts() {
        let rate = Rate::new(10, 1_000, 20);
        let mut bucket = Bucket::default();
        let now_us = 5 * SECOND_US;
        assert!((0..20).all(|_| rate.take(&mut bucket, now_us).is_ok()));
        assert_eq!(rate.take(&mut bucket, now_us), Err(TooMany { retry_after_ms: 100 }));
        assert!(rate.take(&mut bucket, now_us + 100_000).is_ok());
        assert!(rate.take(&mut bucket, now_us + 100_000).is_err());
        assert!((0..20).all(|_| rate.take(&mut bucket, now_us + 10 * SECOND_US).is_ok()));
        assert!(rate.take(&mut bucket, now_us + 10 * SECOND_US).is_err(), "a bucket holds no more than its burst");
    }

    #[test]
    fn somebody_who_is_refused_and_keeps_asking_gets_in_at_the_same_time() {
        let rate = Rate::new(1, 1_000, 1);
        let mut bucket = Bucket::default();
        assert!(rate.take(&mut bucket, 0).is_ok());
        for now_us in (0..SECOND_US).step_by(1_000) {
            assert!(rate.take(&mut bucket, now_us).is_err(), "at {now_us}");
        }
        assert!(rate.take(&mut bucket, SECOND_US).is_ok());
    }

    #[test]
    fn retry_after_is_at_least_a_second_and_rounded_up() {
        assert_eq!(TooMany { retry_after_ms: 1 }.retry_after_s(), 1);
        assert_eq!(TooMany { retry_after_ms: 1_001 }.retry_after_s(), 2);
    }

    #[test]
    fn each_key_has_a_bucket_of_its_own() {
        let mut table = RateTable::new(Rate::new(1, 1_000, 1));
        for key in 0..1_000 {
            assert!(table.take(key, 0).is_ok(), "{key}");
        }
        let refused = (0..1_000).filter(|key| table.take(*key, 0).is_err()).count();
        assert_eq!(refused, 1_000);
    }

    #[test]
    fn a_flood_of_keys_forgets_those_that_owe_least() {
        let mut table = RateTable::with_places(Rate::new(1, 1_000, 10), 1);
        for _ in 0..10 {
            assert!(table.take("debtor", 0).is_ok());
        }
        for key in 0..1_000 {
            assert!(table.take(key, 0).is_ok());
        }
        assert!(table.take("debtor", 0).is_err());
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_client() {
        let key = |text: &str| client_key(text.parse().unwrap());
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:1:ffff::2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("0.0.0.1"), key("0:0:0:1::"));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(
            count in 1_u32..1_000,
            burst in 1_u64..100,
            pauses in prop::collection::vec(0_u64..50_000, 1..300),
        ) {
            let rate = Rate::new(count, 1_000, burst);
            let mut bucket = Bucket::default();
            let (mut now_us, mut passed) = (0, 0_u64);
            for pause in pauses {
                now_us += pause;
                passed += u64::from(rate.take(&mut bucket, now_us).is_ok());
                // The interval is rounded down by less than a nanosecond, so one more at most in such a short time.
                let allowed = burst + now_us * u64::from(count) / SECOND_US + 1;
                prop_assert!(passed <= allowed, "{passed} passed in {now_us} µs, {allowed} may");
            }
        }
    }
}
