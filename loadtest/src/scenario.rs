//! What to run: the description of a load, complete and serialisable.

use serde::{Deserialize, Serialize};

use crate::error::LoadError;

/// One load run. [`run`](crate::run) carries it out.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Scenario {
    /// What the clients and the source do.
    pub workload: Workload,
    /// The server's client side.
    pub target: Target,
    /// Where events go in.
    pub source: Source,
    /// CloudEvents type of the generated events; empty for the workload's own (`load.broadcast` and so on).
    pub event_type: String,
    /// Text around each event for servers that want one, with `{event}` and, where they need it, `{key}` in it.
    pub envelope: Option<String>,
    /// What is observed and where the generator runs.
    pub observe: Observe,
    /// Bounds in time and number.
    pub limits: Limits,
}

impl Scenario {
    /// A scenario with default bounds, publishing through the target's own HTTP endpoint.
    pub fn new(workload: Workload, target: Target) -> Self {
        let source = Source::Http(HttpSource::new(&target.url));
        Self {
            workload,
            target,
            source,
            event_type: String::new(),
            envelope: None,
            observe: Observe::default(),
            limits: Limits::default(),
        }
    }

    /// The event type in force.
    pub fn event_type(&self) -> String {
        if self.event_type.is_empty() { format!("load.{}", self.workload.name()) } else { self.event_type.clone() }
    }
}

/// What a run does.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Workload {
    /// All clients subscribe to one type and get every event.
    Broadcast {
        /// Clients.
        connections: u32,
        /// The events.
        load: Load,
    },
    /// Every client subscribes with a key of its own; each event is for one of them.
    Unicast {
        /// Clients, and so keys.
        connections: u32,
        /// The events of all keys together.
        load: Load,
        /// Which key is next.
        keys: KeyOrder,
    },
    /// Many Kafka messages of which one client wants only the first and the last.
    Drop {
        /// Unwanted messages between the two wanted ones.
        messages: u64,
        /// Size of every message in bytes.
        event_bytes: usize,
    },
    /// Connections that wait.
    Idle {
        /// Clients.
        connections: u32,
        /// How long they wait, in seconds.
        duration_s: f64,
    },
    /// Connections that subscribe, see their subscription confirmed, and leave.
    Churn {
        /// Connections in all.
        total: u64,
        /// Connections open at the same time.
        concurrency: u32,
        /// Leave by reset (RST) and not by an orderly close.
        reset: bool,
    },
    /// A broadcast in whose second half some clients stop reading.
    SlowClients {
        /// Clients, those that stop included.
        connections: u32,
        /// Clients that stop reading.
        slow: u32,
        /// The events.
        load: Load,
    },
}

impl Workload {
    /// The workload's name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Broadcast { .. } => "broadcast",
            Self::Unicast { .. } => "unicast",
            Self::Drop { .. } => "drop",
            Self::Idle { .. } => "idle",
            Self::Churn { .. } => "churn",
            Self::SlowClients { .. } => "slow-clients",
        }
    }

    /// Clients that are connected at the same time.
    pub fn connections(&self) -> u32 {
        match *self {
            Self::Broadcast { connections, .. }
            | Self::Unicast { connections, .. }
            | Self::Idle { connections, .. }
            | Self::SlowClients { connections, .. } => connections,
            Self::Drop { .. } => 1,
            Self::Churn { concurrency, .. } => concurrency,
        }
    }

    /// The events' schedule, where there is one.
    pub fn load(&self) -> Option<&Load> {
        match self {
            Self::Broadcast { load, .. } | Self::Unicast { load, .. } | Self::SlowClients { load, .. } => Some(load),
            Self::Drop { .. } | Self::Idle { .. } | Self::Churn { .. } => None,
        }
    }
}

