//! Event streams that hyper pulls, whose clients may never let it.

use super::*;

fn pulled(rig: &mut Rig, event_type: &str) -> Address {
    let address = rig.shard.open_detached(Output::Pulled, |_| "token".to_owned(), 0);
    let list = parse_list(&format!(r#"[{{"eventType":"{event_type}"}}]"#)).unwrap();
    rig.shard.set_subscriptions(address, &list, None);
    rig.shard.opened(address);
    rig.turn();
    address
}

#[test]
fn streams_that_reach_their_bounds_together_cost_nobody_else_a_connection() {
    let limits = LimitSettings { max_queued_bytes: 100_000, ..LimitSettings::default() };
    let mut rig = Rig::new(ShardSettings { max_queue_bytes: 40_000, limits, ..settings() });
    let stalled = [(); 4].map(|()| pulled(&mut rig, "busy"));
    let innocent = pulled(&mut rig, "quiet");
    rig.publish("quiet", "1", 1_000);
    rig.turn();
    // Each of them takes its queue to the bound while the others' queues are still there.
    for (number, address) in stalled.into_iter().enumerate() {
        while rig.closing(address) == Closing::No {
            rig.shard.send(address, bytes::Bytes::from(vec![b'x'; 9_000]));
        }
        assert_eq!(rig.shard.connections().get(address).unwrap().queued_bytes(), 0);
        assert_eq!(rig.shard.metrics().connections_slow.get(), number as u64 + 1);
    }
    rig.publish("quiet", "2", 1_000);
    rig.turn();
    assert_eq!((rig.shard.metrics().connections_shed.get(), rig.closing(innocent)), (0, Closing::No));
    let waiting = rig.shard.connections().get(innocent).unwrap().queued_bytes();
    assert_eq!(rig.shard.metrics().queue_bytes.get(), waiting as u64, "nothing else counts");
}

#[test]
fn what_was_cut_off_gets_nothing_more_in_place_of_what_waited() {
    let mut rig = Rig::new(settings());
    let (address, _ours, mut client) = rig.event_stream(r#"[{"eventType":"a"}]"#);
    rig.turn();
    while !rig.shard.connections().get(address).unwrap().blocked {
        rig.publish("a", "1", 2_000);
        rig.turn();
    }
    rig.shard.close(address, Closing::Now);
    assert_eq!(rig.shard.metrics().queue_bytes.get(), 0);
    received(&mut client);
    rig.shard.tick(60_000);
    rig.shard.send(address, bytes::Bytes::from_static(b"more"));
    assert_eq!(received(&mut client), "", "heartbeats neither");
}
