//! A shard that sends through TLS: real sockets, the client driven by hand.

use std::cell::RefCell;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use bytes::Bytes;
use rustls::version::TLS13;

use super::connection::{Address, Closing, Output};
use super::tests::Rig;
use crate::limits::LimitSettings;
use crate::queue::SlowClient;
use crate::settings::ShardSettings;
use crate::subscription::parse_list;
use crate::tls::Session;
use crate::tls::client_tests::{TestClient, server_config};

fn settings(max_queue_bytes: usize) -> ShardSettings {
    ShardSettings { max_connections_per_minute: 1_000, max_queue_bytes, ..ShardSettings::default() }
}

/// A client whose event stream goes through TLS.
struct SecureStream {
    address: Address,
    _ours: UnixStream,
    theirs: UnixStream,
    client: TestClient,
}

impl SecureStream {
    fn open(rig: &mut Rig) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (mut session, mut client) = (Session::new(server_config()).unwrap(), TestClient::new(&TLS13, "http/1.1"));
        client.shake(&mut session, 4_096);
        let address = rig.shard.accepted(u64::MAX - 1, 0);
        rig.shard.secure(address, &Rc::new(RefCell::new(session)));
        let output = Output::EventStream { fd: ours.as_raw_fd(), chunked: false };
        rig.shard.open(address, output, b"HEAD|".to_vec(), "token", 0);
        rig.shard.set_subscriptions(address, &parse_list(r#"[{"eventType":"a"}]"#).unwrap(), None);
        rig.shard.opened(address);
        rig.turn();
        let mut stream = Self { address, _ours: ours, theirs, client };
        let greeting = stream.received();
        assert!(greeting.starts_with("HEAD|") && greeting.contains("rig.subscriptions_set"), "{greeting}");
        stream
    }

    /// Everything that has arrived, decrypted.
    fn received(&mut self) -> String {
        let mut all = Vec::new();
        let mut buffer = [0; 65_536];
        while let Ok(len @ 1..) = self.theirs.read(&mut buffer) {
            all.extend(self.client.take(&buffer[..len]).unwrap());
        }
        String::from_utf8(all).unwrap()
    }
}

#[test]
fn a_batch_is_encrypted_once_per_connection_and_is_one_send() {
    let mut rig = Rig::new(settings(4 << 20));
    let mut streams: Vec<_> = (0..3).map(|_| SecureStream::open(&mut rig)).collect();
    let sends = rig.shard.metrics().sends.get();
    for id in 0..10 {
        rig.publish("a", &id.to_string(), 100);
    }
    rig.turn();
    assert_eq!(rig.shard.metrics().sends.get(), sends + 3);
    for stream in &mut streams {
        assert_eq!(stream.received().matches("event: a\n").count(), 10);
    }
}

#[test]
fn a_full_socket_gets_the_rest_later_without_a_byte_lost_or_counted_twice() {
    let mut rig = Rig::new(settings(4 << 20));
    let mut stream = SecureStream::open(&mut rig);
    for id in 0..300 {
        rig.publish("a", &format!("id{id}"), 2_000);
        rig.turn();
        let connection = rig.shard.connections().get(stream.address).unwrap();
        assert_eq!(connection.queued_bytes() as u64, rig.shard.metrics().queue_bytes.get());
    }
    assert!(rig.shard.connections().get(stream.address).unwrap().blocked);
    rig.shard.send_control(stream.address, Bytes::from_static(b": control\n\n"));
    let mut text = String::new();
    while !text.contains("\"id299\"") {
        text.push_str(&stream.received());
        rig.shard.flush_queue(stream.address);
    }
    assert_eq!(text.matches("event: a\n").count(), 300);
    let places: Vec<_> = (0..300).map(|id| text.find(&format!("\"id{id}\"")).unwrap()).collect();
    assert!(places.is_sorted());
    assert!(
        text.find(": control").unwrap() < *places.last().unwrap(),
        "control frames overtake what is not encrypted yet"
    );
    assert_eq!(rig.shard.metrics().queue_bytes.get(), 0);
    assert!(!rig.shard.connections().get(stream.address).unwrap().blocked);
}

#[test]
fn a_client_that_never_reads_is_ended_at_its_bound_and_leaves_nothing_in_the_gauges() {
    const BOUND: usize = 100_000;
    let mut rig = Rig::new(settings(BOUND));
    let (slow, mut quick) = (SecureStream::open(&mut rig), SecureStream::open(&mut rig));
    let mut published = 0;
    while rig.closing(slow.address) == Closing::No {
        rig.publish("a", &published.to_string(), 2_000);
        rig.turn();
        published += 1;
        assert_eq!(quick.received().matches("event: a\n").count(), 1);
        let waiting = rig.shard.connections().get(slow.address).unwrap().queued_bytes();
        assert!(waiting <= BOUND, "{waiting} bytes wait");
    }
    assert_eq!(rig.shard.metrics().connections_slow.get(), 1);
    assert_eq!(rig.shard.metrics().queue_bytes.get(), 0, "what waited goes at once");
    rig.shard.remove(slow.address);
    assert_eq!(rig.shard.metrics().queue_bytes.get(), 0);
}

#[test]
fn bytes_sent_by_somebody_else_are_not_sent_again() {
    let mut rig = Rig::new(settings(4 << 20));
    let mut stream = SecureStream::open(&mut rig);
    while !rig.shard.connections().get(stream.address).unwrap().blocked {
        rig.publish("a", "1", 4_000);
        rig.turn();
    }
    let mut text = stream.received();
    let mut probe = Vec::new();
    rig.shard.connections().get(stream.address).unwrap().gather(&mut probe, 100);
    text.push_str(std::str::from_utf8(&stream.client.take(&probe).unwrap()).unwrap());
    rig.shard.sent(stream.address, probe.len());
    while !rig.shard.flush_queue(stream.address) {
        text.push_str(&stream.received());
    }
    text.push_str(&stream.received());
    assert_eq!(text.matches("event: a\n").count(), text.matches("\"id\":\"1\"").count());
    assert_eq!(rig.shard.metrics().queue_bytes.get(), 0);
}

#[test]
fn what_waits_as_plaintext_goes_on_where_the_session_has_sent_the_rest_by_itself() {
    let mut rig = Rig::new(settings(4 << 20));
    let mut stream = SecureStream::open(&mut rig);
    for id in 0..300 {
        rig.publish("a", &id.to_string(), 4_000);
        rig.turn();
    }
    let mut text = stream.received();
    while !rig.shard.flush_queue(stream.address) {
        assert!(!rig.shard.can_go_on(stream.address), "it is the socket that has no room");
        // As when the connection's task reads, and finds that the session has something to say.
        let session = rig.shard.connections().get(stream.address).unwrap().tls.clone().unwrap();
        let waiting = session.borrow().waiting().to_vec();
        text.push_str(&stream.received());
        text.push_str(std::str::from_utf8(&stream.client.take(&waiting).unwrap()).unwrap());
        session.borrow_mut().sent(waiting.len());
        rig.shard.settle_sealed(stream.address);
        assert!(rig.shard.can_go_on(stream.address), "nobody will wake the task");
    }
    text.push_str(&stream.received());
    assert_eq!(text.matches("event: a\n").count(), 300);
    assert!(!rig.shard.can_go_on(stream.address));
    assert_eq!(rig.shard.metrics().queue_bytes.get(), 0);
}

#[test]
fn a_client_that_is_shed_is_counted_once_too() {
    let limits = LimitSettings { max_queued_bytes: 50_000, ..LimitSettings::default() };
    let mut rig = Rig::new(ShardSettings { limits, ..settings(4 << 20) });
    let stream = SecureStream::open(&mut rig);
    while rig.closing(stream.address) == Closing::No {
        rig.publish("a", "1", 4_000);
        rig.turn();
    }
    assert_eq!(rig.shard.metrics().connections_shed.get(), 1);
    assert_eq!(rig.shard.metrics().queue_bytes.get(), 0, "its memory goes at once");
    rig.shard.remove(stream.address);
    assert_eq!(rig.shard.metrics().queue_bytes.get(), 0);
}

#[test]
fn a_slow_client_may_have_events_left_out_that_are_not_encrypted_yet() {
    const BOUND: usize = 40_000;
    let mut rig = Rig::new(settings(BOUND));
    let mut stream = SecureStream::open(&mut rig);
    rig.shard.set_slow_client(stream.address, SlowClient::Drop);
    for id in 0..1_000 {
        rig.publish("a", &format!("id{id}"), 2_000);
        if id % 50 == 0 {
            // One send of a batch may be more than the bound, and is encrypted as a whole.
            rig.turn();
        }
        assert_eq!(rig.closing(stream.address), Closing::No);
        let connection = rig.shard.connections().get(stream.address).unwrap();
        assert_eq!(connection.queued_bytes() as u64, rig.shard.metrics().queue_bytes.get());
    }
    rig.turn();
    let mut text = String::new();
    while !rig.shard.flush_queue(stream.address) {
        text.push_str(&stream.received());
    }
    text.push_str(&stream.received());
    let dropped = rig.shard.metrics().events_dropped.get();
    assert!(dropped > 0 && text.contains("\"id999\"") && text.contains("tidegate.dropped"), "{dropped} dropped");
    assert_eq!(text.matches("event: a\n").count() as u64 + dropped, 1_000);
    assert_eq!(rig.shard.metrics().connections_slow.get(), 0);
    assert_eq!(rig.shard.metrics().queue_bytes.get(), 0);
}
