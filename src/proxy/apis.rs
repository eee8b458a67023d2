//! The definitions in force: changes come from the internal API and, with Kafka, from other nodes.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use rdkafka::error::KafkaError;
use serde_json::Value;
use tidegate_shards::mailbox::ControlFull;
use tidegate_shards::node::Node;
use tidegate_shards::proxy::counts::{Labels, RequestCounters, RequestCounts};
use tidegate_shards::proxy::definition::{Definition, Surroundings};
use tidegate_shards::proxy::table::{ApiTable, TableTooLarge};

use super::file::StateFile;
use super::offsets::{Mark, Offsets};
use super::store::{Change, Record, Refusal, Store};
use crate::config::KafkaSettings;
use crate::kafka::compacted::{CompactedLog, Entry, Subject};

/// Between two attempts to hand definitions to a shard that is too far behind.
const RETRY: Duration = Duration::from_secs(1);

/// Why a change did not happen, or not in full.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChangeError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be stored, and is not in force. A retry may help.
    #[error("the change could not be stored: {0}")]
    NotStored(String),
    /// It is stored, but a shard is too far behind to take it now; it comes into force once that has caught up.
    #[error("the change is stored, but not in force on every core: {0}")]
    NotInForce(String),
}

/// What definitions are made from at the start.
#[derive(Clone, Copy, Debug)]
pub struct ApiSources<'a> {
    /// Those of `PROXY_CONFIG_FILE`.
    pub definitions: &'a [Definition],
    /// Kafka, where there is one, and the topic of definitions.
    pub kafka: Option<(&'a KafkaSettings, &'a str)>,
    /// `STATE_DIR`, for the time without Kafka.
    pub state_dir: Option<&'a Path>,
    /// Whether `KAFKA_SERIALIZER=avro`.
    pub avro: bool,
    /// `node_name` of changes made here.
    pub node_name: &'a str,
    /// Number of shards.
    pub shards: usize,
}

/// Where changes are kept.
#[derive(Debug)]
enum Keeper {
    /// In the topic.
    Log,
    /// In the file.
    File(StateFile),
    /// Nowhere; whether that was said.
    Memory(AtomicBool),
}

#[derive(Debug)]
struct State {
    store: Store,
    counters: RequestCounters,
    offsets: Offsets,
    /// There is something that not every shard has yet.
    changed: bool,
    /// It is tried again to hand it to them.
    retrying: bool,
    /// Who serves with the definitions.
    node: Option<Weak<dyn Serves>>,
}

/// Who serves with the definitions: the shards of a node.
trait Serves: Send + Sync {
    /// See [`Node::set_apis`].
    fn set_apis(&self, table: &Arc<ApiTable>) -> Result<InForce, ControlFull>;
}

impl Serves for Node {
    fn set_apis(&self, table: &Arc<ApiTable>) -> Result<InForce, ControlFull> {
        Node::set_apis(self, table)
    }
}

/// Why definitions are not in force on every shard.
#[derive(Debug, thiserror::Error)]
enum Withheld {
    #[error(transparent)]
    TooLarge(#[from] TableTooLarge),
    #[error("a shard is too far behind")]
    Full,
}

/// The API definitions of this node.
#[derive(Debug)]
pub struct Apis {
    state: Mutex<State>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    keeper: Keeper,
    log: OnceLock<CompactedLog>,
    node_name: String,
    avro: bool,
}

impl Apis {
    /// Reads everything that is stored. With Kafka it waits a bounded time for it; what comes later comes into force then.
    ///
    /// # Errors
    /// The state file can't be used, librdkafka refuses a setting, or all definitions together are too large.
    pub fn open(sources: &ApiSources<'_>) -> io::Result<Arc<Self>> {
        let keeper = match (sources.kafka, sources.state_dir) {
            (Some(_), _) => Keeper::Log,
            (None, Some(folder)) => Keeper::File(StateFile::open(folder)?),
            (None, None) => Keeper::Memory(AtomicBool::new(false)),
        };
        let state = State {
            store: Store::default(),
            counters: RequestCounters::new(sources.shards),
            offsets: Offsets::default(),
            changed: false,
            retrying: false,
            node: None,
        };
        let apis = Arc::new(Self {
            state: Mutex::new(state),
            changing: tokio::sync::Mutex::default(),
            keeper,
            log: OnceLock::new(),
            node_name: sources.node_name.to_owned(),
            avro: sources.avro,
        });
        let timestamp = now();
        let change = Change { node_name: sources.node_name, timestamp: &timestamp };
        for definition in sources.definitions {
            apis.state().store.apply(Store::initial(definition, change));
        }
        if let Keeper::File(file) = &apis.keeper {
            for record in file.records() {
                if let Some(record) = apis.read_stored(record.to_string().as_bytes()) {
                    apis.state().store.apply(record);
                }
            }
        }
        if let Some((settings, topic)) = sources.kafka {
            apis.follow(settings, topic)?;
        }
        Ok(apis)
    }

