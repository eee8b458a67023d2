//! What a service manager hears of the gateway (sd_notify(3)).

use std::os::unix::net::UnixDatagram;

use crate::support::DEADLINE;
use crate::support::gateway::Gateway;
use crate::support::wait_for;

fn next(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let len = socket.recv(&mut buffer).expect("a message comes in time");
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

#[test]
fn a_service_manager_hears_of_readiness_life_and_the_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
    let path = path.to_string_lossy().into_owned();
    let mut gateway = Gateway::with(&[("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", "200000")]);
    assert_eq!(next(&socket), "READY=1");
    for _ in 0..3 {
        assert_eq!(next(&socket), "WATCHDOG=1");
    }
    gateway.signal("TERM");
    let stopping = wait_for("the stop to be told", || Some(next(&socket)).filter(|message| message != "WATCHDOG=1"));
    assert_eq!(stopping, "STOPPING=1\nEXTEND_TIMEOUT_USEC=45000000");
    assert!(gateway.wait_for_end().success());
}
