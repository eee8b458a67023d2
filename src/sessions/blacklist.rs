//! The blacklist in force, and its ways in and out.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tidegate_shards::sessions::record::Record;
use tidegate_shards::sessions::{Fingerprint, SessionTable, TableFull};

use super::file::SessionFile;
use super::ledger::{Ledger, Listing};
use crate::config::KafkaSettings;
use crate::kafka::compacted::{CompactedLog, Entry, Subject};

/// How often expired entries are taken out.
const SWEEP: Duration = Duration::from_secs(1);
/// Expired entries that one sweep clears out of the topic.
const TOMBSTONES_PER_SWEEP: usize = 1_000;
/// Expired entries that wait to be cleared out of the topic; more than these stay until a node starts again.
const MAX_TOMBSTONES: usize = 100_000;
/// An entry in the topic that is over for this long was left by a node that is gone, in milliseconds.
const ABANDONED_MS: u64 = 3_600_000;

/// Where entries are kept.
#[derive(Clone, Copy, Debug)]
pub struct BlacklistSources<'a> {
    /// Kafka, where there is one, and the topic.
    pub kafka: Option<(&'a KafkaSettings, &'a str)>,
    /// `STATE_DIR`, for the time without Kafka.
    pub state_dir: Option<&'a Path>,
}

/// Why a session is not blacklisted. A retry may help.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotListed {
    /// No place is left.
    #[error(transparent)]
    Full(#[from] TableFull),
    /// It could not be stored.
    #[error("the entry could not be stored: {0}")]
    NotStored(String),
}

/// What the metrics say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlacklistCounts {
    /// Entries, expired ones included until they are taken out.
    pub total: usize,
    /// Entries that have not expired.
    pub current: usize,
    /// Records of the topic that were no entries.
    pub malformed: u64,
    /// Entries of other nodes for which there was no place.
    pub refused: u64,
}

#[derive(Debug)]
enum Keeper {
    Log,
    File(Mutex<SessionFile>),
    /// Nowhere; whether that was said.
    Memory(AtomicBool),
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    /// Entries that a shorter one, or a tombstone, has taken the place of in the topic: they are written again.
    mends: Vec<Record>,
    /// Expired entries to clear out of the topic.
    tombstones: Vec<Fingerprint>,
}

/// The blacklisted sessions of this node.
#[derive(Debug)]
pub struct Blacklist {
    state: Mutex<State>,
    table: Arc<SessionTable>,
    keeper: Keeper,
    log: OnceLock<CompactedLog>,
    stop: AtomicBool,
    sweeper: Mutex<Option<JoinHandle<()>>>,
    malformed: AtomicU64,
    refused: AtomicU64,
}

