//! The subcommands of calls, and of what may answer them.

use std::net::SocketAddr;

use clap::Args;
use tidegate_load::{
    BackendOptions, CallLoad, CallPath, CallScenario, HttpCalls, Observe, ReactiveCalls, RequestBody, ServiceOptions,
};

use super::{Measuring, Output};

pub(super) const PROXY_EXAMPLE: &str =
    "Example, directly and through a gateway on port 4000 that sends /load to the backend:
  tidegate-load backend --listen 127.0.0.1:9000 --answer-bytes 200
  tidegate-load proxy --url http://127.0.0.1:9000/ --connections 50
  tidegate-load proxy --url http://127.0.0.1:4000/load --connections 50 --server-pid $(pidof tidegate)
At a fixed rate, with bodies of 10 kB:
  tidegate-load proxy --url http://127.0.0.1:4000/load --method POST --request-bytes 10000 --rate 1000";

pub(super) const REQUEST_EXAMPLE: &str =
    "Example, through an endpoint /ask of target kafka with topic `asked` and response_from kafka:
  tidegate-load service --brokers 127.0.0.1:9092 --topic asked
  tidegate-load request --url http://127.0.0.1:4000/ask --connections 64 --server-pid $(pidof tidegate)
Through the bare client:
  tidegate-load service --brokers 127.0.0.1:9092 --topic asked --reactive ask
  tidegate-load request --brokers 127.0.0.1:9092 --reactive kafka:asked/ask --connections 1024";

pub(super) const SERVICE_EXAMPLE: &str = "Example, as services made for RIG answer:
  tidegate-load service --brokers 127.0.0.1:9092 --topic asked --response-topic rig-proxy-response --ignore-reply-address";

pub(super) const BACKEND_EXAMPLE: &str = "Example:
  tidegate-load backend --listen 127.0.0.1:9000 --answer-bytes 1000 --delay-ms 20";

/// How often, how many at once, how long.
#[derive(Args, Debug)]
pub(crate) struct CallArgs {
    /// Calls a second; without it, each answer is followed by the next call (closed loop)
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Seconds of calling, warm-up included
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// End a closed loop after so many calls, if its time isn't over before
    #[arg(long, value_name = "CALLS", conflicts_with = "rate")]
    total: Option<u64>,
    /// Seconds at the start that are not measured
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seconds after which a call without an answer counts as missing
    #[arg(long, default_value_t = 10.0)]
    answer_timeout: f64,
}

/// Calls over HTTP to a backend, directly or through a proxy.
#[derive(Args, Debug)]
pub(crate) struct ProxyArgs {
    /// What to call; {number} in it becomes the number of the call
    #[arg(long)]
    url: String,
    /// Keep-alive connections, and so calls at the same time
    #[arg(long, short = 'n', default_value_t = 50)]
    connections: u32,
    /// Method of each request
    #[arg(long, default_value = "GET")]
    method: String,
    /// Size of each request's body; 0 for none
    #[arg(long, default_value_t = 0)]
    request_bytes: usize,
    /// Further header of each request, "name: value"; may be repeated
    #[arg(long, value_name = "LINE")]
    header: Vec<String>,
    #[command(flatten)]
    calls: CallArgs,
    #[command(flatten)]
    measuring: Measuring,
    #[command(flatten)]
    output: Output,
}

/// Calls whose answers come back through Kafka.
#[derive(Args, Debug)]
pub(crate) struct RequestArgs {
    /// Endpoint of target kafka with response_from kafka; {number} in it becomes the number of the call
    #[arg(long, required_unless_present = "reactive")]
    url: Option<String>,
    /// Call through the bare ReactiveClient instead: kafka:topic/service
    #[arg(long, value_name = "DESTINATION", conflicts_with_all = ["url", "header", "rate"], requires = "brokers")]
    reactive: Option<String>,
    /// Kafka's bootstrap servers, for --reactive
    #[arg(long, requires = "reactive")]
    brokers: Option<String>,
    /// Topic of the answers, for --reactive
    #[arg(long, default_value = "tidegate-load-replies")]
    reply_topic: String,
    /// Clients that share the calls, for --reactive
    #[arg(long, default_value_t = 1)]
    clients: u32,
    /// Keep-alive connections, and so calls at the same time; for --reactive calls in flight
    #[arg(long, short = 'n', default_value_t = 64)]
    connections: u32,
    /// Size of each request, over HTTP a CloudEvent of about 130 bytes at least
    #[arg(long, default_value_t = 200)]
    event_bytes: usize,
    /// Further header of each request, "name: value"; may be repeated
    #[arg(long, value_name = "LINE")]
    header: Vec<String>,
    #[command(flatten)]
    calls: CallArgs,
    #[command(flatten)]
    measuring: Measuring,
    #[command(flatten)]
    output: Output,
}

