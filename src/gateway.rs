//! Assembles the threads of a node, starts them, and stops them.

mod certificates;
mod schemas;
mod serve;
mod settings;
mod summary;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};

use tidegate_shards::bell::Bell;
use tidegate_shards::checkpoints::CheckpointSource;
use tidegate_shards::clock;
use tidegate_shards::event::EventLimits;
use tidegate_shards::node::{Node, NodeLayout};
use tidegate_shards::peers::Peers;
use tidegate_shards::proxy::outbound::{RequestLog, RequestSink};
use tidegate_shards::replay::ReplaySource;
use tidegate_shards::settings::ProxySettings;
use tidegate_shards::snapshot::SnapshotSource;
use tidegate_shards::submit::{EventSink, Sinks};

use self::certificates::Certificates;
pub use self::serve::{serve, serve_beside};
use self::settings::{api_sources, listened_on, shard_settings};
use crate::auth::KeySets;
use crate::config::{Config, KafkaSettings, SnapshotSettings};
use crate::control::{AnswerDesk, Control, ControlParts, Health, MetricSources};
use crate::cores;
use crate::egress::producer::KafkaSink;
use crate::egress::requests::KafkaRequests;
use crate::ingress::kafka::KafkaIngress;
use crate::ingress::local::{self, LocalHub};
use crate::ingress::metrics::IngressMetrics;
use crate::ingress::replay::{ReplayThread, Replays};
use crate::ingress::snapshot::{SnapshotThread, Snapshots};
use crate::ingress::{Decoder, Outlet, Stop};
use crate::kafka::Reachability;
use crate::nodes::Nodes;
use crate::positions::{PositionLog, PositionThreads};
use crate::proxy::Apis;
use crate::proxy::request_log::{CallLog, KafkaLog, LogSinks};
use crate::replies::{Correlator, Replies, ReplyMetrics, ReplyState, ReplyTopics};
use crate::sessions::{Blacklist, BlacklistSources};
use crate::tls::reload::Reload;
use crate::{check, limits, takeover};

/// Events that may wait for one shard; beyond, ingress waits.
const MAILBOX_EVENTS: usize = 16_384;
/// Bytes of one segment of events.
const SEGMENT_BYTES: usize = 4 << 20;

/// The addresses a gateway listens on, with port 0 resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For clients.
    pub inbound: Vec<SocketAddr>,
    /// For clients, over TLS.
    pub inbound_tls: Vec<SocketAddr>,
    /// The internal port: the plain one where it is open, else the one with TLS.
    pub internal: SocketAddr,
    /// The internal port with TLS, where it is open.
    pub internal_tls: Option<SocketAddr>,
}

/// A running gateway. Dropping it without [`Gateway::stop`] leaves its threads running.
#[derive(Debug)]
pub struct Gateway {
    addresses: Addresses,
    cores: Vec<Option<usize>>,
    node: Arc<Node>,
    control: Control,
    ingress: JoinHandle<()>,
    stop: Stop,
    producer: Option<Arc<KafkaSink>>,
    apis: Arc<Apis>,
    blacklist: Arc<Blacklist>,
    key_sets: KeySets,
    requests: Option<Arc<KafkaRequests>>,
    replies: Option<Replies>,
    reload: Option<Reload>,
    replayer: Option<ReplayThread>,
    positions: Option<PositionThreads>,
    snapshots: Option<SnapshotThread>,
    draining: Arc<AtomicBool>,
    nodes: Option<Arc<Nodes>>,
}

/// The hub of a node before its threads start.
enum Hub {
    Kafka { settings: Box<KafkaSettings>, sink: Arc<KafkaSink>, reachability: Arc<Reachability> },
    Local(Arc<LocalHub>),
}

impl Hub {
    fn new(config: &Config, bell: &Bell, stop: &Stop) -> io::Result<Self> {
        let Some(settings) = &config.kafka else {
            return Ok(Self::Local(Arc::new(LocalHub::new(bell.clone(), stop.clone()))));
        };
        let sink = Arc::new(KafkaSink::start(settings)?);
        let reachability = Arc::new(Reachability::new(clock::now_ms()));
        Ok(Self::Kafka { settings: Box::new(settings.clone()), sink, reachability })
    }

    fn sink(&self) -> Arc<dyn EventSink> {
        match self {
            Self::Kafka { sink, .. } => Arc::clone(sink) as Arc<dyn EventSink>,
            Self::Local(hub) => Arc::clone(hub) as Arc<dyn EventSink>,
        }
    }

    fn producer(&self) -> Option<&Arc<KafkaSink>> {
        match self {
            Self::Kafka { sink, .. } => Some(sink),
            Self::Local(_) => None,
        }
    }