    fn follow(self: &Arc<Self>, settings: &KafkaSettings, topic: &str) -> io::Result<()> {
        let follower = Arc::downgrade(self);
        let log = CompactedLog::start(
            settings,
            topic,
            Subject { thread: "api-log", records: "API definitions" },
            Box::new(move |entry| {
                if let Some(apis) = follower.upgrade() {
                    apis.take_entry(&entry);
                }
            }),
        )?;
        if !log.wait_until_read_back() {
            tracing::warn!(
                topic,
                "Kafka did not hand out the stored API definitions yet; starting with those of PROXY_CONFIG_FILE, the stored \
                 ones come into force once Kafka answers"
            );
        }
        // Set once, here.
        let _ = self.log.set(log);
        Ok(())
    }

    /// The table to start the shards with.
    ///
    /// # Errors
    /// All definitions together are too large.
    pub fn table(&self) -> io::Result<Arc<ApiTable>> {
        let mut state = self.state();
        state.changed = false;
        state.table().map_err(io::Error::other)
    }

    /// Changes come into force on this node's shards from now on, those too that came meanwhile.
    pub fn serve(self: &Arc<Self>, node: &Arc<Node>) {
        let node = Arc::downgrade(node);
        self.serve_with(node);
    }

    fn serve_with(self: &Arc<Self>, node: Weak<dyn Serves>) {
        let mut state = self.state();
        state.node = Some(node);
        self.bring_into_force(&mut state);
    }

    /// Ends following and waits for writes in flight. No change comes into force any more.
    pub fn stop(&self) {
        self.state().node = None;
        if let Some(log) = self.log.get() {
            log.stop();
        }
    }

    /// How many endpoints match.
    #[must_use]
    pub fn endpoints(&self) -> usize {
        self.state().store.routes().len()
    }

    /// Active APIs, by id.
    #[must_use]
    pub fn list(&self) -> Value {
        Value::Array(self.state().store.list().map(Record::to_json).collect())
    }

    /// One active API.
    ///
    /// # Errors
    /// There is none with this id.
    pub fn get(&self, id: &str) -> Result<Value, Refusal> {
        self.state().store.active(id).map(Record::to_json)
    }

    /// Takes a new API in; it is stored, and in force on every shard, on return.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn post(self: &Arc<Self>, body: Value) -> Result<(), ChangeError> {
        self.change(move |store, change, surroundings| store.post(&body, change, surroundings)).await
    }