/// The bundled service.
#[derive(Args, Debug)]
pub(crate) struct ServiceArgs {
    /// Kafka's bootstrap servers
    #[arg(long)]
    brokers: String,
    /// Topic of the requests
    #[arg(long)]
    topic: String,
    /// Topic for answers to requests that name none
    #[arg(long, default_value = "rig-proxy-response")]
    response_topic: String,
    /// Answer to --response-topic also where a request names its own reply topic and partition
    #[arg(long)]
    ignore_reply_address: bool,
    /// Serve this id with a ReactiveServer instead, for `request --reactive`
    #[arg(long, value_name = "ID", conflicts_with_all = ["response_topic", "ignore_reply_address"])]
    reactive: Option<String>,
    /// Size of each answer's body; 21 at least
    #[arg(long, default_value_t = 200)]
    answer_bytes: usize,
    /// Bind it to this CPU
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

impl RequestArgs {
    pub(super) fn into_scenario(self) -> (CallScenario, Output) {
        let path = match self.reactive {
            Some(destination) => CallPath::Reactive(ReactiveCalls {
                brokers: self.brokers.unwrap_or_default(),
                destination,
                reply_topic: self.reply_topic,
                payload_bytes: self.event_bytes,
                clients: self.clients,
            }),
            None => CallPath::Http(HttpCalls {
                headers: self.header,
                ..HttpCalls::events(&self.url.unwrap_or_default(), self.event_bytes)
            }),
        };
        (self.calls.scenario(path, self.connections, &self.measuring), self.output)
    }
}

impl ServiceArgs {
    pub(super) fn into_options(self) -> ServiceOptions {
        ServiceOptions {
            brokers: self.brokers,
            topic: self.topic,
            response_topic: self.response_topic,
            ignores_reply_address: self.ignore_reply_address,
            reactive: self.reactive,
            answer_bytes: self.answer_bytes,
            cpu: self.cpu,
        }
    }
}

/// The bundled backend.
#[derive(Args, Debug)]
pub(crate) struct BackendArgs {
    /// Where to listen; port 0 for any
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Size of each answer's body; 21 at least
    #[arg(long, default_value_t = 200)]
    answer_bytes: usize,
    /// Milliseconds between a request and its answer
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=600_000))]
    delay_ms: u64,
    /// Bind it to this CPU
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

impl ProxyArgs {
    pub(super) fn into_scenario(self) -> (CallScenario, Output) {
        let body = match self.request_bytes {
            0 => RequestBody::None,
            bytes => RequestBody::Plain { bytes },
        };
        let calls = HttpCalls { url: self.url, method: self.method, headers: self.header, body };
        (self.calls.scenario(CallPath::Http(calls), self.connections, &self.measuring), self.output)
    }
}

impl CallArgs {
    fn scenario(&self, path: CallPath, concurrency: u32, measuring: &Measuring) -> CallScenario {
        CallScenario {
            path,
            load: CallLoad {
                concurrency,
                rate_per_s: self.rate,
                duration_s: self.duration,
                total: self.total,
                warmup_s: self.warmup,
            },
            observe: Observe { server_pid: measuring.server_pid, pin_cpu: measuring.pin_cpu },
            answer_timeout_s: self.answer_timeout,
        }
    }
}

impl BackendArgs {
    pub(super) fn into_options(self) -> BackendOptions {
        let Self { listen, answer_bytes, delay_ms, cpu } = self;
        BackendOptions { listen, answer_bytes, delay_ms, cpu }
    }
}
