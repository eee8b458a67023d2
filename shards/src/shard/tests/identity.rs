//! Connections that belong to somebody.

use super::super::identity::{Identity, TOKEN_WARNING_MS};
use super::*;
use crate::clock;
use crate::sessions::{Fingerprint, SessionWriter};

/// A shard whose time since 1970 is its own clock, and the one who writes its blacklist.
fn rig() -> (Rig, SessionWriter) {
    let writer = SessionWriter::new(clock::now_ms());
    let rig = Rig::new(ShardSettings { sessions: Arc::clone(writer.table()), heartbeat_ms: 1 << 40, ..settings() });
    (rig, writer)
}

fn of_session(session: &str) -> Identity {
    Identity { sessions: vec![Fingerprint::of(session)], expires_at_s: None }
}

fn until(expires_at_s: u64) -> Identity {
    Identity { sessions: Vec::new(), expires_at_s: Some(expires_at_s) }
}

impl Rig {
    /// Turns the wheel up to a time, in the steps of the node's clock.
    fn wait(&mut self, from_ms: u64, to_ms: u64) {
        (from_ms..=to_ms).step_by(50).for_each(|now_ms| self.shard.tick(now_ms));
    }
}

#[test]
fn a_blacklisted_session_ends_its_connections_on_every_transport_and_no_other() {
    let (mut rig, mut writer) = rig();
    let (events, _a, mut event_client) = rig.stream("[]", |fd| Output::EventStream { fd, chunked: true });
    let (socket, _b, mut socket_client) = rig.stream("[]", Output::WebSocket);
    let (other, _c, mut other_client) = rig.event_stream("[]");
    let polling = Output::Session(Box::new(LongPolling::new(0)));
    let polling = rig.shard.open_detached(polling, |_| "token".to_owned(), 0);
    rig.shard.opened(polling);
    for address in [events, socket, polling] {
        rig.shard.identify(address, &of_session("thief"), 0);
    }
    rig.shard.identify(other, &of_session("owner"), 0);
    let (reply, mut waiting) = oneshot::channel();
    rig.shard.poll(polling, "first_event".to_owned(), reply, 0);
    let id = waiting.try_recv().unwrap().unwrap().last_event_id;
    let (reply, mut waiting) = oneshot::channel();
    rig.shard.poll(polling, id, reply, 0);
    for client in [&mut event_client, &mut socket_client, &mut other_client] {
        received(client);
    }
    writer.set(Fingerprint::of("thief"), 1 << 40).unwrap();
    rig.shard.tick(100);
    let text = received(&mut event_client);
    assert!(text.contains("event: rig.session_killed\n"), "{text}");
    assert!(text.as_bytes().ends_with(LAST_CHUNK), "{text}");
    assert!(received(&mut socket_client).ends_with("\u{3}\u{fffd}Session killed."), "1000 is 0x03e8");
    assert_eq!((rig.closing(events), rig.closing(socket)), (Closing::AfterFlush, Closing::AfterFlush));
    assert!(waiting.try_recv().unwrap().is_some(), "the call that waited was answered");
    assert!(rig.shard.connections().get(polling).is_none());
    assert_eq!((rig.closing(other), received(&mut other_client)), (Closing::No, String::new()));
    assert_eq!(rig.shard.metrics().connections_killed.get(), 3);
}

#[test]
fn a_connection_of_a_session_that_is_blacklisted_already_ends_at_once() {
    let (mut rig, mut writer) = rig();
    writer.set(Fingerprint::of("s"), 1 << 40).unwrap();
    rig.shard.tick(100);
    let (address, _a, mut client) = rig.stream("[]", |fd| Output::EventStream { fd, chunked: false });
    rig.shard.identify(address, &of_session("s"), 150);
    assert!(received(&mut client).contains("rig.session_killed"));
    assert_eq!(rig.closing(address), Closing::AfterFlush);
}

