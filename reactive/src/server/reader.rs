//! The server's first thread: reads requests in its group, starts their handlers, and commits behind them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::Producer as _;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::deliveries::{self, Deliveries};
use super::metrics::ServerMetrics;
use super::serving::Jobs;
use super::{Delivery, End, ServerSettings, Shared, serving};
use crate::envelope::{Envelope, EnvelopeError, RequestMessage};
use crate::error::{Error, Kind};
use crate::headers::Headers;
use crate::idempotency::Idempotency;
use crate::kafka::inbox::{Door, Inbox, Message};
use crate::kafka::outlet::Outlet;
use crate::kafka::topics::{self, TopicNeed};
use crate::kafka::{self, explain};
use crate::pending::Pending;
use crate::pool::Pool;
use crate::progress::{Progress, Token};
use crate::service::Service;

/// Longest wait for a message: how soon a stop is noticed, and how late a commit may be.
const POLL_WAIT: Duration = Duration::from_millis(50);
/// The same while sync handlers wait for a thread.
const BUSY_WAIT: Duration = Duration::from_millis(5);
/// Threads that run async handlers, unless the machine has fewer cores.
const MAX_ASYNC_THREADS: usize = 8;
/// Attempts at a commit that has to be.
const COMMIT_ATTEMPTS: u32 = 5;
/// Between two of them.
const COMMIT_PAUSE: Duration = Duration::from_millis(50);

type Reader = BaseConsumer<Group>;
type Ready = oneshot::Sender<Result<Arc<Shared>, Error>>;

/// Sets everything up and reads requests until the end.
pub(super) fn run(settings: ServerSettings, service: Service, ready: Ready) {
    let (shared, reader, inbox, joined) = match set_up(settings, service) {
        Ok(parts) => parts,
        Err(error) => {
            // Whoever wanted to start may have gone.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let acks = Arc::clone(&shared);
    let acks = match thread::Builder::new().name("reactive-acks".to_owned()).spawn(move || deliveries::run(&acks)) {
        Ok(acks) => acks,
        Err(error) => {
            let _ = ready.send(Err(Error::new(Kind::System, "can't start a thread").because(error)));
            return;
        }
    };
    let _ending = Ending { shared: Arc::clone(&shared), acks: Some(acks) };
    read_until_stopped(&shared, reader, inbox, &joined, ready);
}

/// Reads requests, and leaves the group behind the last of them. The inbox comes after the reader: it is dropped first.
fn read_until_stopped(shared: &Arc<Shared>, reader: Reader, mut inbox: Inbox, joined: &AtomicBool, ready: Ready) {
    serve(shared, &reader, &mut inbox, joined, ready);
    drain(shared, &reader);
    drop(inbox);
    // Leaves the group; partitions are taken away once more, with nothing left to wait for.
    drop(reader);
}

/// Ends the other threads, and tells those who wait for the server's end. They must not wait for ever where the thread that
/// reads has panicked.
struct Ending {
    shared: Arc<Shared>,
    acks: Option<thread::JoinHandle<()>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let shared = &self.shared;
        if thread::panicking() {
            tracing::error!(target: "tidegate::reactive", "the thread that reads panicked: no more requests are served");
        }
        shared.drained.store(true, Ordering::Release);
        shared.sync_pool.stop();
        shared.async_pool.stop();
        if self.acks.take().is_some_and(|acks| acks.join().is_err()) {
            tracing::error!(target: "tidegate::reactive", "the thread for acknowledgements ended early");
        }
        let mut end = shared.end();
        end.over = true;
        for waiting in end.waiting.drain(..) {
            let _ = waiting.send(());
        }
    }
}

type Parts = (Arc<Shared>, Reader, Inbox, Arc<AtomicBool>);

fn set_up(settings: ServerSettings, service: Service) -> Result<Parts, Error> {
    let deadline = Instant::now() + settings.start_timeout;
    let owner = Arc::<OnceLock<Weak<Shared>>>::default();
    let connection = settings.connection.clone();
    let of_context = Arc::clone(&owner);
    let context = move |turns| Deliveries { owner: Arc::clone(&of_context), turns };
    // Without a time-out: an answer is sent until Kafka has it or refuses it, and its request is not done before.
    let outlet = Outlet::new(connection.producer(0), context)?;
    let need = TopicNeed { name: &settings.topic, partitions: settings.partitions, replication: settings.replication };
    topics::ensure(&connection, outlet.line().producer().client(), &need, deadline)?;
    if let Some(name) = &settings.dead_letters {
        let need = TopicNeed { name, partitions: 1, replication: settings.replication };
        topics::ensure(&connection, outlet.line().producer().client(), &need, deadline)?;
    }
    let mut config = connection.consumer();
    config
        .set("group.id", &settings.group)
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "1000");
    for (name, value) in &connection.properties {
        config.set(name, value);
    }
    let joined = Arc::<AtomicBool>::default();
    let door = Arc::<OnceLock<Door>>::default();
    let group = Group { owner: Arc::clone(&owner), joined: Arc::clone(&joined), door: Arc::clone(&door) };
    let reader: Reader = config
        .create_with_context(group)
        .map_err(|error| explain("librdkafka refuses a setting of the consumer", error))?;
    // SAFETY: the client is live, and both `run` and `read_until_stopped` drop the inbox before the reader.
    let inbox = unsafe { Inbox::new(reader.client().native_ptr()) };
    door.get_or_init(|| inbox.door());
    reader.subscribe(&[&settings.topic]).map_err(|error| explain("the topic can't be subscribed to", error))?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let shared = Arc::new(Shared {
        service,
        outlet,
        metrics: ServerMetrics::default(),
        progress: Mutex::new(Progress::new()),
        settled: Condvar::new(),
        timers: Mutex::new(Pending::new(0, usize::MAX, 0)),
        memory: Mutex::new(Idempotency::new(settings.max_remembered, settings.max_remembered_bytes)),
        sync_pool: Pool::new("reactive-sync", settings.max_sync_threads),
        async_pool: Pool::new("reactive-async", cores.min(MAX_ASYNC_THREADS)),
        started: Instant::now(),
        stop: AtomicBool::new(false),
        drained: AtomicBool::new(false),
        end: Mutex::new(End::default()),
        settings,
    });
    owner.get_or_init(|| Arc::downgrade(&shared));
    Ok((shared, reader, inbox, joined))
}

