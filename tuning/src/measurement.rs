//! The figures of one shard count under one kind of traffic.

use serde::{Deserialize, Serialize};

/// The two kinds of traffic: they load a gateway in opposite ways.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Traffic {
    /// Every client gets every event: sockets are the work.
    Broadcast,
    /// Every event is for one client: decoding and matching are the work.
    Unicast,
}

impl Traffic {
    /// Both, in the order of the table.
    pub const ALL: [Self; 2] = [Self::Broadcast, Self::Unicast];

    /// Its name in tables and types of events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Unicast => "unicast",
        }
    }
}

/// How busy threads were while events flowed, each as a share of one core (1.0: always running).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Busy {
    /// The busiest shard.
    pub shard: f64,
    /// The ingress thread.
    pub ingress: f64,
    /// The load generator: its busiest thread, or all its threads as a share of the cores they may use, whichever is
    /// more. At 1.0 it could not ask for more.
    pub generator: f64,
    /// All threads of gateway and generator, as a share of the cores that this process may use.
    pub machine: f64,
    /// All other processes, as a share of the same cores: what they took, the figures lack.
    pub others: f64,
}

/// One shard count under one kind of traffic.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Measurement {
    /// Shards of the gateway.
    pub shards: usize,
    /// The traffic.
    pub traffic: Traffic,
    /// Clients.
    pub connections: u32,
    /// Events a second that arrived at clients, as many as the gateway managed.
    pub deliveries_per_s: f64,
    /// 99th percentile of the delay at half that rate, from the intended send time to the client's read, in
    /// microseconds; `None` if nothing arrived after the warm-up.
    pub p99_us: Option<u64>,
    /// CPU time of the whole gateway per 1,000 deliveries, in milliseconds.
    pub cpu_ms_per_thousand: f64,
    /// Bytes of message payload a second that went to clients.
    pub payload_bytes_per_s: f64,
    /// How busy the threads were at full rate.
    pub busy: Busy,
    /// Whether the generator had to share cores with the shards.
    pub shared_cores: bool,
    /// Whether every event arrived, once and in order.
    pub complete: bool,
}
