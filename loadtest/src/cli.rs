//! The command line: one subcommand per workload.

mod calls;
mod chaos;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidegate_load::{
    BackendOptions, CallScenario, ChaosOptions, HttpSource, KafkaSource, KeyOrder, Limits, Load, Observe, Scenario,
    ServiceOptions, Source, Target, Transport, Workload,
};

use self::calls::{
    BACKEND_EXAMPLE, BackendArgs, PROXY_EXAMPLE, ProxyArgs, REQUEST_EXAMPLE, RequestArgs, SERVICE_EXAMPLE, ServiceArgs,
};
use self::chaos::{CHAOS_EXAMPLE, ChaosArgs};

const BROADCAST_EXAMPLE: &str = "Example:
  tidegate-load broadcast --connections 1000 --rate 100 --event-bytes 200 --server-pid $(pidof tidegate)
Saturation (closed loop, batches by HTTP):
  tidegate-load broadcast --connections 1000 --rate 100000 --max-outstanding 64 --batch 16";

const UNICAST_EXAMPLE: &str = r#"The server must know the field "key":
  EXTRACTORS='{"load.unicast":{"key":{"stable_field_index":1,"event":{"json_pointer":"/data/key"}}}}'
Example:
  tidegate-load unicast --connections 5000 --rate 31000 --event-bytes 512 --kafka 127.0.0.1:9092 --topic rig"#;

const DROP_EXAMPLE: &str = "Example:
  tidegate-load drop --messages 1000000 --kafka 127.0.0.1:9092 --topic rig --server-pid $(pidof tidegate)";

const IDLE_EXAMPLE: &str = "Example:
  tidegate-load idle --connections 10000 --duration 60 --transport sse --server-pid $(pidof tidegate)
The server's MAX_CONNECTIONS_PER_MINUTE (5000 by default) must allow it.";

const CHURN_EXAMPLE: &str = "Example:
  tidegate-load churn --total 1000000 --concurrency 64 --server-pid $(pidof tidegate)
The server's MAX_CONNECTIONS_PER_MINUTE (5000 by default) must allow it.";

const SLOW_EXAMPLE: &str = "Example:
  tidegate-load slow-clients --connections 1000 --slow 100 --rate 2000 --event-bytes 1000 --duration 20";

const ABOUT: &str = "Puts load on an event gateway and checks what comes out of it.

Latency counts from the moment at which the schedule wanted an event sent, not from when it really left, and every
sequence number of every client is audited: missing, double, out of order, or meant for somebody else.

Exit code: 0 all well; 1 the run was done and its audit failed (or connections or events were lost); 2 the run could not
be done. One process holds as many connections as it may have open files (often 20,000): for more, start several. ";

