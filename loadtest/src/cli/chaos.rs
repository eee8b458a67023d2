//! Arguments of `tidegate-load chaos`.

use std::path::PathBuf;

use clap::Args;
use tidegate_load::{ChaosOptions, Fault};

use super::{Output, name_and_value};

pub(super) const CHAOS_EXAMPLE: &str = "Example:
  tidegate-load chaos --gateway target/release/tidegate --kafka 127.0.0.1:9092 --minutes 30 --seed 7
With a broker that may be killed (this is what `cargo xtask chaos` does):
  tidegate-load chaos --gateway target/release/tidegate --kafka 127.0.0.1:9092 --broker-command bin/run-broker
The same seed gives the same faults at the same times; what they meet is up to the machine.";

#[derive(Args, Debug)]
pub(crate) struct ChaosArgs {
    /// The gateway's program
    #[arg(long, value_name = "PROGRAM")]
    gateway: PathBuf,
    /// Bootstrap servers of Kafka
    #[arg(long, value_name = "BROKERS")]
    kafka: String,
    /// Command that runs this Kafka's only broker in the foreground, again with the same data after SIGKILL; without it,
    /// the broker runs already and is left alone
    #[arg(long, value_name = "COMMAND")]
    broker_command: Option<String>,
    /// What the plan of faults comes from [default: of the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// How long there are faults, in minutes
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Gateways
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Audited clients, a third each over event streams, WebSocket and long polling
    #[arg(long, short = 'n', default_value_t = 2_000)]
    clients: u32,
    /// Connections of a flood of slow clients
    #[arg(long, default_value_t = 200)]
    flood: u32,
    /// Partitions of the topic
    #[arg(long, default_value_t = 6)]
    partitions: u32,
    /// Streams per partition; a client wants one of each partition
    #[arg(long, default_value_t = 20)]
    groups: u32,
    /// Events a second, all streams together
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Size of an event's JSON text in bytes (about 180 at least)
    #[arg(long, default_value_t = 400)]
    event_bytes: usize,
    /// Kinds of faults, with commas between [default: all]
    #[arg(long, value_name = "FAULT,…", value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Resident memory that no node may exceed, in MiB
    #[arg(long, default_value_t = 512)]
    max_rss_mib: u64,
    /// Seconds that a node takes to drain
    #[arg(long, default_value_t = 3)]
    drain: u64,
    /// Seconds for all clients to have everything when there are no more faults
    #[arg(long, default_value_t = 90.0)]
    catch_up: f64,
    /// Further setting of every gateway; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    set: Vec<(String, String)>,
    #[command(flatten)]
    output: ChaosOutput,
}

#[derive(Args, Debug)]
struct ChaosOutput {
    /// Write the report as JSON to this file ("-": to standard output, in place of the table)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// No progress lines
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
}

impl ChaosArgs {
    pub(super) fn into_options(self) -> (ChaosOptions, Output) {
        let defaults = ChaosOptions::new(self.gateway, self.kafka);
        let options = ChaosOptions {
            broker_command: self.broker_command,
            seed: self.seed.unwrap_or_else(seed_of_the_clock),
            minutes: self.minutes,
            nodes: self.nodes,
            clients: self.clients,
            flood: self.flood,
            partitions: self.partitions,
            groups: self.groups,
            rate_per_s: self.rate,
            event_bytes: self.event_bytes,
            faults: if self.faults.is_empty() { defaults.faults.clone() } else { self.faults },
            max_rss_bytes: self.max_rss_mib << 20,
            drain_s: self.drain,
            catch_up_s: self.catch_up,
            settings: self.set,
            ..defaults
        };
        (options, Output { json: self.output.json, html: None, quiet: self.output.quiet })
    }
}

fn seed_of_the_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64 % 1_000_000
}
