//! How much a long-polling client gets at a time.

use super::super::session::{MAX_ANSWER_BYTES, MAX_UNTAKEN_BYTES};
use super::*;

const EVENT_BYTES: usize = 20_000;

/// A session that keeps this many events of [`EVENT_BYTES`] and a little, with the ids from 0 on.
fn session_with(rig: &mut Rig, count: usize) -> Address {
    let output = Output::Session(Box::new(LongPolling::new(0)));
    let address = rig.shard.open_detached(output, |_| "token".to_owned(), 0);
    rig.shard.set_subscriptions(address, &parse_list(r#"[{"eventType":"a"}]"#).unwrap(), None);
    rig.shard.opened(address);
    rig.turn();
    for id in 0..count {
        rig.publish("a", &id.to_string(), EVENT_BYTES);
        rig.turn();
    }
    address
}

fn poll(rig: &mut Rig, address: Address, last_event_id: &str) -> oneshot::Receiver<PollAnswer> {
    let (reply, answer) = oneshot::channel();
    rig.shard.poll(address, last_event_id.to_owned(), reply, 0);
    answer
}

fn answered(mut answer: oneshot::Receiver<PollAnswer>) -> PollAnswer {
    answer.try_recv().unwrap().expect("an answer at once")
}

/// The ids of the events that were published.
fn ids(answer: &PollAnswer) -> Vec<usize> {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let ids = body["events"].as_array().unwrap().iter().filter_map(|event| event["id"].as_str().unwrap().parse().ok());
    ids.collect()
}

#[test]
fn a_large_buffer_comes_in_several_answers_each_event_once() {
    let mut rig = Rig::new(settings());
    let address = session_with(&mut rig, 60);
    let (mut last_event_id, mut seen) = ("first_event".to_owned(), Vec::new());
    while seen.len() < 60 {
        let answer = answered(poll(&mut rig, address, &last_event_id));
        assert!(answer.body.len() < MAX_ANSWER_BYTES + EVENT_BYTES, "{} bytes", answer.body.len());
        seen.extend(ids(&answer));
        assert_eq!(answer.last_event_id, seen.last().unwrap().to_string());
        last_event_id = answer.last_event_id;
    }
    assert_eq!(seen, (0..60).collect::<Vec<_>>());
    assert_eq!(poll(&mut rig, address, &last_event_id).try_recv(), Ok(None), "there is no more");
}

#[test]
fn a_client_that_takes_no_answer_gets_no_more_events_until_it_does_and_misses_none() {
    let mut rig = Rig::new(settings());
    let address = session_with(&mut rig, 60);
    let mut untaken = Vec::new();
    let mut waiting = loop {
        let mut answer = poll(&mut rig, address, "first_event");
        match answer.try_recv().unwrap() {
            Some(answer) => untaken.push(answer),
            None => break answer,
        }
    };
    let held: usize = untaken.iter().map(|answer| answer.body.len()).sum();
    assert!((MAX_UNTAKEN_BYTES..MAX_UNTAKEN_BYTES + MAX_ANSWER_BYTES + EVENT_BYTES).contains(&held), "{held} bytes");
    rig.publish("a", "60", 10);
    rig.turn();
    assert_eq!(waiting.try_recv(), Ok(None), "an event changes nothing");
    rig.shard.tick(100_000);
    let nothing = answered(waiting);
    assert_eq!(&nothing.body[..], br#"{"last_event_id":"first_event","events":[]}"#);
    assert_eq!((&*nothing.last_event_id, nothing.cursor), ("first_event", None));
    // A piece of an answer, wherever it is, holds the whole of it.
    let piece = untaken.pop().unwrap().body.slice(..10);
    assert_eq!(poll(&mut rig, address, "first_event").try_recv(), Ok(None));
    drop(piece);
    assert_eq!(ids(&answered(poll(&mut rig, address, "first_event")))[0], 0);
}

#[test]
fn a_session_of_a_draining_shard_stays_until_its_client_has_the_rest() {
    let mut rig = Rig::new(settings());
    let address = session_with(&mut rig, 20);
    rig.shard.start_drain(0, 0);
    let first = answered(poll(&mut rig, address, "first_event"));
    let count = ids(&first).len();
    assert!(count < 20 && rig.shard.connections().get(address).is_some(), "{count} of 20");
    let last = answered(poll(&mut rig, address, &first.last_event_id));
    assert_eq!(ids(&last), (count..20).collect::<Vec<_>>());
    assert!(rig.shard.connections().get(address).is_none(), "its client goes elsewhere");
}