impl Blacklist {
    /// Reads the file, or begins to read the topic, see [`Self::wait_until_read_back`].
    ///
    /// # Errors
    /// The state file can't be used, librdkafka refuses a setting, or a thread can't be started.
    pub fn open(sources: &BlacklistSources<'_>) -> io::Result<Arc<Self>> {
        let now_unix_ms = now_unix_ms();
        let mut ledger = Ledger::new(now_unix_ms);
        let keeper = match (sources.kafka, sources.state_dir) {
            (Some(_), _) => Keeper::Log,
            (None, Some(folder)) => {
                let mut left_out = 0;
                let mut file = SessionFile::open(folder, |record| {
                    left_out += usize::from(ledger.list(record, true, now_unix_ms).is_err());
                })?;
                if left_out > 0 {
                    tracing::error!(left_out, "{TableFull}; entries of the state file have no effect");
                } else if file.is_stale(ledger.len()) {
                    file.rewrite(ledger.records())?;
                }
                Keeper::File(Mutex::new(file))
            }
            (None, None) => Keeper::Memory(AtomicBool::new(false)),
        };
        let blacklist = Arc::new(Self {
            table: Arc::clone(ledger.table()),
            state: Mutex::new(State { ledger, mends: Vec::new(), tombstones: Vec::new() }),
            keeper,
            log: OnceLock::new(),
            stop: AtomicBool::new(false),
            sweeper: Mutex::new(None),
            malformed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        if let Some((settings, topic)) = sources.kafka {
            blacklist.follow(settings, topic)?;
        }
        let here = Arc::clone(&blacklist);
        let sweeper = thread::Builder::new().name("sessions".to_owned()).spawn(move || here.sweep_until_stop());
        *lock(&blacklist.sweeper) = Some(sweeper.inspect_err(|_| blacklist.stop())?);
        Ok(blacklist)
    }

    fn follow(self: &Arc<Self>, settings: &KafkaSettings, topic: &str) -> io::Result<()> {
        let follower = Arc::downgrade(self);
        let log = CompactedLog::start(
            settings,
            topic,
            Subject { thread: "session-log", records: "blacklisted sessions" },
            Box::new(move |entry| {
                if let Some(blacklist) = follower.upgrade() {
                    blacklist.take_entry(&entry, now_unix_ms());
                }
            }),
        )?;
        // Set once, here.
        let _ = self.log.set(log);
        Ok(())
    }

    /// Waits until everything stored in the topic has been read, a bounded time since it was opened.
    pub fn wait_until_read_back(&self) {
        if self.log.get().is_some_and(|log| !log.wait_until_read_back()) {
            tracing::warn!(
                "Kafka did not hand out the stored blacklist yet: until it does, this node accepts tokens of blacklisted sessions"
            );
        }
    }

    /// The list as shards read it.
    #[must_use]
    pub fn table(&self) -> &Arc<SessionTable> {
        &self.table
    }

    /// Whether the session is blacklisted at this moment.
    #[must_use]
    pub fn contains(&self, session: &str) -> bool {
        self.table.is_listed(Fingerprint::of(session), now_unix_ms())
    }

    /// What the metrics say.
    #[must_use]
    pub fn counts(&self) -> BlacklistCounts {
        let mut state = self.state();
        let total = state.ledger.len();
        self.expire(&mut state);
        BlacklistCounts {
            total,
            current: state.ledger.len(),
            malformed: self.malformed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Blacklists a session for this long, unless it is for longer already; stored, and in force on this node, on return. It goes on to its end
    /// though the caller may go.
    ///
    /// # Errors
    /// See [`NotListed`].
    pub async fn list(self: &Arc<Self>, session: &str, validity_s: u64) -> Result<(), NotListed> {
        let until_unix_ms = now_unix_ms().saturating_add(validity_s.saturating_mul(1_000));
        let record = Record { session: Fingerprint::of(session), until_unix_ms };
        let blacklist = Arc::clone(self);
        let listed = tokio::spawn(async move {
            {
                let state = blacklist.state();
                match state.ledger.until_unix_ms(record.session) {
                    Some(known) if known >= until_unix_ms => return Ok(()),
                    None if !state.ledger.has_room() => return Err(TableFull.into()),
                    _ => {}
                }
            }
            blacklist.keep(record).await.map_err(NotListed::NotStored)?;
            blacklist.state().ledger.list(record, true, now_unix_ms())?;
            Ok(())
        });
        listed.await.unwrap_or_else(|error| Err(NotListed::NotStored(error.to_string())))
    }

    async fn keep(self: &Arc<Self>, record: Record) -> Result<(), String> {
        match &self.keeper {
            Keeper::Log => {
                let log = self.log.get().ok_or("the log of blacklisted sessions is not open")?;
                let written = log.write(&record.session.to_string(), record.to_value().as_bytes()).await;
                written.map(drop).map_err(|error| error.to_string())
            }
            Keeper::File(_) => {
                let here = Arc::clone(self);
                let written = tokio::task::spawn_blocking(move || match &here.keeper {
                    Keeper::File(file) => {
                        let mut file = lock(file);
                        file.append(record)?;
                        // While the file is held: the file is written anew from the list.
                        let listed = here.state().ledger.list(record, true, now_unix_ms());
                        listed.map(drop).map_err(io::Error::other)
                    }
                    Keeper::Log | Keeper::Memory(_) => Ok(()),
                });
                let written = written.await.map_err(|error| error.to_string())?;
                written.map_err(|error| error.to_string())
            }
            Keeper::Memory(told) => {
                if !told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "a session was blacklisted, and that ends with this process: set STATE_DIR or KAFKA_BROKERS to keep it"
                    );
                }
                Ok(())
            }
        }
    }

    /// Ends following and sweeping, and waits for writes in flight.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sweeper) = lock(&self.sweeper).take() {
            sweeper.thread().unpark();
            if sweeper.join().is_err() {
                tracing::error!("the thread that takes out expired sessions panicked");
            }
        }
        if let Some(log) = self.log.get() {
            log.stop();
        }
    }

