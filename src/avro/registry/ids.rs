//! What ids stand for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_shards::bell::Bell;
use tidegate_shards::clock;
use tokio::runtime::Handle;

use super::ask::Asker;
use super::{Lookup, NoSchema};

/// Ids that are remembered; beyond, those without a schema are forgotten, or all where that makes no room.
const MAX_IDS: usize = 10_000;
/// The largest id that there can be: registries count in signed numbers of 32 bits.
const LARGEST_ID: u32 = i32::MAX as u32;
/// How long an id that the registry doesn't have is not asked for again, in milliseconds.
const UNUSABLE_MS: u64 = 10_000;
/// Pause before a registry that can't be reached is asked again; it doubles each time.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// Longest such pause.
const MAX_RETRY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Ids {
    asker: Arc<Asker>,
    runtime: Handle,
    known: Arc<Known>,
}

#[derive(Debug, Default)]
struct Known {
    entries: Mutex<HashMap<u32, Entry, ahash::RandomState>>,
    bells: Mutex<Vec<Bell>>,
}

#[derive(Debug)]
struct Entry {
    lookup: Lookup,
    /// When it is to be asked for again.
    until_ms: u64,
}

impl Ids {
    pub(super) fn new(asker: Arc<Asker>, runtime: Handle) -> Self {
        Self { asker, runtime, known: Arc::default() }
    }

    pub(super) fn wake(&self, bell: &Bell) {
        self.known.bells.lock().unwrap_or_else(PoisonError::into_inner).push(bell.clone());
    }

    pub(super) fn look_up(&self, id: u32) -> Lookup {
        if id > LARGEST_ID {
            return Lookup::Unusable(format!("no schema can have the id {id}").into());
        }
        let mut entries = self.known.entries();
        if let Some(entry) = entries.get(&id).filter(|entry| clock::now_ms() < entry.until_ms) {
            return entry.lookup.clone();
        }
        make_room(&mut entries);
        entries.insert(id, Entry { lookup: Lookup::Asked, until_ms: u64::MAX });
        drop(entries);
        let (asker, known) = (Arc::clone(&self.asker), Arc::clone(&self.known));
        self.runtime.spawn(async move {
            let (lookup, until_ms) = ask_until_answered(&asker, id).await;
            known.entries().insert(id, Entry { lookup, until_ms });
            known.bells.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(Bell::ring);
        });
        Lookup::Asked
    }
}

impl Known {
    fn entries(&self) -> MutexGuard<'_, HashMap<u32, Entry, ahash::RandomState>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(entries: &mut HashMap<u32, Entry, ahash::RandomState>) {
    if entries.len() < MAX_IDS {
        return;
    }
    entries.retain(|_, entry| matches!(entry.lookup, Lookup::Known(_)));
    // Or every id that has none would cost a look at all.
    if entries.len() > MAX_IDS / 2 {
        entries.clear();
    }
}

async fn ask_until_answered(asker: &Asker, id: u32) -> (Lookup, u64) {
    let mut pause = FIRST_RETRY;
    loop {
        match asker.id(id).await {
            Ok(found) => return (Lookup::Known(found.schema), u64::MAX),
            Err(NoSchema::Unusable(reason)) => return (Lookup::Unusable(reason), clock::now_ms() + UNUSABLE_MS),
            Err(NoSchema::Away(_)) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_RETRY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::codec::Schema;

    fn entries(known: u32, unusable: u32) -> HashMap<u32, Entry, ahash::RandomState> {
        let schema = Arc::new(Schema::parse("\"int\"").unwrap());
        let entry = |id| {
            let lookup = if id < known { Lookup::Known(Arc::clone(&schema)) } else { Lookup::Unusable("".into()) };
            (id, Entry { lookup, until_ms: u64::MAX })
        };
        (0..known + unusable).map(entry).collect()
    }

    #[test]
    fn ids_without_a_schema_do_not_drive_out_those_with_one() {
        let mut few = entries(10, 20);
        make_room(&mut few);
        assert_eq!(few.len(), 30);
        let mut many = entries(10, 9_990);
        make_room(&mut many);
        assert_eq!(many.len(), 10);
        let mut good = entries(9_000, 1_000);
        make_room(&mut good);
        assert!(good.is_empty());
    }
}
