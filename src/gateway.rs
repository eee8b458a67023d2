//! Assembles the threads of a node, starts them, and stops them.

mod serve;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};

use tidegate_reactive::correlation::CorrelationKey;
use tidegate_shards::auth::settings::TokenSettings;
use tidegate_shards::bell::Bell;
use tidegate_shards::clock;
use tidegate_shards::event::EventLimits;
use tidegate_shards::node::{Node, NodeLayout};
use tidegate_shards::peers::Peers;
use tidegate_shards::proxy::outbound::{RequestLog, RequestSink};
use tidegate_shards::replay::ReplaySource;
use tidegate_shards::settings::{ProxySettings, ShardSettings};
use tidegate_shards::submit::{EventSink, Sinks};
use tidegate_shards::token::TokenKey;

pub use self::serve::{serve, serve_beside};
use crate::auth::KeySets;
use crate::config::{Config, KafkaSettings};
use crate::control::{AnswerDesk, Control, ControlParts, Health, MetricSources};
use crate::cores::{self, format_list};
use crate::egress::producer::KafkaSink;
use crate::egress::requests::KafkaRequests;
use crate::ingress::kafka::KafkaIngress;
use crate::ingress::local::{self, LocalHub};
use crate::ingress::metrics::IngressMetrics;
use crate::ingress::replay::{ReplayThread, Replays};
use crate::ingress::{Outlet, Stop};
use crate::kafka::Reachability;
use crate::nodes::Nodes;
use crate::proxy::Apis;
use crate::proxy::apis::ApiSources;
use crate::proxy::request_log::{CallLog, LogSinks};
use crate::replies::{Correlator, Replies, ReplyMetrics, ReplyState, ReplyTopics};
use crate::sessions::{Blacklist, BlacklistSources};
use crate::{check, limits, takeover};

/// Events that may wait for one shard; beyond, ingress waits.
const MAILBOX_EVENTS: usize = 16_384;
/// Bytes of one segment of events.
const SEGMENT_BYTES: usize = 4 << 20;
/// Depth of JSON in events.
const MAX_JSON_DEPTH: usize = 128;