/// Reads until the stop.
fn serve(shared: &Arc<Shared>, reader: &Reader, inbox: &mut Inbox, joined: &AtomicBool, ready: Ready) {
    let settings = &shared.settings;
    let start_by = Instant::now() + settings.start_timeout;
    let mut ready = Some(ready);
    let mut last_commit = Instant::now();
    while !shared.stop.load(Ordering::Acquire) {
        if joined.load(Ordering::Acquire)
            && let Some(ready) = ready.take()
            && ready.send(Ok(Arc::clone(shared))).is_err()
        {
            return shared.finish_by(Instant::now());
        }
        if Instant::now() >= start_by
            && let Some(ready) = ready.take()
        {
            let text = format!("the group {} gave no partitions in time", settings.group);
            let _ = ready.send(Err(Error::new(Kind::Unreachable, text)));
            return shared.finish_by(Instant::now());
        }
        let is_busy = shared.sync_pool.tend() | shared.async_pool.tend();
        let wait = if is_busy { BUSY_WAIT } else { POLL_WAIT };
        serve_group(shared, reader);
        let room = room(shared, &shared.progress());
        if room > 0 {
            read(shared, reader, inbox, wait, room);
        } else {
            shared.wait_for_room(wait, |progress| self::room(shared, progress) > 0);
        }
        if settings.delivery == Delivery::AtLeastOnce && last_commit.elapsed() >= settings.commit_interval {
            last_commit = Instant::now();
            let commits = shared.progress().take_commits();
            commit(shared, reader, &commits, CommitMode::Async);
        }
    }
}

/// Requests that may be read now.
fn room(shared: &Shared, progress: &Progress) -> usize {
    if progress.is_far_ahead() { 0 } else { shared.settings.max_concurrent.saturating_sub(progress.held()) }
}

