use rustls::RootCertStore;
use rustls::version::{TLS12, TLS13};

use super::client_tests::{TestClient, server_config};
use super::{HandshakeFailure, Session};

fn session() -> Session {
    Session::new(server_config()).unwrap()
}

fn read_all(session: &mut Session) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = [0; 7];
    loop {
        let len = session.read(&mut piece);
        if len == 0 {
            return all;
        }
        all.extend_from_slice(&piece[..len]);
    }
}

#[test]
fn a_handshake_and_what_follows_may_come_split_at_any_point() {
    for version in [&TLS12, &TLS13] {
        for step in [1, 2, 3, 5, 64, 1_000, 100_000] {
            let (mut session, mut client) = (session(), TestClient::new(version, "http/1.1"));
            client.shake(&mut session, step);
            assert_eq!(session.is_tls13(), version.version == TLS13.version);
            let mut heard = Vec::new();
            for piece in client.say(&[b'q'; 20_000]).chunks(step) {
                session.receive(&mut piece.to_vec()).unwrap();
                heard.extend(read_all(&mut session));
            }
            assert_eq!(heard, [b'q'; 20_000]);
            let mut sealed = Vec::new();
            session.seal(&[b'a'; 40_000], &mut sealed).unwrap();
            let mut heard = Vec::new();
            for piece in sealed.chunks(step.max(16)) {
                heard.extend(client.take(piece).unwrap());
            }
            assert_eq!(heard, [b'a'; 40_000]);
        }
    }
}

#[test]
fn a_record_may_be_cut_at_each_of_its_bytes() {
    for version in [&TLS12, &TLS13] {
        let (mut session, mut client) = (session(), TestClient::new(version, "http/1.1"));
        client.shake(&mut session, 4_096);
        let len = client.say(b"GET / HTTP/1.1").len();
        // That record was lost on purpose, so a new connection for each cut.
        for cut in 0..=len {
            let (mut session, mut client) = (self::session(), TestClient::new(version, "http/1.1"));
            client.shake(&mut session, 4_096);
            let mut record = client.say(b"GET / HTTP/1.1");
            let (first, second) = record.split_at_mut(cut);
            session.receive(first).unwrap();
            // Sending in the middle of a record that comes in disturbs neither.
            let mut sealed = Vec::new();
            session.seal(b"event", &mut sealed).unwrap();
            assert_eq!(client.take(&sealed).unwrap(), b"event");
            session.receive(second).unwrap();
            assert_eq!(read_all(&mut session), b"GET / HTTP/1.1");
        }
    }
}

#[test]
fn bytes_that_the_socket_does_not_take_go_out_before_what_is_sealed_next() {
    let (mut session, mut client) = (session(), TestClient::new(&TLS13, "http/1.1"));
    client.shake(&mut session, 4_096);
    let mut sealed = Vec::new();
    session.seal(b"one", &mut sealed).unwrap();
    let (out, rest) = sealed.split_at(5);
    assert!(client.take(out).unwrap().is_empty());
    session.keep(rest);
    assert_eq!(session.waiting().len(), rest.len());
    session.sent(1);
    assert_eq!(session.waiting().len(), rest.len() - 1);
    let sent = rest[..1].to_vec();
    assert!(client.take(&sent).unwrap().is_empty());
    session.seal(b"two", &mut sealed).unwrap();
    assert!(session.waiting().is_empty());
    assert_eq!(client.take(&sealed).unwrap(), b"onetwo");
}

#[test]
fn either_side_may_say_that_it_has_ended() {
    for version in [&TLS12, &TLS13] {
        let (mut session, mut client) = (session(), TestClient::new(version, "http/1.1"));
        client.shake(&mut session, 4_096);
        session.end().unwrap();
        let goodbye = session.waiting().to_vec();
        client.take(&goodbye).unwrap();
        let mut end = [0];
        assert_eq!(std::io::Read::read(&mut client.tls.reader(), &mut end).unwrap(), 0, "an orderly end");
        client.tls.send_close_notify();
        session.receive(&mut client.outgoing()).unwrap();
        assert!(session.is_ended());
    }
}

#[test]
fn a_client_may_change_its_keys_and_is_answered() {
    let (mut session, mut client) = (session(), TestClient::new(&TLS13, "http/1.1"));
    client.shake(&mut session, 4_096);
    client.tls.refresh_traffic_keys().unwrap();
    session.receive(&mut client.say(b"with the new keys")).unwrap();
    assert_eq!(read_all(&mut session), b"with the new keys");
    let mut sealed = Vec::new();
    session.seal(b"answer", &mut sealed).unwrap();
    assert_eq!(client.take(&sealed).unwrap(), b"answer");
}

#[test]
fn what_breaks_the_protocol_is_refused_with_an_alert_and_a_reason() {
    let mut garbled = session();
    let error = garbled.receive(&mut b"\x16\x03\x01\x00\x05hello".to_vec()).unwrap_err();
    assert_eq!(HandshakeFailure::from(&error), HandshakeFailure::Malformed);

    let (mut session, mut client) = (session(), TestClient::new(&TLS13, "smtp"));
    let error = session.receive(&mut client.outgoing()).unwrap_err();
    assert_eq!(HandshakeFailure::from(&error), HandshakeFailure::Incompatible);
    let told = client.take(session.waiting()).unwrap_err();
    assert_eq!(told, rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol));

    let (mut session, mut client) = (self::session(), TestClient::trusting(RootCertStore::empty(), &TLS13, "http/1.1"));
    session.receive(&mut client.outgoing()).unwrap();
    client.take(session.waiting()).unwrap_err();
    let error = session.receive(&mut client.outgoing()).unwrap_err();
    assert_eq!(HandshakeFailure::from(&error), HandshakeFailure::RefusedByClient);
}

#[test]
fn a_changed_record_ends_the_session() {
    let (mut session, mut client) = (session(), TestClient::new(&TLS13, "http/1.1"));
    client.shake(&mut session, 4_096);
    let mut record = client.say(b"pay 10");
    *record.last_mut().unwrap() ^= 1;
    session.receive(&mut record.clone()).unwrap_err();
    assert!(read_all(&mut session).is_empty());
    assert!(!session.waiting().is_empty(), "an alert");
    // Whatever follows is refused too.
    session.receive(&mut record).unwrap_err();
    session.seal(b"late", &mut Vec::new()).unwrap_err();
}

#[test]
fn handshake_messages_that_never_end_are_not_kept_without_bound() {
    let mut session = session();
    // A client hello of 64 KiB, in records that come one after the other.
    let mut bytes = vec![22, 3, 1, 0x3f, 0xff, 1, 0, 0xff, 0xff];
    bytes.resize(5 + 0x3fff, 0);
    let mut record = vec![22, 3, 1, 0x3f, 0xff];
    record.resize(5 + 0x3fff, 0);
    let mut refused = session.receive(&mut bytes).is_err();
    for _ in 0..16 {
        refused |= session.receive(&mut record.clone()).is_err();
    }
    assert!(refused);
}
