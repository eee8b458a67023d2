//! A new process takes the ports over before the old one drains: clients that come meanwhile notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::wait_for;

/// Clients that make one connection after the other.
const CALLERS: usize = 8;
/// Calls before, and after, the change.
const CALLS: usize = 200;

#[test]
fn requests_during_a_takeover_all_succeed() {
    let mut old = Gateway::with(&[("SHARDS", "2"), ("MAX_CONNECTIONS_PER_MINUTE", "1000000")]);
    let address = old.inbound();
    let (done, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (done, calls) = (Arc::clone(&done), Arc::clone(&calls));
            thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let mut connection = Connection::open(address);
                    let response = connection.request(&Request::get("/_rig/health").header("connection", "close"));
                    assert_eq!(response.status, 200, "{response:?}");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let wait_for_calls = |what: &str| {
        let before = calls.load(Ordering::Relaxed);
        wait_for(what, || {
            let failed = callers.iter().any(thread::JoinHandle::is_finished);
            assert!(!failed, "a call failed");
            (calls.load(Ordering::Relaxed) >= before + CALLS).then_some(())
        });
    };
    wait_for_calls("calls to the old process");
    let port = address.port().to_string();
    let new = Gateway::with(&[
        ("INBOUND_PORT", port.as_str()),
        ("TAKEOVER", "true"),
        ("SHARDS", "2"),
        ("MAX_CONNECTIONS_PER_MINUTE", "1000000"),
    ]);
    assert_eq!(new.inbound(), address, "both listen on one port");
    wait_for_calls("calls to both");
    old.signal("TERM");
    assert!(old.wait_for_end().success());
    wait_for_calls("calls to the new process");
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().expect("no call failed");
    }
    assert!(new.metrics().sum("tidegate_connections_accepted_total") > 0.0);
}
