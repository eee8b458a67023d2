use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::json;

use super::*;

/// A shard whose lane is full so many times, and then takes what it is handed.
struct Shard {
    refusals: AtomicUsize,
    taken: Mutex<Sender<Arc<ApiTable>>>,
}

impl Serves for Shard {
    fn set_apis(&self, table: &Arc<ApiTable>) -> Result<InForce, ControlFull> {
        let refuse = |left: usize| left.checked_sub(1);
        if self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refuse).is_ok() {
            return Err(ControlFull);
        }
        self.taken.lock().expect("no panic").send(Arc::clone(table)).expect("the test listens");
        Ok(Vec::new())
    }
}

fn apis() -> Arc<Apis> {
    let sources =
        ApiSources { definitions: &[], kafka: None, state_dir: None, avro: false, node_name: "node", shards: 1 };
    Apis::open(&sources).expect("no file is needed")
}

fn served(apis: &Arc<Apis>) -> (Arc<Shard>, Receiver<Arc<ApiTable>>) {
    let (taken, tables) = channel();
    let shard = Arc::new(Shard { refusals: AtomicUsize::new(0), taken: Mutex::new(taken) });
    let weak = Arc::downgrade(&shard);
    apis.serve_with(weak);
    assert_eq!(next(&tables), 0);
    (shard, tables)
}

/// Endpoints in the next table that the shard takes.
fn next(tables: &Receiver<Arc<ApiTable>>) -> usize {
    tables.recv_timeout(Duration::from_secs(60)).expect("a table").len()
}

fn post(apis: &Arc<Apis>, id: &str) -> Result<(), ChangeError> {
    let body = json!({
        "id": id, "name": id, "proxy": { "target_url": "localhost", "port": 1 },
        "version_data": { "default": { "endpoints": [
            { "id": "e", "method": "GET", "path_regex": format!("/{id}") }
        ] } },
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(apis.post(body))
}

#[test]
fn a_change_that_a_shard_has_no_room_for_is_handed_to_it_until_it_has() {
    let apis = apis();
    let (shard, tables) = served(&apis);
    post(&apis, "a").expect("there is room");
    assert_eq!(next(&tables), 1);
    for (id, count) in [("b", 2), ("c", 3)] {
        shard.refusals.store(2, Ordering::Relaxed);
        let refused = post(&apis, id);
        assert!(matches!(refused, Err(ChangeError::NotInForce(_))), "{refused:?}");
        assert_eq!(next(&tables), count, "without a further change");
    }
    assert!(!apis.state().changed);
}