    fn reachability(&self) -> Option<&Arc<Reachability>> {
        match self {
            Self::Kafka { reachability, .. } => Some(reachability),
            Self::Local(_) => None,
        }
    }

    fn ingress_metrics(&self) -> IngressMetrics {
        match self {
            Self::Kafka { settings, .. } => IngressMetrics::new("kafka", &settings.source_topics),
            Self::Local(_) => IngressMetrics::new("local", &["local".to_owned()]),
        }
    }

    fn start_ingress(
        self,
        decoder: Decoder,
        outlet: Outlet,
        snapshots: Option<Arc<Snapshots>>,
    ) -> io::Result<JoinHandle<()>> {
        let builder = thread::Builder::new().name("ingress".to_owned());
        match self {
            Self::Local(hub) => builder.spawn(move || local::run(&hub, outlet, &decoder.extractors, snapshots)),
            Self::Kafka { settings, reachability, .. } => {
                let ingress = KafkaIngress::start(&settings, outlet, decoder, reachability, snapshots)?;
                builder.spawn(move || ingress.run())
            }
        }
    }
}

impl Gateway {
    /// Starts a node and returns once all its ports listen. Kafka may be out of reach.
    ///
    /// # Errors
    /// What stands in the way and what to do about it: a core that isn't there, a port that is taken, io_uring or locked
    /// memory denied, a setting that librdkafka refuses.
    pub fn start(config: &Config) -> io::Result<Self> {
        limits::raise_open_files();
        if !config.takeover {
            takeover::refuse_taken(&listened_on(config))?;
        }
        let allowed = cores::allowed()?;
        let cores = cores::plan(config.shards, config.cpus.as_deref(), &allowed, cores::siblings)
            .map_err(|error| io::Error::other(format!("CPUS: {error}")))?;
        let bell = Bell::new()?;
        let stop = Stop::new(bell.clone());
        let hub = Hub::new(config, &bell, &stop)?;
        let sink = hub.sink();
        let producer = hub.producer().cloned();
        let metrics = Arc::new(hub.ingress_metrics());

        let layout = NodeLayout {
            cores: cores.clone(),
            mailbox_events: MAILBOX_EVENTS,
            segment_bytes: SEGMENT_BYTES,
            history_bytes: config.history_bytes,
        };
        let blacklist = Blacklist::open(&BlacklistSources {
            kafka: config.kafka.as_ref().map(|settings| (settings, config.sessions.topic.as_str())),
            state_dir: config.proxy.state_dir.as_deref(),
        })?;
        let apis = Apis::open(&api_sources(config, cores.len())).inspect_err(|_| blacklist.stop())?;
        blacklist.wait_until_read_back();
        let stop_following = || {
            apis.stop();
            blacklist.stop();
        };
        let mut settings = shard_settings(config, cores.len());
        settings.sessions = Arc::clone(blacklist.table());
        let mut key_sets = KeySets::open(&config.tokens, config.proxy.ca_pem.as_ref(), &mut settings.tokens)?;
        settings.proxy.apis = apis.table()?;
        let settings = Arc::new(settings);
        let schemas = schemas::registry(config)?;
        let decoder = schemas::decoder(config, schemas.as_ref());
        let replies = Arc::<ReplyState>::default();
        let requests = match &config.kafka {
            Some(kafka) => Some(Arc::new(KafkaRequests::start(kafka, Arc::clone(&replies), schemas.clone())?)),
            None => None,
        };
        let log = request_log(config, requests.as_ref())?;
        let replays = config.kafka.as_ref().map(|_| Replays::new(stop.clone())).transpose()?.map(Arc::new);
        let positions = config.kafka.as_ref().map(|_| PositionLog::new(config.max_plain_cursor_chars));
        let (positions, waiting) = positions.unzip();
        let snapshots = open_snapshots(config, &stop)?;
        let nodes = Nodes::of(config, &settings);
        let sinks = Sinks {
            events: Arc::clone(&sink),
            requests: requests.clone().map(|requests| requests as Arc<dyn RequestSink>),
            replay: replays.clone().map(|replays| replays as Arc<dyn ReplaySource>),
            checkpoints: positions.clone().map(|positions| positions as Arc<dyn CheckpointSource>),
            snapshots: snapshots.clone().map(|snapshots| snapshots as Arc<dyn SnapshotSource>),
            log,
            peers: nodes.clone().map(|nodes| nodes as Arc<dyn Peers>),
        };
        let (node, mut publisher) = Node::start(&layout, &settings, &sinks, &bell)
            .inspect_err(|_| stop_following())
            .map_err(check::explain_start_failure)?;
        let lanes = publisher.take_replay_lanes();
        let snapshot_lanes = publisher.take_snapshot_lanes();
        let node = Arc::new(node);
        apis.serve(&node);
        let key_metrics = key_sets.metrics();
        key_sets.follow(&node)?;
        let desk = answer_desk(config, &settings.proxy, &node, nodes.clone());

        let tls = config.tls.as_ref().map(Certificates::new);
        let draining = Arc::<AtomicBool>::default();
        let control = Control::start(ControlParts {
            listen: config.internal_port.map(|port| SocketAddr::new(config.internal_host, port)),
            tls: tls.as_ref().map(|tls| tls.internal(config.internal_host)),
            access: config.access.clone(),
            health: health(config, &node, hub.reachability(), &draining),
            metrics: config.metrics.then(|| MetricSources {
                ingress: Arc::clone(&metrics),
                snapshots: snapshots.as_ref().map(|snapshots| Arc::clone(snapshots.metrics())),
                positions: positions.as_ref().map(|positions| Arc::clone(positions.counts())),
                shards: node.metrics().to_vec(),
                producer: producer.as_ref().map(|sink| (Arc::clone(sink.metrics()), sink.topic().to_owned())),
                kafka: hub.reachability().cloned(),
                schemas: schemas.as_ref().map(|schemas| Arc::clone(schemas.metrics())),
                tls: tls.as_ref().map(|tls| Arc::clone(&tls.metrics)),
                apis: Some(Arc::clone(&apis)),
                blacklist: Some(Arc::clone(&blacklist)),
                key_sets: key_metrics,
                requests: requests.as_ref().map(|requests| Arc::clone(requests.counts())),
                replies: Arc::clone(&desk.metrics),
                reply_state: config.kafka.is_some().then(|| Arc::clone(&replies)),
                draining: Arc::clone(&draining),
                nodes: nodes.clone(),
            }),
            desk: desk.clone(),
            apis: Arc::clone(&apis),
            blacklist: Arc::clone(&blacklist),
            sink,
            limits: EventLimits { max_body_bytes: config.max_body_bytes, ..decoder.limits },
        });
        let control = match control {
            Ok(control) => control,
            Err(error) => {
                stop_following();
                shut_down(node);
                return Err(error);
            }
        };
        let replayer = replays
            .as_ref()
            .zip(config.kafka.as_ref())
            .map(|(replays, kafka)| ReplayThread::start(replays, kafka, &decoder, lanes, &metrics));
        let mut outlet = Outlet::new(publisher, bell.clone(), stop.clone(), metrics);
        if let Some(positions) = &positions {
            outlet.keep_checkpoints(Arc::clone(positions));
        }
        let started = replayer.transpose().and_then(|replayer| {
            let positions = match (positions.zip(waiting), &config.kafka) {
                (Some((positions, waiting)), Some(kafka)) => {
                    let (topic, finders) = (&config.positions_topic, node.finders());
                    Some(PositionThreads::start(&positions, waiting, kafka, topic, &bell, finders)?)
                }
                _ => None,
            };
            let server = snapshots
                .as_ref()
                .map(|snapshots| SnapshotThread::start(snapshots, config.kafka.as_ref(), &decoder, snapshot_lanes));
            let server = server.transpose()?;
            let ingress = hub.start_ingress(decoder, outlet, snapshots)?;
            let replies = start_replies(config, settings.node_id, desk.clone(), replies)?;
            Ok((replayer, positions, server, ingress, replies))
        });
        let (replayer, positions, snapshots, ingress, replies) = match started {
            Ok(started) => started,
            Err(error) => {
                control.stop();
                stop_following();
                stop.request();
                shut_down(node);
                return Err(error);
            }
        };
        let unreachable = SocketAddr::new(config.internal_host, 0);
        let addresses = Addresses {
            inbound: node.listening().to_vec(),
            inbound_tls: node.listening_tls().to_vec(),
            internal: control.plain().or(control.tls()).unwrap_or(unreachable),
            internal_tls: control.tls(),
        };
        let reload = tls.map(|tls| tls.follow(&node)).transpose().and_then(|reload| {
            if let Some(nodes) = &nodes
                && let Err(error) = nodes.start(config, node.holders(), desk)
            {
                if let Some(reload) = reload {
                    reload.stop();
                }
                return Err(error);
            }
            Ok(reload)
        });
        let reload = match reload {
            Ok(reload) => reload,
            Err(error) => {
                control.stop();
                stop_following();
                stop.request();
                shut_down(node);
                return Err(error);
            }
        };
        Ok(Self {
            addresses,
            cores,
            node,
            control,
            ingress,
            stop,
            producer,
            apis,
            blacklist,
            key_sets,
            requests,
            replies,
            replayer,
            positions,
            snapshots,
            draining,
            nodes,
            reload,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Stops in order: the internal port, the source, the shards with their connections, the producer with what is in flight.
    pub fn stop(self) {
        if let Some(nodes) = self.nodes {
            nodes.stop();
        }
        if let Some(reload) = self.reload {
            reload.stop();
        }
        self.control.stop();
        self.apis.stop();
        self.blacklist.stop();
        self.key_sets.stop();
        self.stop.request();
        if self.ingress.join().is_err() {
            tracing::error!("the ingress thread panicked");
        }
        if let Some(replies) = self.replies {
            replies.stop();
        }
        if let Some(replayer) = self.replayer {
            replayer.join();
        }
        if let Some(positions) = self.positions {
            positions.stop();
        }
        if let Some(snapshots) = self.snapshots {
            snapshots.join();
        }
        shut_down(self.node);
        if let Some(requests) = self.requests {
            requests.stop();
        }
        if let Some(producer) = self.producer {
            producer.stop();
        }
    }
}

/// Where shards ask for snapshots, if any are kept.
fn open_snapshots(config: &Config, stop: &Stop) -> io::Result<Option<Arc<Snapshots>>> {
    let SnapshotSettings { topics, max_bytes } = &config.snapshots;
    let max_bytes = *max_bytes;
    let (sources, topics) = match &config.kafka {
        Some(kafka) => (kafka.source_topics.clone(), topics.clone()),
        // The hub takes whatever would go to any of the topics.
        None if topics.is_empty() => (Vec::new(), Vec::new()),
        None => (vec!["local".to_owned()], vec!["local".to_owned()]),
    };
    Snapshots::new(&SnapshotSettings { topics, max_bytes }, &sources, stop.clone())
}

fn shut_down(node: Arc<Node>) {
    match Arc::into_inner(node) {
        Some(node) => node.shutdown(),
        None => tracing::error!("the shards are still in use and were not shut down"),
    }
}

fn health(
    config: &Config,
    node: &Arc<Node>,
    reachability: Option<&Arc<Reachability>>,
    draining: &Arc<AtomicBool>,
) -> Health {
    let (shards, node) = (node.metrics().len(), Arc::clone(node));
    let seconds = config.kafka.as_ref().map_or(0, |kafka| kafka.unreachable_seconds);
    Health {
        ping: Arc::new(move |shard| node.ping(shard)),
        shards,
        kafka: reachability.map(|reachability| (Arc::clone(reachability), seconds)),
        draining: Arc::clone(draining),
    }
}

/// Where answers over HTTP come in, and how ids of this node are known.
fn answer_desk(config: &Config, proxy: &ProxySettings, node: &Node, nodes: Option<Arc<Nodes>>) -> AnswerDesk {
    let answers = node.answers();
    let topics = config.kafka.as_ref().map(|_| reply_topics(config).names()).unwrap_or_default();
    AnswerDesk {
        correlator: Correlator::new(proxy.correlation_key.clone(), proxy.instance, answers.shards()),
        answers,
        metrics: Arc::new(ReplyMetrics::new(&topics)),
        nodes,
    }
}

fn reply_topics(config: &Config) -> ReplyTopics {
    ReplyTopics { shared: config.proxy.response_topics.clone(), own: config.proxy.reply_topic.clone() }
}

/// Starts to read answers where there is Kafka.
fn start_replies(
    config: &Config,
    node_id: u64,
    desk: AnswerDesk,
    state: Arc<ReplyState>,
) -> io::Result<Option<Replies>> {
    let Some(kafka) = &config.kafka else { return Ok(None) };
    let AnswerDesk { correlator, answers, metrics, .. } = desk;
    Replies::start(kafka, &reply_topics(config), node_id, correlator, answers, state, metrics).map(Some)
}

fn request_log(config: &Config, requests: Option<&Arc<KafkaRequests>>) -> io::Result<Option<Arc<dyn RequestLog>>> {
    let proxy = &config.proxy;
    if proxy.log_kafka && requests.is_none() {
        tracing::warn!("REQUEST_LOG=kafka has no effect without KAFKA_BROKERS");
    }
    let kafka = requests.filter(|_| proxy.log_kafka).map(|sink| KafkaLog {
        sink: Arc::clone(sink) as Arc<dyn RequestSink>,
        topic: proxy.log_topic.clone(),
        schema: proxy.log_schema.clone(),
        unsettled: VecDeque::new(),
    });
    let console = proxy.log_console.then_some(config.log_format);
    if kafka.is_none() && console.is_none() {
        return Ok(None);
    }
    Ok(Some(Arc::new(CallLog::start(LogSinks { console, kafka })?)))
}