/// Serves what the group has to say: partitions that come and go, commits, errors. Requests come through the inbox.
fn serve_group(shared: &Arc<Shared>, reader: &Reader) {
    match reader.poll(Duration::ZERO) {
        None => {}
        Some(Err(error)) => tracing::debug!(target: "tidegate::reactive", %error, "reading requests"),
        Some(Ok(message)) => {
            let headers = || {
                let list = message.headers().map(|list| list.iter());
                list.into_iter().flatten().map(|header| (header.key, header.value.unwrap_or_default()))
            };
            let token = shared.progress().start(message.partition(), message.offset());
            let incoming = take(shared, token, headers, message.payload().unwrap_or_default());
            dispatch(shared, reader, vec![incoming]);
        }
    }
}

/// A message that was read, decoded.
struct Incoming {
    token: Token,
    request: Result<(RequestMessage, Envelope), EnvelopeError>,
    /// Headers and value of what can't be decoded, where somebody wants to see it.
    letter: Option<(Headers, Vec<u8>)>,
}

fn read(shared: &Arc<Shared>, reader: &Reader, inbox: &mut Inbox, wait: Duration, room: usize) {
    let mut batch: Vec<Message<'_>> = inbox.read(wait, room).collect();
    batch.retain(|message| match message.error() {
        None => true,
        Some(code) => {
            tracing::debug!(target: "tidegate::reactive", %code, "reading requests");
            false
        }
    });
    if batch.is_empty() {
        return;
    }
    let tokens: Vec<Token> = {
        let mut progress = shared.progress();
        batch.iter().map(|message| progress.start(message.partition(), message.offset())).collect()
    };
    let incoming = std::iter::zip(tokens, &batch);
    let incoming = incoming.map(|(token, message)| take(shared, token, || message.headers(), message.value()));
    dispatch(shared, reader, incoming.collect());
}

fn take<'a, H: Iterator<Item = (&'a str, &'a [u8])>>(
    shared: &Shared,
    token: Token,
    headers: impl Fn() -> H,
    value: &[u8],
) -> Incoming {
    ServerMetrics::count(&shared.metrics.requests);
    let request = RequestMessage::decode(headers(), value);
    let wanted = request.is_err() && shared.settings.dead_letters.is_some();
    Incoming { token, request, letter: wanted.then(|| (headers().collect(), value.to_vec())) }
}

/// Starts the handlers of a batch, behind its commit where that comes first.
fn dispatch(shared: &Arc<Shared>, reader: &Reader, batch: Vec<Incoming>) {
    if shared.settings.delivery == Delivery::AtLeastOnce || commit_first(shared, reader, &batch) {
        let (mut jobs, received) = (Jobs::default(), Instant::now());
        batch.into_iter().for_each(|incoming| handle(shared, incoming, received, &mut jobs));
        return jobs.start(shared);
    }
    for Incoming { token, request, .. } in batch {
        match request {
            Ok((request, envelope)) => serving::refuse_uncommitted(shared, token, request, envelope),
            Err(_) => shared.settle(token),
        }
    }
}

fn handle(shared: &Arc<Shared>, Incoming { token, request, letter }: Incoming, received: Instant, jobs: &mut Jobs) {
    match request {
        Ok((request, envelope)) => serving::begin(shared, token, request, envelope, received, jobs),
        Err(error) => {
            ServerMetrics::count(&shared.metrics.undecodable);
            tracing::debug!(target: "tidegate::reactive", %error, ?token, "not a request");
            match letter {
                Some((headers, value)) => serving::bury(shared, Some(token), &headers, &value, &error.to_string()),
                None => shared.settle(token),
            }
        }
    }
}

/// Commits a batch before it is handled.
fn commit_first(shared: &Shared, reader: &Reader, batch: &[Incoming]) -> bool {
    let mut last = std::collections::BTreeMap::new();
    for Incoming { token, .. } in batch {
        last.insert(token.partition, token.offset + 1);
    }
    let commits: Vec<(i32, i64)> = last.into_iter().collect();
    (0..COMMIT_ATTEMPTS).any(|_| commit(shared, reader, &commits, CommitMode::Sync))
}