    /// Changes an API; it is stored, and in force on every shard, on return.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn put(self: &Arc<Self>, id: String, body: Value) -> Result<(), ChangeError> {
        self.change(move |store, change, surroundings| store.put(&id, &body, change, surroundings)).await
    }

    /// Hides an API; that is stored, and in force on every shard, on return.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn delete(self: &Arc<Self>, id: String) -> Result<(), ChangeError> {
        self.change(move |store, change, _| store.delete(&id, change)).await
    }

    /// Visits the counters of requests, in the order of their labels.
    pub fn visit_counts(&self, mut visit: impl FnMut(&Labels, &RequestCounts)) {
        for (labels, counts) in self.state().counters.iter() {
            visit(labels, counts);
        }
    }

    /// Goes on to its end though the caller may go.
    async fn change(
        self: &Arc<Self>,
        make: impl FnOnce(&Store, Change<'_>, &Surroundings<'_>) -> Result<Record, Refusal> + Send + 'static,
    ) -> Result<(), ChangeError> {
        let apis = Arc::clone(self);
        let change = tokio::spawn(async move {
            let _one_at_a_time = apis.changing.lock().await;
            let timestamp = now();
            let change = Change { node_name: &apis.node_name, timestamp: &timestamp };
            let record = make(&apis.state().store, change, &apis.surroundings()).inspect_err(|refusal| {
                if let Refusal::Invalid(errors) = refusal {
                    tracing::error!("Wrong reverse proxy configuration: [{errors}]");
                }
            })?;
            let mark = apis.state().offsets.mark();
            let offset = apis.keep(&record).await.map_err(ChangeError::NotStored)?;
            let (here, written) = (Arc::clone(&apis), offset.map(|offset| (offset, mark)));
            let posted = tokio::task::spawn_blocking(move || here.take_own(record, written)).await;
            let in_force = posted.map_err(|error| ChangeError::NotInForce(error.to_string()))??;
            for shard in in_force {
                shard.await.map_err(|_| ChangeError::NotInForce("a shard has ended".to_owned()))?;
            }
            Ok(())
        });
        change.await.unwrap_or_else(|error| Err(ChangeError::NotStored(error.to_string())))
    }

    /// Makes a record outlive the process, as far as there is a place for it. Returns its offset in the log.
    async fn keep(&self, record: &Record) -> Result<Option<i64>, String> {
        let json = record.to_json();
        match &self.keeper {
            Keeper::Log => {
                let log = self.log.get().ok_or("the log of API definitions is not open")?;
                let written = log.write(record.id(), json.to_string().as_bytes()).await;
                written.map(Some).map_err(|error: KafkaError| error.to_string())
            }
            Keeper::File(file) => file.write(record.id(), json).map(|()| None).map_err(|error| error.to_string()),
            Keeper::Memory(told) => {
                if !told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "API definitions were changed, and the change ends with this process: set STATE_DIR or KAFKA_BROKERS \
                         to keep changes"
                    );
                }
                Ok(None)
            }
        }
    }

    /// Takes a change of this node over; `written` says where in the log it is, and where that was before.
    fn take_own(self: &Arc<Self>, record: Record, written: Option<(i64, Mark)>) -> Result<InForce, ChangeError> {
        let mut state = self.state();
        if written.is_none_or(|(offset, mark)| state.offsets.is_newer_written(record.id(), offset, mark)) {
            state.store.apply(record);
        }
        self.hand_out(&mut state).map_err(|withheld| ChangeError::NotInForce(withheld.to_string()))
    }

    fn take_entry(self: &Arc<Self>, entry: &Entry<'_>) {
        match entry {
            Entry::Record(offset, id, value) => {
                let record = value.and_then(|json| self.read_stored(json));
                let mut state = self.state();
                if state.offsets.is_newer_read(id, *offset) {
                    match record {
                        Some(record) => state.store.apply(record),
                        None if value.is_none() => state.store.remove(id),
                        None => return,
                    }
                    state.changed = true;
                }
            }
            Entry::End => {
                let mut state = self.state();
                if state.changed {
                    self.bring_into_force(&mut state);
                }
            }
        }
    }

    fn read_stored(&self, json: &[u8]) -> Option<Record> {
        match Store::read(json, &self.surroundings()) {
            Ok((record, errors)) => {
                if let Some(errors) = errors {
                    tracing::error!(
                        api = record.id(),
                        "a stored API definition can't be served and doesn't match: {errors}"
                    );
                }
                Some(record)
            }
            Err(error) => {
                tracing::error!(error, "something stored among the API definitions is none");
                None
            }
        }
    }

    /// Hands the table to the shards without waiting for them.
    fn bring_into_force(self: &Arc<Self>, state: &mut State) {
        if let Err(error) = self.hand_out(state) {
            tracing::error!(%error, "API definitions are not in force");
        }
    }

    /// Hands the table to the shards; while one of them has no room for it, again and again.
    fn hand_out(self: &Arc<Self>, state: &mut State) -> Result<InForce, Withheld> {
        let handed = state.hand_out();
        if matches!(handed, Err(Withheld::Full)) && !state.retrying {
            let apis = Arc::downgrade(self);
            let thread = thread::Builder::new().name("api-retry".to_owned());
            match thread.spawn(move || Self::retry(&apis)) {
                Ok(_) => state.retrying = true,
                Err(error) => tracing::error!(%error, "API definitions come into force with the next change"),
            }
        }
        handed
    }

    fn retry(apis: &Weak<Self>) {
        loop {
            thread::sleep(RETRY);
            let Some(apis) = apis.upgrade() else { return };
            let mut state = apis.state();
            if !state.changed {
                state.retrying = false;
                return;
            }
            match state.hand_out() {
                Err(Withheld::Full) => {}
                outcome => {
                    if let Err(error) = outcome {
                        tracing::error!(%error, "API definitions are not in force");
                    }
                    state.retrying = false;
                    return;
                }
            }
        }
    }

    fn surroundings(&self) -> Surroundings<'static> {
        Surroundings { environment: &|name| std::env::var(name).ok(), avro: self.avro }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolve as the shards have the new table.
type InForce = Vec<oneshot::Receiver<()>>;

impl State {
    fn table(&mut self) -> Result<Arc<ApiTable>, TableTooLarge> {
        ApiTable::new(self.store.routes(), &mut self.counters).map(Arc::new)
    }

    /// Builds the table and hands it to the shards, both under the lock, so that the newest one comes last.
    fn hand_out(&mut self) -> Result<InForce, Withheld> {
        let Some(node) = self.node.as_ref().and_then(Weak::upgrade) else { return Ok(Vec::new()) };
        self.changed = true;
        let table = self.table()?;
        let handed = node.set_apis(&table).map_err(|ControlFull| Withheld::Full)?;
        self.changed = false;
        Ok(handed)
    }
}

fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

#[cfg(test)]
#[path = "apis_tests.rs"]
mod tests;