#[derive(Debug, Parser)]
#[command(name = "tidegate-load", version, about = "Load generator for event gateways", long_about = ABOUT)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All clients get every event
    #[command(after_help = BROADCAST_EXAMPLE)]
    Broadcast {
        #[command(flatten)]
        connections: Connections,
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        source: SourceArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Every client has a key of its own and gets only the events with it
    #[command(after_help = UNICAST_EXAMPLE)]
    Unicast {
        #[command(flatten)]
        connections: Connections,
        /// Keys by chance, with this start of the generator; without it, one after the other
        #[arg(long, value_name = "SEED")]
        random_keys: Option<u64>,
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        source: SourceArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Many events of which one client wants only the first and the last
    #[command(after_help = DROP_EXAMPLE)]
    Drop {
        /// Unwanted messages
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
        messages: u64,
        /// Size of each message in bytes
        #[arg(long, default_value_t = 1_000)]
        event_bytes: usize,
        #[command(flatten)]
        source: SourceArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Connections that only wait: memory of each, CPU of all
    #[command(after_help = IDLE_EXAMPLE)]
    Idle {
        #[command(flatten)]
        connections: Connections,
        /// Seconds to wait
        #[arg(long, default_value_t = 30.0)]
        duration: f64,
        #[command(flatten)]
        common: Common,
    },
    /// Connect, subscribe, see it confirmed, leave; over and over
    #[command(after_help = CHURN_EXAMPLE)]
    Churn {
        /// Connections in all
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
        total: u64,
        /// Connections at the same time
        #[arg(long, default_value_t = 64)]
        concurrency: u32,
        /// Leave by reset (RST) instead of an orderly close
        #[arg(long)]
        reset: bool,
        #[command(flatten)]
        common: Common,
    },
    /// A broadcast in whose second half some clients stop reading
    #[command(after_help = SLOW_EXAMPLE)]
    SlowClients {
        #[command(flatten)]
        connections: Connections,
        /// Clients among them that stop reading
        #[arg(long, default_value_t = 10)]
        slow: u32,
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        source: SourceArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Calls that a backend answers, directly or through a proxy: whose answer comes back, and how fast
    #[command(after_help = PROXY_EXAMPLE)]
    Proxy(Box<ProxyArgs>),
    /// The backend for `proxy`: answers every call with what belongs to its number
    #[command(after_help = BACKEND_EXAMPLE)]
    Backend(BackendArgs),
    /// Calls whose answers come back through Kafka
    #[command(after_help = REQUEST_EXAMPLE)]
    Request(Box<RequestArgs>),
    /// The service for `request`: reads requests from a topic and answers each with what belongs to its number
    #[command(after_help = SERVICE_EXAMPLE)]
    Service(ServiceArgs),
    /// Several gateways on one Kafka under faults by a plan, with an auditor per client
    #[command(after_help = CHAOS_EXAMPLE)]
    Chaos(Box<ChaosArgs>),
}

/// What the command line asks for.
pub(crate) enum Task {
    /// Events, published and received.
    Events(Box<Scenario>, Output),
    /// Calls and answers.
    Calls(Box<CallScenario>, Output),
    /// To answer calls until the process is ended.
    Backend(BackendOptions),
    /// To answer requests from a topic until the process is ended.
    Service(ServiceOptions),
    /// Faults, and clients that audit what reaches them.
    Chaos(Box<ChaosOptions>, Output),
}

#[derive(Args, Debug)]
pub(crate) struct Connections {
    /// Clients connected at the same time
    #[arg(long, short = 'n', default_value_t = 100)]
    connections: u32,
}

#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// Events a second
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Seconds of publishing, warm-up included
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Seconds at the start whose latency is left out
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Size of the event's JSON text in bytes (about 180 at least)
    #[arg(long, default_value_t = 200)]
    event_bytes: usize,
    /// Closed loop for saturation: so many events may be published and not yet received
    #[arg(long, value_name = "EVENTS")]
    max_outstanding: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct SourceArgs {
    /// Publish by HTTP to this address instead of the server's own /_rig/v1/events
    #[arg(long, value_name = "URL", conflicts_with = "kafka", help_heading = "Source")]
    publish_url: Option<String>,
    /// Keep-alive connections of the HTTP publisher
    #[arg(long, default_value_t = 1, help_heading = "Source")]
    publish_connections: u32,
    /// Events per HTTP request, as application/cloudevents-batch+json if more than one
    #[arg(long, default_value_t = 1, help_heading = "Source")]
    batch: usize,
    /// Requests on one HTTP connection that may wait for their answers
    #[arg(long, default_value_t = 16, help_heading = "Source")]
    pipeline: usize,
    /// Text around each event for other servers, e.g. {"channel":"{key}","data":{event}}
    #[arg(long, value_name = "TEXT", help_heading = "Source")]
    envelope: Option<String>,
    /// Publish through these Kafka brokers instead
    #[arg(long, value_name = "BROKERS", help_heading = "Source")]
    kafka: Option<String>,
    /// Kafka topic
    #[arg(long, default_value = "rig", help_heading = "Source")]
    topic: String,
    /// Setting of librdkafka's producer, e.g. linger.ms=1; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value, help_heading = "Source")]
    kafka_set: Vec<(String, String)>,
}

#[derive(Args, Debug)]
pub(crate) struct Common {
    /// Server, http:// or ws://. With a path, it is used as it is, and {subscriptions}, {type}, {key}, {index} are filled in
    #[arg(long, default_value = "http://127.0.0.1:4000", help_heading = "Server")]
    url: String,
    /// How clients connect
    #[arg(long, value_enum, default_value_t = TransportArg::Ws, help_heading = "Server")]
    transport: TransportArg,
    /// Text frame sent after the WebSocket handshake; the same placeholders are filled in
    #[arg(long, value_name = "TEXT", help_heading = "Server")]
    first_frame: Option<String>,
    /// A message with this text says that a client's subscription is in force
    #[arg(long, value_name = "TEXT", default_value = "rig.subscriptions_set", help_heading = "Server")]
    ready_marker: String,
    /// Further header of the clients' requests, "name: value"; may be repeated
    #[arg(long, value_name = "LINE", help_heading = "Server")]
    header: Vec<String>,
    /// CloudEvents type of the events [default: load.<scenario>]
    #[arg(long, default_value = "", hide_default_value = true, help_heading = "Server")]
    event_type: String,
    #[command(flatten)]
    measuring: Measuring,
    /// Seconds to wait for all connections to be ready
    #[arg(long, default_value_t = 60.0, help_heading = "Bounds")]
    ready_timeout: f64,
    /// Seconds to wait for the last deliveries
    #[arg(long, default_value_t = 10.0, help_heading = "Bounds")]
    drain_timeout: f64,
    /// Seconds after which churn and drop end, done or not
    #[arg(long, default_value_t = 600.0, help_heading = "Bounds")]
    run_timeout: f64,
    /// Connections being opened at the same time
    #[arg(long, default_value_t = 128, help_heading = "Bounds")]
    opening: u32,
    /// Connect from so many loopback addresses 127.0.0.x [default: one per 20,000 connections; churn: 8]
    #[arg(long, value_name = "N", help_heading = "Bounds")]
    source_addresses: Option<u8>,
    /// Microseconds that the publisher sleeps at least between two rounds
    #[arg(long, default_value_t = 200, help_heading = "Bounds")]
    tick_us: u64,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Measuring {
    /// Read CPU time and memory of this process from /proc
    #[arg(long, value_name = "PID", help_heading = "Measuring")]
    server_pid: Option<u32>,
    /// Bind all threads of the generator to this CPU
    #[arg(long, value_name = "N", help_heading = "Measuring")]
    pin_cpu: Option<usize>,
}

#[derive(Args, Debug)]
pub(crate) struct Output {
    /// Write the report as JSON to this file ("-": to standard output, in place of the table)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) json: Option<PathBuf>,
    /// Write the report as a self-contained HTML page to this file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) html: Option<PathBuf>,
    /// No progress line each second
    #[arg(long, short, help_heading = "Output")]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TransportArg {
    Ws,
    Sse,
    Longpolling,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Cli {
    /// What is asked for, and where its report goes.
    pub(crate) fn into_task(self) -> Task {
        let (scenario, output) = match self.command {
            Command::Proxy(arguments) => {
                let (scenario, output) = arguments.into_scenario();
                return Task::Calls(Box::new(scenario), output);
            }
            Command::Request(arguments) => {
                let (scenario, output) = arguments.into_scenario();
                return Task::Calls(Box::new(scenario), output);
            }
            Command::Chaos(arguments) => {
                let (options, output) = arguments.into_options();
                return Task::Chaos(Box::new(options), output);
            }
            Command::Backend(arguments) => return Task::Backend(arguments.into_options()),
            Command::Service(arguments) => return Task::Service(arguments.into_options()),
            Command::Broadcast { connections, load, source, common } => {
                let workload = Workload::Broadcast { connections: connections.connections, load: load.into_load() };
                common.scenario(workload, Some(source))
            }
            Command::Unicast { connections, random_keys, load, source, common } => {
                let keys = random_keys.map_or(KeyOrder::RoundRobin, |seed| KeyOrder::Random { seed });
                let (connections, load) = (connections.connections, load.into_load());
                common.scenario(Workload::Unicast { connections, load, keys }, Some(source))
            }
            Command::Drop { messages, event_bytes, source, common } => {
                common.scenario(Workload::Drop { messages, event_bytes }, Some(source))
            }
            Command::Idle { connections, duration, common } => {
                let connections = connections.connections;
                common.scenario(Workload::Idle { connections, duration_s: duration }, None)
            }
            Command::Churn { total, concurrency, reset, common } => {
                common.scenario(Workload::Churn { total, concurrency, reset }, None)
            }
            Command::SlowClients { connections, slow, load, source, common } => {
                let (connections, load) = (connections.connections, load.into_load());
                common.scenario(Workload::SlowClients { connections, slow, load }, Some(source))
            }
        };
        Task::Events(Box::new(scenario), output)
    }
}

impl LoadArgs {
    fn into_load(self) -> Load {
        Load {
            rate_per_s: self.rate,
            duration_s: self.duration,
            warmup_s: self.warmup,
            event_bytes: self.event_bytes,
            max_outstanding: self.max_outstanding,
        }
    }
}

impl SourceArgs {
    fn into_source(self, server: &str) -> Source {
        if let Some(brokers) = self.kafka {
            return Source::Kafka(KafkaSource { brokers, topic: self.topic, settings: self.kafka_set });
        }
        let url = self.publish_url.unwrap_or_else(|| origin(server));
        let (connections, batch, pipeline) = (self.publish_connections, self.batch, self.pipeline);
        Source::Http(HttpSource { url, connections, batch, pipeline })
    }
}

/// Scheme, host and port of an address, without its path.
fn origin(url: &str) -> String {
    let host_at = url.find("://").map_or(0, |at| at + 3);
    let end = url[host_at..].find(['/', '?']).map_or(url.len(), |at| host_at + at);
    url[..end].to_owned()
}

impl Common {
    fn scenario(self, workload: Workload, source: Option<SourceArgs>) -> (Scenario, Output) {
        let transport = match self.transport {
            TransportArg::Ws => Transport::Ws,
            TransportArg::Sse => Transport::Sse,
            TransportArg::Longpolling => Transport::Longpolling,
        };
        let target = Target {
            first_frame: self.first_frame.clone(),
            ready_marker: self.ready_marker.clone(),
            headers: self.header.clone(),
            ..Target::new(&self.url, transport)
        };
        let mut scenario = Scenario::new(workload, target);
        if let Some(source) = source {
            scenario.envelope = source.envelope.clone();
            scenario.source = source.into_source(&self.url);
        }
        scenario.event_type = self.event_type.clone();
        scenario.observe = Observe { server_pid: self.measuring.server_pid, pin_cpu: self.measuring.pin_cpu };
        scenario.limits = Limits {
            ready_timeout_s: self.ready_timeout,
            drain_timeout_s: self.drain_timeout,
            run_timeout_s: self.run_timeout,
            opening: self.opening,
            source_addresses: self.source_addresses,
            tick_us: self.tick_us,
        };
        (scenario, self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use tidegate_load::{CallPath, RequestBody};

    fn scenario(arguments: &str) -> Scenario {
        match Cli::parse_from(arguments.split(' ')).into_task() {
            Task::Events(scenario, _) => *scenario,
            _ => panic!("no events"),
        }
    }

    fn calls(arguments: &str) -> CallScenario {
        match Cli::parse_from(arguments.split(' ')).into_task() {
            Task::Calls(scenario, _) => *scenario,
            _ => panic!("no calls"),
        }
    }

    #[test]
    fn flags_become_calls() {
        let scenario = calls("tidegate-load proxy --url http://h/x -n 7 --rate 5 --request-bytes 90 --method PUT");
        assert_eq!((scenario.load.concurrency, scenario.load.rate_per_s), (7, Some(5.0)));
        let CallPath::Http(http) = &scenario.path else { panic!("not over HTTP") };
        assert_eq!((http.method.as_str(), http.body), ("PUT", RequestBody::Plain { bytes: 90 }));
        let scenario = calls("tidegate-load request --reactive kafka:t/s --brokers k:1 --clients 4 -n 9");
        let CallPath::Reactive(reactive) = &scenario.path else { panic!("over HTTP") };
        assert_eq!((reactive.clients, reactive.brokers.as_str(), scenario.load.concurrency), (4, "k:1", 9));
        let Task::Backend(options) = Cli::parse_from(["tidegate-load", "backend", "--delay-ms", "7"]).into_task()
        else {
            panic!("no backend")
        };
        assert_eq!((options.delay_ms, options.answer_bytes), (7, 200));
    }

    #[test]
    fn the_command_line_is_consistent_and_every_scenario_has_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("tidegate-load {}", command.get_name())), "{}", command.get_name());
        }
    }

    #[test]
    fn the_examples_in_the_help_are_accepted() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().map(str::trim).filter(|line| line.starts_with("tidegate-load")) {
                let line = line.replace("$(pidof tidegate)", "1");
                assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn flags_become_the_scenario() {
        let unicast =
            scenario("tidegate-load unicast -n 7 --rate 3.5 --random-keys 9 --kafka k:1 --kafka-set linger.ms=1");
        let load = Load { rate_per_s: 3.5, ..Load::default() };
        assert_eq!(unicast.workload, Workload::Unicast { connections: 7, load, keys: KeyOrder::Random { seed: 9 } });
        let Source::Kafka(kafka) = unicast.source else { panic!("not Kafka") };
        assert_eq!(kafka.settings, [("linger.ms".to_owned(), "1".to_owned())]);
        let broadcast = scenario("tidegate-load broadcast --url ws://127.0.0.1:9/path?x --batch 4");
        let Source::Http(http) = broadcast.source else { panic!("not HTTP") };
        assert_eq!((http.url.as_str(), http.batch), ("ws://127.0.0.1:9", 4));
    }
}