#[test]
fn a_client_that_does_not_read_is_cut_off_a_second_after_its_session_ended() {
    let (mut rig, mut writer) = rig();
    let (address, _ours, _client) = rig.event_stream(r#"[{"eventType":"a"}]"#);
    rig.turn();
    rig.shard.identify(address, &of_session("s"), 0);
    for id in 0..300 {
        rig.publish("a", &id.to_string(), 5_000);
        rig.turn();
    }
    assert!(rig.shard.connections().get(address).unwrap().blocked);
    writer.set(Fingerprint::of("s"), 1 << 40).unwrap();
    rig.wait(100, 1_050);
    assert_eq!(rig.closing(address), Closing::AfterFlush);
    rig.wait(1_100, 1_250);
    assert_eq!(rig.closing(address), Closing::Now);
}

#[test]
fn a_shard_that_missed_many_additions_still_ends_the_right_connections() {
    let (mut rig, mut writer) = rig();
    let (killed, _a, _b) = rig.event_stream("[]");
    let (kept, _c, _d) = rig.event_stream("[]");
    rig.shard.identify(killed, &of_session("5"), 0);
    rig.shard.identify(kept, &of_session("kept"), 0);
    (0..5_000).for_each(|number| writer.set(Fingerprint::of(&number.to_string()), 1 << 40).unwrap());
    rig.shard.tick(100);
    assert_eq!((rig.closing(killed), rig.closing(kept)), (Closing::AfterFlush, Closing::No));
}

#[test]
fn a_new_tenant_of_a_slot_does_not_inherit_the_session() {
    let (mut rig, mut writer) = rig();
    let (first, _a, _b) = rig.event_stream("[]");
    rig.shard.identify(first, &of_session("s"), 0);
    rig.shard.remove(first);
    let (second, _c, _d) = rig.event_stream("[]");
    assert_eq!(first.slot, second.slot);
    writer.set(Fingerprint::of("s"), 1 << 40).unwrap();
    rig.shard.tick(100);
    assert_eq!(rig.closing(second), Closing::No);
}

#[test]
fn a_connection_is_warned_a_minute_before_its_token_expires_and_then_ends() {
    let (mut rig, _writer) = rig();
    let (address, _a, mut client) = rig.event_stream("[]");
    let (socket, _b, mut socket_client) = rig.stream("[]", Output::WebSocket);
    for address in [address, socket] {
        rig.shard.identify(address, &until(100), 0);
    }
    received(&mut client);
    received(&mut socket_client);
    let warning_ms = 100_000 - TOKEN_WARNING_MS;
    rig.wait(50, warning_ms - 100);
    assert_eq!(received(&mut client), "");
    rig.wait(warning_ms - 50, 99_900);
    let warning = received(&mut client);
    assert_eq!(warning.matches("event: rig.token_expiring\n").count(), 1, "{warning}");
    assert!(warning.contains(r#""data":{"expires_at":100}"#), "{warning}");
    assert_eq!(rig.closing(address), Closing::No);
    rig.wait(99_950, 100_150);
    assert!(received(&mut client).contains("event: rig.token_expired\n"));
    let end = received(&mut socket_client);
    assert!(end.contains("rig.token_expiring") && end.ends_with("Token expired."), "{end}");
    assert_eq!((rig.closing(address), rig.closing(socket)), (Closing::AfterFlush, Closing::AfterFlush));
    assert_eq!(rig.shard.metrics().connections_expired.get(), 2);
}

#[test]
fn a_fresh_token_renews_a_connection_and_the_old_timers_mean_nothing() {
    let (mut rig, _writer) = rig();
    let (address, _a, mut client) = rig.event_stream("[]");
    rig.shard.identify(address, &until(100), 0);
    rig.wait(50, 60_000);
    assert!(received(&mut client).contains("rig.token_expiring"));
    rig.shard.identify(address, &until(300), 60_000);
    rig.wait(60_050, 239_900);
    assert_eq!((received(&mut client), rig.closing(address)), (String::new(), Closing::No));
    rig.wait(239_950, 299_900);
    assert_eq!(received(&mut client).matches("event: rig.token_expiring\n").count(), 1);
    rig.wait(299_950, 300_150);
    assert_eq!(rig.closing(address), Closing::AfterFlush);
}

#[test]
fn a_token_that_expires_sooner_than_the_one_before_counts_too() {
    let (mut rig, _writer) = rig();
    let (address, ..) = rig.event_stream("[]");
    rig.shard.identify(address, &until(100_000), 0);
    rig.shard.identify(address, &until(2), 0);
    rig.wait(50, 2_150);
    assert_eq!(rig.closing(address), Closing::Now, "its client has gone, so the last event finds no reader");
}

#[test]
fn a_renewed_connection_belongs_to_the_session_it_was_opened_with_and_the_newest() {
    for (session, ends) in [("opened", true), ("renewed", false), ("newest", true)] {
        let (mut rig, mut writer) = rig();
        let (address, _a, _b) = rig.event_stream("[]");
        for name in ["opened", "renewed", "newest"] {
            rig.shard.identify(address, &of_session(name), 0);
        }
        writer.set(Fingerprint::of(session), 1 << 40).unwrap();
        rig.shard.tick(100);
        assert_eq!(rig.closing(address) != Closing::No, ends, "{session}");
    }
}

#[test]
fn an_anonymous_connection_keeps_nothing() {
    let (mut rig, _writer) = rig();
    let (address, _a, _b) = rig.event_stream("[]");
    rig.shard.identify(address, &Identity::default(), 0);
    assert!(rig.shard.identities.is_empty());
    rig.shard.identify(address, &of_session("s"), 0);
    assert!(!rig.shard.identities.is_empty());
    rig.shard.remove(address);
    assert!(rig.shard.identities.is_empty());
}
