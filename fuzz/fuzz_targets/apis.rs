//! Records of the topic of API definitions, and what the internal port makes of them.
//!
//! The input is texts with NUL bytes between them: each is first a record, then a new definition, then a change of the first API
//! there is. The store is compiled into this target, so that nothing of Kafka is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidegate_shards::proxy::counts::RequestCounters;
use tidegate_shards::proxy::definition::Surroundings;
use tidegate_shards::proxy::table::ApiTable;

#[path = "../../src/proxy/store.rs"]
#[allow(dead_code, reason = "what only the gateway calls")]
mod store;

use store::{Change, Record, Refusal, Store};

const CHANGE: Change<'static> = Change { node_name: "node", timestamp: "2026-01-01T00:00:00.000000Z" };
const MOST_RECORDS: usize = 16;

fuzz_target!(|input: &[u8]| {
    let mut store = Store::default();
    let surroundings = Surroundings { environment: &|_| None, avro: input.len() % 2 == 1 };
    for text in input.split(|&byte| byte == 0).take(MOST_RECORDS) {
        let value: Value = serde_json::from_slice(text).unwrap_or_default();
        if let Ok((record, _)) = Store::read(text, &surroundings) {
            assert_eq!(record.to_json(), value, "a record is kept as it was stored");
            keep(&mut store, record, &surroundings);
        }
        match store.post(&value, CHANGE, &surroundings) {
            Ok(record) => {
                assert!(store.active(record.id()).is_err(), "a second API of the same name");
                keep(&mut store, record, &surroundings);
            }
            Err(Refusal::Exists(id)) => assert!(store.active(&id).is_ok()),
            Err(refusal) => assert!(matches!(refusal, Refusal::Invalid(_)), "{refusal}"),
        }
        let Some(id) = store.list().next().map(|record| record.id().to_owned()) else { continue };
        if let Ok(record) = store.put(&id, &value, CHANGE, &surroundings) {
            assert_eq!(record.id(), id, "a change changes the id");
            keep(&mut store, record, &surroundings);
        }
    }
    let ids: Vec<String> = store.list().map(|record| record.id().to_owned()).collect();
    for id in &ids {
        let record = store.delete(id, CHANGE).expect("it is there");
        keep(&mut store, record, &surroundings);
        assert!(store.active(id).is_err(), "what was deleted is shown");
    }
    for id in &ids {
        store.remove(id);
    }
});

/// What a node writes, all nodes read; and there is a table of it.
fn keep(store: &mut Store, record: Record, surroundings: &Surroundings<'_>) {
    let json = record.to_json();
    let (again, _) = Store::read(json.to_string().as_bytes(), surroundings).expect("what is written is read");
    assert_eq!((again.id(), again.to_json()), (record.id(), json));
    store.apply(record);
    let here = store.routes();
    store.apply(again);
    let elsewhere = store.routes();
    let name = |routes: &[tidegate_shards::proxy::table::Route]| -> Vec<String> {
        routes.iter().map(|route| route.regex.as_str().to_owned()).collect()
    };
    assert_eq!(name(&here), name(&elsewhere), "another node has other endpoints");
    let _ = ApiTable::new(here, &mut RequestCounters::new(1));
}