/// A flow of events at a fixed rate.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Load {
    /// Events a second.
    pub rate_per_s: f64,
    /// How long, in seconds, warm-up included.
    pub duration_s: f64,
    /// Part at the start whose latency is left out, in seconds; its events are audited all the same.
    pub warmup_s: f64,
    /// Size of the event's JSON text in bytes; about 180 at least.
    pub event_bytes: usize,
    /// For saturation: events published and not yet received by every client never exceed this. The loop is then
    /// closed, and latency counts from the real send time; `None` keeps the schedule whatever happens.
    pub max_outstanding: Option<u64>,
}

impl Default for Load {
    fn default() -> Self {
        Self { rate_per_s: 100.0, duration_s: 10.0, warmup_s: 1.0, event_bytes: 200, max_outstanding: None }
    }
}

/// Which key the next unicast event has.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum KeyOrder {
    /// One after the other.
    RoundRobin,
    /// By chance, the same for the same seed.
    Random {
        /// Start of the generator.
        seed: u64,
    },
}

/// How clients are connected.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Transport {
    /// WebSocket.
    Ws,
    /// Server-Sent Events.
    Sse,
    /// Long polling with RIG's cookies.
    Longpolling,
}

impl Transport {
    /// The transport's name on the command line, and in RIG's paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Sse => "sse",
            Self::Longpolling => "longpolling",
        }
    }
}

/// The server's client side.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Target {
    /// `http://` or `ws://` address. Without a path, RIG's connection paths are used; with one, it is taken as it is,
    /// and `{subscriptions}`, `{type}`, `{key}` and `{index}` in it are filled in per client.
    pub url: String,
    /// How clients are connected.
    pub transport: Transport,
    /// Text frame sent after a WebSocket handshake, with the same placeholders.
    pub first_frame: Option<String>,
    /// A message that contains this text says that the subscription is in force.
    pub ready_marker: String,
    /// Further request header lines of each client (`name: value`).
    pub headers: Vec<String>,
}

impl Target {
    /// A Tidegate or RIG at `url`.
    pub fn new(url: &str, transport: Transport) -> Self {
        Self {
            url: url.to_owned(),
            transport,
            first_frame: None,
            ready_marker: "rig.subscriptions_set".to_owned(),
            headers: Vec::new(),
        }
    }
}

/// Where events go in.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Source {
    /// By HTTP.
    Http(HttpSource),
    /// Through Kafka.
    Kafka(KafkaSource),
}

/// Publishing by HTTP over keep-alive connections.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct HttpSource {
    /// Address to POST to; without a path, `/_rig/v1/events`.
    pub url: String,
    /// Connections; a stream always uses the same one, so its order is kept.
    pub connections: u32,
    /// Events per request; above 1 as `application/cloudevents-batch+json`.
    pub batch: usize,
    /// Requests on one connection that may wait for their answers.
    pub pipeline: usize,
}

impl HttpSource {
    /// One connection, one event per request.
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), connections: 1, batch: 1, pipeline: 16 }
    }
}

/// Publishing through Kafka; the key of a message is the key of its stream, so the order of a stream is that of its
/// partition.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct KafkaSource {
    /// Bootstrap servers.
    pub brokers: String,
    /// Topic.
    pub topic: String,
    /// Further librdkafka settings, e.g. `linger.ms`.
    pub settings: Vec<(String, String)>,
}

/// What is observed and where the generator runs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Observe {
    /// Process whose CPU time and memory are read from /proc.
    pub server_pid: Option<u32>,
    /// CPU that all threads of this process are bound to.
    pub pin_cpu: Option<usize>,
}

