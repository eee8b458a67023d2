//! The definitions in force: changes come from the internal API and, with Kafka, from other nodes.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use futures_channel::oneshot;
use rdkafka::error::KafkaError;
use serde_json::Value;
use tidegate_shards::mailbox::ControlFull;
use tidegate_shards::node::Node;
use tidegate_shards::proxy::counts::{Labels, RequestCounters, RequestCounts};
use tidegate_shards::proxy::definition::{Definition, Surroundings};
use tidegate_shards::proxy::table::ApiTable;

use super::file::StateFile;
use super::store::{Change, Record, Refusal, Store};
use crate::config::KafkaSettings;
use crate::kafka::compacted::{CompactedLog, Entry, Subject};

/// Why a change did not happen, or not in full.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChangeError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be stored, and is not in force. A retry may help.
    #[error("the change could not be stored: {0}")]
    NotStored(String),
    /// It is stored, but a shard is too far behind to take it now; it comes into force with the next change.
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
    /// Offset of the newest record by id.
    offsets: HashMap<String, i64>,
    /// Records came that no shard has yet.
    changed: bool,
    node: Weak<Node>,
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
            offsets: HashMap::new(),
            changed: false,
            node: Weak::new(),
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
    pub fn serve(&self, node: &Arc<Node>) {
        let mut state = self.state();
        state.node = Arc::downgrade(node);
        self.bring_into_force(&mut state);
    }

    /// Ends following and waits for writes in flight.
    pub fn stop(&self) {
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
            let offset = apis.keep(&record).await.map_err(ChangeError::NotStored)?;
            let here = Arc::clone(&apis);
            let posted = tokio::task::spawn_blocking(move || here.take_own(record, offset)).await;
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

    fn take_own(&self, record: Record, offset: Option<i64>) -> Result<InForce, ChangeError> {
        let mut state = self.state();
        let newer = offset.is_none_or(|offset| state.is_newer(record.id(), offset));
        if newer {
            state.store.apply(record);
        }
        state.post().map_err(ChangeError::NotInForce)
    }

    fn take_entry(&self, entry: &Entry<'_>) {
        match entry {
            Entry::Record(offset, id, value) => {
                let record = value.and_then(|json| self.read_stored(json));
                let mut state = self.state();
                if state.is_newer(id, *offset) {
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
    fn bring_into_force(&self, state: &mut State) {
        if let Err(error) = state.post() {
            tracing::error!(error, "API definitions are not in force");
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
    /// Notes the offset; false if a newer record of the same API is there already.
    fn is_newer(&mut self, id: &str, offset: i64) -> bool {
        if self.offsets.get(id).is_some_and(|newest| *newest >= offset) {
            return false;
        }
        self.offsets.insert(id.to_owned(), offset);
        true
    }

    fn table(&mut self) -> Result<Arc<ApiTable>, String> {
        ApiTable::new(self.store.routes(), &mut self.counters).map(Arc::new).map_err(|error| error.to_string())
    }

    /// Builds the table and hands it to the shards, both under the lock, so that the newest one comes last.
    fn post(&mut self) -> Result<InForce, String> {
        let Some(node) = self.node.upgrade() else { return Ok(Vec::new()) };
        let table = self.table()?;
        self.changed = false;
        node.set_apis(&table).map_err(|ControlFull| "a shard is too far behind".to_owned())
    }
}

fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}
