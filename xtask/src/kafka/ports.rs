//! Free ports below the range that the kernel hands out to outgoing connections (32768 and up by default), so that a
//! broker that was killed finds its port free again however many connections a test opens meanwhile.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::Error;

const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// `count` neighbouring free ports on 127.0.0.1; the first is returned. The search starts at a different place in every
/// process and at every call, so that tests that start at the same time rarely meet. For a broker that is to start later:
/// one plain listener takes two.
///
/// # Errors
/// [`Error::NoPort`] where none is left.
pub fn free_ports(count: u16) -> Result<u16, Error> {
    // What this process was given before stays its own: a broker that is down may come back.
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.subsec_nanos());
    let seed = process::id().wrapping_mul(2_654_435_761).wrapping_add(nanoseconds);
    let start = u16::try_from(seed % u32::from(COUNT)).unwrap_or(0);
    (0..COUNT)
        .map(|step| FIRST + (start + step) % COUNT)
        .find(|&first| (first..first + count).all(|port| !given.contains(&port) && is_free(port)))
        .inspect(|&first| given.extend(first..first + count))
        .ok_or(Error::NoPort)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_offered() {
        let first = free_ports(1).unwrap();
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert!(!is_free(first));
    }
}