    fn take_entry(&self, entry: &Entry<'_>, now_unix_ms: u64) {
        match entry {
            Entry::Record(_, key, Some(value)) => match Record::from_topic(key, value) {
                Ok(record) => self.take_record(record, now_unix_ms),
                Err(error) => {
                    if self.malformed.fetch_add(1, Ordering::Relaxed) == 0 {
                        tracing::error!(%error, "something in the topic of blacklisted sessions is no entry; this is logged once and counted");
                    }
                }
            },
            Entry::Record(_, key, None) => {
                let Some(session) = Fingerprint::parse(key) else { return };
                let mut state = self.state();
                if let Some(until_unix_ms) = state.ledger.until_unix_ms(session).filter(|until| *until > now_unix_ms) {
                    state.mend(Record { session, until_unix_ms });
                }
            }
            Entry::End => self.post_mends(),
        }
    }

    fn take_record(&self, record: Record, now_unix_ms: u64) {
        let mut state = self.state();
        match state.ledger.list(record, false, now_unix_ms) {
            Ok(Listing::Listed) => {}
            Ok(Listing::Outlasted(until_unix_ms)) if until_unix_ms > record.until_unix_ms => {
                state.mend(Record { until_unix_ms, ..record });
            }
            Ok(Listing::Outlasted(_)) => {}
            Ok(Listing::Expired) => {
                if record.until_unix_ms.saturating_add(ABANDONED_MS) < now_unix_ms {
                    state.bury([record.session]);
                }
            }
            Err(full) => {
                if self.refused.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::error!(error = %full, "a session that another node blacklisted is not on this one; this is logged once and counted");
                }
            }
        }
    }

    fn post_mends(&self) {
        let mends = std::mem::take(&mut self.state().mends);
        let Some(log) = self.log.get() else {
            // Still reading back; the first end after it does this.
            self.state().mends = mends;
            return;
        };
        for record in mends {
            if let Err(error) = log.post(&record.session.to_string(), Some(record.to_value().as_bytes())) {
                tracing::warn!(%error, "the longer of two entries of a session could not be written again; it holds on this node");
            }
        }
    }

    fn sweep_until_stop(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            thread::park_timeout(SWEEP);
            self.expire(&mut self.state());
            self.post_tombstones();
            self.tidy_file();
        }
    }

    fn expire(&self, state: &mut State) {
        let expired = state.ledger.expire(now_unix_ms());
        if matches!(self.keeper, Keeper::Log) {
            state.bury(expired);
        }
    }

    fn post_tombstones(&self) {
        let Some(log) = self.log.get() else { return };
        let buried = {
            let mut state = self.state();
            let rest = state.tombstones.len().saturating_sub(TOMBSTONES_PER_SWEEP);
            state.tombstones.split_off(rest)
        };
        for session in buried {
            if self.state().ledger.until_unix_ms(session).is_none()
                && let Err(error) = log.post(&session.to_string(), None)
            {
                tracing::debug!(%error, "an expired session stays in the topic for now");
            }
        }
    }

    fn tidy_file(&self) {
        let Keeper::File(file) = &self.keeper else { return };
        let mut file = lock(file);
        let records: Vec<Record> = {
            let state = self.state();
            if !file.is_stale(state.ledger.len()) {
                return;
            }
            state.ledger.records().collect()
        };
        if let Err(error) = file.rewrite(records.into_iter()) {
            tracing::warn!(%error, "expired sessions could not be taken out of the state file; trying again");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Remembers to write an entry again. What doesn't fit is written by other nodes, or after the next shorter entry.
    fn mend(&mut self, record: Record) {
        if self.mends.len() < TOMBSTONES_PER_SWEEP {
            self.mends.push(record);
        }
    }

    fn bury(&mut self, sessions: impl IntoIterator<Item = Fingerprint>) {
        let room = MAX_TOMBSTONES - self.tombstones.len();
        self.tombstones.extend(sessions.into_iter().take(room));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_unix_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}