/// The addresses a gateway listens on, with port 0 resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For clients.
    pub inbound: Vec<SocketAddr>,
    /// The internal port.
    pub internal: SocketAddr,
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
    replayer: Option<ReplayThread>,
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

    fn start_ingress(self, config: &Config, outlet: Outlet) -> io::Result<JoinHandle<()>> {
        let extractors = Arc::clone(&config.extractors);
        let builder = thread::Builder::new().name("ingress".to_owned());
        match self {
            Self::Local(hub) => builder.spawn(move || local::run(&hub, outlet, &extractors)),
            Self::Kafka { settings, reachability, .. } => {
                let ingress = KafkaIngress::start(&settings, outlet, extractors, event_limits(config), reachability)?;
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
            let mut addresses = listen_addresses(&config.inbound_hosts, config.inbound_port);
            addresses.push(SocketAddr::new(config.internal_host, config.internal_port));
            takeover::refuse_taken(&addresses)?;
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
        let replies = Arc::<ReplyState>::default();
        let requests = match &config.kafka {
            Some(kafka) => Some(Arc::new(KafkaRequests::start(kafka, Arc::clone(&replies))?)),
            None => None,
        };
        let log = request_log(config, requests.as_ref())?;
        let replays = config.kafka.as_ref().map(|_| Replays::new(stop.clone())).transpose()?.map(Arc::new);
        let nodes = Nodes::of(config, &settings);
        let sinks = Sinks {
            events: Arc::clone(&sink),
            requests: requests.clone().map(|requests| requests as Arc<dyn RequestSink>),
            replay: replays.clone().map(|replays| replays as Arc<dyn ReplaySource>),
            log,
            peers: nodes.clone().map(|nodes| nodes as Arc<dyn Peers>),
        };
        let (node, mut publisher) = Node::start(&layout, &settings, &sinks, &bell)
            .inspect_err(|_| stop_following())
            .map_err(check::explain_start_failure)?;
        let lanes = publisher.take_replay_lanes();
        let node = Arc::new(node);
        apis.serve(&node);
        let key_metrics = key_sets.metrics();
        key_sets.follow(&node)?;
        let desk = answer_desk(config, &settings.proxy, &node, nodes.clone());

        let draining = Arc::<AtomicBool>::default();
        let control = Control::start(ControlParts {
            listen: SocketAddr::new(config.internal_host, config.internal_port),
            health: health(config, &node, hub.reachability(), &draining),
            metrics: config.metrics.then(|| MetricSources {
                ingress: Arc::clone(&metrics),
                shards: node.metrics().to_vec(),
                producer: producer.as_ref().map(|sink| (Arc::clone(sink.metrics()), sink.topic().to_owned())),
                kafka: hub.reachability().cloned(),
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
            limits: EventLimits { max_depth: MAX_JSON_DEPTH, max_body_bytes: config.max_body_bytes },
        });
        let control = match control {
            Ok(control) => control,
            Err(error) => {
                stop_following();
                shut_down(node);
                return Err(error);
            }
        };
        let limits = event_limits(config);
        let replayer = replays
            .as_ref()
            .zip(config.kafka.as_ref())
            .map(|(replays, kafka)| ReplayThread::start(replays, kafka, &config.extractors, limits, lanes, &metrics));
        let outlet = Outlet::new(publisher, bell, stop.clone(), metrics);
        let started = replayer.transpose().and_then(|replayer| {
            let ingress = hub.start_ingress(config, outlet)?;
            Ok((replayer, ingress, start_replies(config, settings.node_id, desk.clone(), replies)?))
        });
        let (replayer, ingress, replies) = match started {
            Ok(started) => started,
            Err(error) => {
                control.stop();
                stop_following();
                stop.request();
                shut_down(node);
                return Err(error);
            }
        };
        if let Some(nodes) = &nodes
            && let Err(error) = nodes.start(config, node.holders(), desk)
        {
            control.stop();
            stop_following();
            stop.request();
            shut_down(node);
            return Err(error);
        }
        let addresses = Addresses { inbound: node.listening().to_vec(), internal: control.address() };
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
            draining,
            nodes,
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
        shut_down(self.node);
        if let Some(requests) = self.requests {
            requests.stop();
        }
        if let Some(producer) = self.producer {
            producer.stop();
        }
    }

    /// One line for scripts: where to reach the gateway, now that it listens.
    #[must_use]
    pub fn ready_line(&self) -> String {
        let inbound = self.addresses.inbound.first().map(ToString::to_string).unwrap_or_default();
        format!("tidegate ready inbound={inbound} internal={}", self.addresses.internal)
    }

    /// The start-up summary.
    #[must_use]
    pub fn summary(&self, config: &Config) -> String {
        let urls =
            self.addresses.inbound.iter().map(|address| format!("http://{address}")).collect::<Vec<_>>().join(", ");
        let pinned: Vec<_> = self.cores.iter().copied().flatten().collect();
        let shards = match (self.cores.len(), pinned.as_slice()) {
            (count, []) => format!("{count}, not pinned"),
            (1, [core]) => format!("1 on core {core}"),
            (count, pinned) => format!("{count} on cores {}", format_list(pinned)),
        };
        let endpoints = self.apis.endpoints();
        let hub = config.kafka.as_ref().map_or_else(
            || "local to this process (KAFKA_BROKERS reads from Kafka)".to_owned(),
            |kafka| format!("Kafka at {}, topics {}", kafka.brokers.join(","), kafka.source_topics.join(", ")),
        );
        format!(
            "Tidegate {version}\n  clients   {urls} (event streams, WebSocket, long polling)\n  \
             internal  http://{internal} (/health, /metrics, /v3/messages, /v3/apis)\n  shards    {shards}\n  hub       {hub}\n  apis      \
             {endpoints} endpoint{s}",
            s = if endpoints == 1 { "" } else { "s" },
            version = env!("CARGO_PKG_VERSION"),
            internal = self.addresses.internal,
        )
    }
}

fn event_limits(config: &Config) -> EventLimits {
    EventLimits { max_depth: MAX_JSON_DEPTH, max_body_bytes: config.max_event_bytes }
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

fn shard_settings(config: &Config, shards: usize) -> ShardSettings {
    let shards = u32::try_from(shards).unwrap_or(u32::MAX).max(1);
    let node_id = uuid::Uuid::new_v4().as_u64_pair().0;
    let token_key = config.node_cookie.as_deref().map_or_else(TokenKey::random, TokenKey::derive_from);
    ShardSettings {
        listen: listen_addresses(&config.inbound_hosts, config.inbound_port),
        cors: config.cors.clone(),
        extractors: Arc::clone(&config.extractors),
        strict_constraints: config.strict_constraints,
        max_connections_per_minute: config.max_connections_per_minute.div_ceil(shards),
        max_subscriptions: config.max_subscriptions,
        max_queue_bytes: config.max_queue_bytes,
        slow_client: config.slow_client.as_slice().into(),
        max_body_bytes: config.max_body_bytes,
        max_message_bytes: config.max_message_bytes,
        header_timeout_ms: config.header_timeout_ms,
        heartbeat_ms: config.heartbeat_ms,
        long_polling_wait_ms: config.long_polling_wait_ms,
        long_polling_session_ms: config.long_polling_session_ms,
        token_key,
        node_id,
        proxy: proxy_settings(config, shards as usize, node_id),
        limits: config.limits.settings(),
        echo_endpoint: config.echo_endpoint,
        replay_earliest: config.replay_earliest,
        tokens: TokenSettings {
            cache_bytes: config.tokens.settings.cache_bytes / shards as usize,
            ..config.tokens.settings.clone()
        },
        sessions: Arc::default(),
        end_at_token_expiry: config.sessions.end_at_token_expiry,
        subscription_mode: config.sessions.mode,
        spin_us: config.spin_us,
    }
}

fn api_sources(config: &Config, shards: usize) -> ApiSources<'_> {
    let proxy = &config.proxy;
    ApiSources {
        definitions: &proxy.definitions,
        kafka: config.kafka.as_ref().map(|settings| (settings, proxy.apis_topic.as_str())),
        state_dir: proxy.state_dir.as_deref(),
        avro: proxy.avro,
        node_name: &proxy.forwarded_by,
        shards,
    }
}

fn proxy_settings(config: &Config, shards: usize, node_id: u64) -> ProxySettings {
    let proxy = &config.proxy;
    let secret = config.node_cookie.as_deref().map_or_else(random_secret, |cookie| cookie.as_bytes().to_vec());
    ProxySettings {
        apis: Arc::default(),
        correlation_key: CorrelationKey::derive_from(&secret),
        instance: node_id & !0xffff,
        forwarded_by: proxy.forwarded_by.as_str().into(),
        connect_timeout_ms: proxy.connect_timeout_ms,
        first_byte_timeout_ms: proxy.first_byte_timeout_ms,
        idle_timeout_ms: proxy.idle_timeout_ms,
        keep_alive_ms: proxy.keep_alive_ms,
        max_connections: proxy.max_connections.div_ceil(shards),
        ca_pem: proxy.ca_pem.clone(),
        http_async_timeout_ms: proxy.http_async_timeout_ms,
        kafka_timeout_ms: proxy.kafka_timeout_ms,
        max_pending: proxy.max_pending.div_ceil(shards),
        max_kafka_body_bytes: config.max_body_bytes,
        stored_bytes: proxy.stored_bytes / shards,
        stored_ms: proxy.stored_ms,
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
    let kafka = requests.filter(|_| proxy.log_kafka);
    let kafka = kafka.map(|sink| (Arc::clone(sink) as Arc<dyn RequestSink>, proxy.log_topic.clone()));
    let console = proxy.log_console.then_some(config.log_format);
    if kafka.is_none() && console.is_none() {
        return Ok(None);
    }
    Ok(Some(Arc::new(CallLog::start(LogSinks { console, kafka })?)))
}

fn random_secret() -> Vec<u8> {
    let (first, second) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    [*first.as_bytes(), *second.as_bytes()].concat()
}

/// All IPv6 addresses, which takes in IPv4, becomes all IPv4 addresses on a machine without IPv6.
fn listen_addresses(hosts: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let has_ipv6 = || TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    let usable = |host: &IpAddr| match host {
        IpAddr::V6(address) if address.is_unspecified() && !has_ipv6() => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        host => *host,
    };
    hosts.iter().map(usable).map(|host| SocketAddr::new(host, port)).collect()
}