/// Bounds of a run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Limits {
    /// Longest wait for all connections to be ready, in seconds.
    pub ready_timeout_s: f64,
    /// Longest wait for what is still under way after the last event was sent, in seconds.
    pub drain_timeout_s: f64,
    /// Longest run of a workload that counts connections or messages and not time, in seconds.
    pub run_timeout_s: f64,
    /// Connections that are being opened at the same time.
    pub opening: u32,
    /// Addresses 127.0.0.1, 127.0.0.2 … that connections to loopback come from; `None`: as many as they need.
    pub source_addresses: Option<u8>,
    /// The publisher wakes up no more often than this, in microseconds.
    pub tick_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ready_timeout_s: 60.0,
            drain_timeout_s: 10.0,
            run_timeout_s: 600.0,
            opening: 128,
            source_addresses: None,
            tick_us: 200,
        }
    }
}

impl Scenario {
    /// Refuses what can't be run, with the reason.
    pub(crate) fn validate(&self) -> Result<(), LoadError> {
        let refuse = |reason: &str| Err(LoadError::Scenario(reason.to_owned()));
        if self.workload.connections() == 0 {
            return refuse("at least one connection is needed");
        }
        if let Some(load) = self.workload.load() {
            let positive = |value: f64| value.is_finite() && value > 0.0;
            if !positive(load.rate_per_s) || !positive(load.duration_s) || load.warmup_s.is_nan() {
                return refuse("rate and duration must be positive");
            }
            if load.warmup_s >= load.duration_s {
                return refuse("the warm-up must be shorter than the duration");
            }
            if load.event_bytes > 1 << 20 || load.max_outstanding == Some(0) {
                return refuse("events are at most 1 MiB, and at least one may be outstanding");
            }
        }
        match &self.workload {
            Workload::Drop { messages, event_bytes } if *messages == 0 || *event_bytes > 1 << 20 => {
                return refuse("drop needs at least one message, of at most 1 MiB");
            }
            Workload::SlowClients { connections, slow, .. } if slow >= connections => {
                return refuse("at least one client must go on reading: fewer slow ones than connections");
            }
            Workload::Churn { .. } | Workload::SlowClients { .. }
                if self.target.transport == Transport::Longpolling =>
            {
                return refuse("churn and slow-clients need a connection that stays: ws or sse");
            }
            _ => {}
        }
        if let Source::Http(http) = &self.source
            && (http.connections == 0 || http.batch == 0 || http.pipeline == 0)
        {
            return refuse("connections, batch and pipeline of the HTTP source must be at least 1");
        }
        if self.envelope.as_ref().is_some_and(|envelope| envelope.matches("{event}").count() != 1) {
            return refuse("the envelope must hold {event} once");
        }
        if self.target.ready_marker.is_empty() {
            return refuse("the ready marker is empty");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(workload: Workload) -> Scenario {
        Scenario::new(workload, Target::new("http://127.0.0.1:4000", Transport::Sse))
    }

    #[test]
    fn a_scenario_survives_json() {
        let load = Load { rate_per_s: 0.5, max_outstanding: Some(3), ..Load::default() };
        let keys = KeyOrder::Random { seed: 7 };
        let workload = Workload::Unicast { connections: 3, load, keys };
        let text = serde_json::to_string(&scenario(workload.clone())).unwrap();
        let back: Scenario = serde_json::from_str(&text).unwrap();
        assert_eq!(back.workload, workload);
        assert_eq!(back.event_type(), "load.unicast");
    }

    #[test]
    fn what_can_not_be_run_is_refused_with_the_reason() {
        let load = |change: fn(&mut Load)| {
            let mut load = Load::default();
            change(&mut load);
            Workload::Broadcast { connections: 1, load }
        };
        let broken = [
            (Workload::Idle { connections: 0, duration_s: 1.0 }, "at least one connection"),
            (load(|load| load.rate_per_s = 0.0), "positive"),
            (load(|load| load.duration_s = f64::NAN), "positive"),
            (load(|load| load.warmup_s = 10.0), "warm-up"),
            (Workload::SlowClients { connections: 2, slow: 2, load: Load::default() }, "go on reading"),
        ];
        for (workload, reason) in broken {
            let error = scenario(workload).validate().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(scenario(load(|_| {})).validate().is_ok());
    }
}
