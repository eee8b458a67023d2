//! `tidegate-figures`: measures whole processes. `cargo xtask bench-report` builds everything and runs it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::{Args, Parser, Subcommand};
use tidegate_bench::figures::{self, FigureError, Options, discard, process};
use tidegate_bench::floor::pace::Pace;
use tidegate_bench::floor::ping_pong;
use tidegate_bench::floor::server::{self, Delivery};
use tidegate_load::{Backend, BackendOptions, LoadError, ServiceCounts, ServiceOptions, serve};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Answers of the `ReactiveServer` are as large as its requests.
const SERVICE_ANSWER_BYTES: usize = 100;

/// Measures Tidegate's processes beside their floors.
#[derive(Parser)]
struct CommandLine {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Measure(Measure),
    Floor(Floor),
    /// The bare librdkafka consumer: drops that many messages and prints the CPU seconds they took.
    Consume {
        #[arg(long)]
        brokers: String,
        #[arg(long)]
        topic: String,
        #[arg(long)]
        messages: u64,
    },
    /// Produces events of one size that nobody wants.
    Produce {
        #[arg(long)]
        brokers: String,
        #[arg(long)]
        topic: String,
        #[arg(long)]
        messages: u64,
        #[arg(long)]
        message_bytes: usize,
    },
    /// The load generator's backend: answers calls with bodies of one size.
    Backend {
        #[arg(long)]
        answer_bytes: usize,
    },
    /// The floor of request and response: writes what it reads from one topic into another, until its input ends.
    Echo {
        #[arg(long)]
        brokers: String,
        #[arg(long)]
        there: String,
        #[arg(long)]
        back: String,
    },
    /// A `ReactiveServer` that answers the load generator's calls, until its process is ended.
    Serve {
        #[arg(long)]
        brokers: String,
        #[arg(long)]
        topic: String,
        #[arg(long)]
        id: String,
    },
    /// Runs a program on one CPU; it ends when the process that started it ends.
    Pinned {
        #[arg(long)]
        cpu: usize,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// Measures and writes the report as JSON; a table goes to standard output.
#[derive(Args)]
struct Measure {
    /// Short runs and fewer rounds.
    #[arg(long)]
    quick: bool,
    /// Measure this figure alone, or those of one section; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(figures::names()))]
    only: Vec<String>,
    /// The `tidegate` program [default: beside this one].
    #[arg(long, value_name = "PATH")]
    tidegate: Option<PathBuf>,
    /// Where the JSON goes.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A server that does only what must be done for the load generator's clients.
#[derive(Args)]
struct Floor {
    /// One send per connection for all events that have arrived, not one per event.
    #[arg(long)]
    coalesced: bool,
    /// Make this many events a second without a source, each for one connection in turn.
    #[arg(long)]
    rate_per_s: Option<f64>,
    /// Payload of events of --rate-per-s, in bytes.
    #[arg(long, default_value_t = 200)]
    event_bytes: usize,
    /// Connections at which --rate-per-s starts.
    #[arg(long, default_value_t = 1)]
    connections: usize,
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().task {
        Task::Measure(arguments) => return measure(arguments),
        Task::Floor(arguments) => floor(&arguments),
        Task::Consume { brokers, topic, messages } => {
            discard::consume(&brokers, &topic, messages).map_err(|error| error.to_string())
        }
        Task::Produce { brokers, topic, messages, message_bytes } => {
            discard::produce(&brokers, &topic, messages, message_bytes).map_err(|error| error.to_string())
        }
        Task::Backend { answer_bytes } => backend(answer_bytes).map_err(|error| error.to_string()),
        Task::Echo { brokers, there, back } => {
            ping_pong::echo(&brokers, &there, &back).map_err(|error| error.to_string())
        }
        Task::Serve { brokers, topic, id } => reactive_service(brokers, topic, id).map_err(|error| error.to_string()),
        Task::Pinned { cpu, command } => Err(match command.split_first() {
            Some((program, arguments)) => process::become_pinned(cpu, program.as_ref(), arguments).to_string(),
            None => "no program to run".to_owned(),
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("tidegate-figures: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: Measure) -> ExitCode {
    let tidegate = match arguments.tidegate.map_or_else(beside_this, Ok) {
        Ok(tidegate) => tidegate,
        Err(error) => {
            eprintln!("tidegate-figures: {error}");
            return ExitCode::FAILURE;
        }
    };
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let options = Options { quick: arguments.quick, only: arguments.only, tidegate, command };
    let report = figures::run(&options);
    println!("{}", report.table());
    if let Some(path) = arguments.json
        && let Err(error) = report.write_json(&path)
    {
        eprintln!("tidegate-figures: {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn beside_this() -> Result<PathBuf, FigureError> {
    let this = std::env::current_exe();
    this.map(|path| path.with_file_name("tidegate"))
        .map_err(|source| FigureError::System { what: "finding this program", source })
}

fn backend(answer_bytes: usize) -> Result<(), LoadError> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let backend = Backend::bind(BackendOptions { listen, answer_bytes, delay_ms: 0, cpu: None })?;
    println!("clients http://{}", backend.address()?);
    backend.run(&AtomicBool::new(false))
}

fn reactive_service(brokers: String, topic: String, id: String) -> Result<(), LoadError> {
    let options = ServiceOptions {
        brokers,
        topic,
        response_topic: String::new(),
        ignores_reply_address: false,
        reactive: Some(id),
        answer_bytes: SERVICE_ANSWER_BYTES,
        cpu: None,
    };
    serve(&options, &ServiceCounts::default(), &AtomicBool::new(false), || println!("ready"))
}

fn floor(arguments: &Floor) -> Result<(), String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    println!("clients http://{address}");
    let pace = arguments.rate_per_s.map(|rate_per_s| Pace {
        rate_per_s,
        event_bytes: arguments.event_bytes,
        connections: arguments.connections,
    });
    let delivery = if arguments.coalesced { Delivery::Coalesced } else { Delivery::Each };
    server::serve(listener, delivery, pace).map_err(|error| error.to_string())
}