/// True if there is nothing to commit or Kafka (or with `Async` librdkafka) has taken it.
fn commit(shared: &Shared, reader: &Reader, commits: &[(i32, i64)], mode: CommitMode) -> bool {
    if commits.is_empty() {
        return true;
    }
    let result = offsets(&shared.settings.topic, commits).and_then(|list| reader.commit(&list, mode));
    match result {
        Ok(()) => {
            ServerMetrics::count(&shared.metrics.commits);
            true
        }
        Err(error) => {
            tracing::info!(target: "tidegate::reactive", %error, "a commit failed");
            ServerMetrics::count(&shared.metrics.failed_commits);
            shared.progress().uncommit(commits);
            false
        }
    }
}

fn offsets(topic: &str, commits: &[(i32, i64)]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, next) in commits {
        list.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
    }
    Ok(list)
}

/// Waits for what is in the works, and commits.
fn drain(shared: &Shared, reader: &Reader) {
    loop {
        let is_over = shared.deadline().is_none_or(|deadline| Instant::now() >= deadline);
        if is_over || shared.progress().held() == 0 {
            break;
        }
        shared.sync_pool.tend();
        shared.async_pool.tend();
        shared.wait_for_room(BUSY_WAIT, |progress| progress.held() == 0);
    }
    if shared.settings.delivery == Delivery::AtLeastOnce {
        commit_for_good(shared, reader, |_| true);
    }
}

/// Commits where partitions stand before they are let go. What was committed without waiting may still fail, and nobody
/// would be here to repeat it.
fn commit_for_good(shared: &Shared, reader: &Reader, wanted: impl Fn(i32) -> bool) {
    let positions = shared.progress().positions(wanted);
    for _ in 0..COMMIT_ATTEMPTS {
        if reader.assignment_lost() || commit(shared, reader, &positions, CommitMode::Sync) {
            return;
        }
        thread::sleep(COMMIT_PAUSE);
    }
    tracing::warn!(target: "tidegate::reactive", ?positions, "not committed: these requests will be handled again");
}

/// The server's side of its consumer group.
struct Group {
    owner: Arc<OnceLock<Weak<Shared>>>,
    joined: Arc<AtomicBool>,
    door: Arc<OnceLock<Door>>,
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "tidegate::reactive", %error, reason, "librdkafka reports");
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, reader: &Reader, rebalance: &Rebalance<'_>) {
        if let (Rebalance::Assign(list), Some(door)) = (rebalance, self.door.get()) {
            for element in list.elements() {
                // SAFETY: the client is the reader's, which is live, and that of the inbox.
                unsafe { door.lead(reader.client().native_ptr(), element.topic(), element.partition()) };
            }
        }
        let Rebalance::Revoke(list) = rebalance else { return };
        let Some(shared) = self.owner.get().and_then(Weak::upgrade) else { return };
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        let rebalance_by = Instant::now() + shared.settings.rebalance_timeout;
        let give_up = shared.deadline().map_or(rebalance_by, |deadline| deadline.min(rebalance_by));
        while !reader.assignment_lost() && Instant::now() < give_up && shared.progress().held_of(&partitions) > 0 {
            shared.sync_pool.tend();
            shared.async_pool.tend();
            shared.wait_for_room(BUSY_WAIT, |progress| progress.held_of(&partitions) == 0);
        }
        if shared.settings.delivery == Delivery::AtLeastOnce {
            commit_for_good(&shared, reader, |partition| partitions.contains(&partition));
        }
        if !shared.stop.load(Ordering::Acquire) {
            let mut progress = shared.progress();
            partitions.iter().for_each(|partition| progress.forget(*partition));
        }
    }

    fn post_rebalance(&self, _: &Reader, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(_) = rebalance {
            self.joined.store(true, Ordering::Release);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let Err(error) = result else { return };
        let Some(shared) = self.owner.get().and_then(Weak::upgrade) else { return };
        tracing::info!(target: "tidegate::reactive", %error, "a commit failed");
        ServerMetrics::count(&shared.metrics.failed_commits);
        let next = |offset| if let Offset::Offset(next) = offset { Some(next) } else { None };
        let elements = offsets.elements();
        let failed: Vec<(i32, i64)> =
            elements.iter().filter_map(|one| Some((one.partition(), next(one.offset())?))).collect();
        shared.progress().uncommit(&failed);
    }
}
