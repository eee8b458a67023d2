//! `cargo xtask kafka`: a broker to develop against.

use std::io::{self, BufRead};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use xtask::kafka::{Error, Kafka, Options, start_detached, stop_detached};

/// Starts Apache Kafka on 127.0.0.1 and prints `KAFKA_BROKERS=…`: `export $(cargo xtask kafka)`.
///
/// Fetches it first if need be (Java 17 and Maven are required). Without --foreground it stays in the background until
/// `cargo xtask kafka --stop`; its data is removed when it stops.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Port of the broker; the controller takes the next one [default: a free one].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1024..65535))]
    port: Option<u16>,
    /// Partitions of a topic that appears on first use.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    partitions: u32,
    /// Largest heap of the broker, in MiB.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(256..))]
    heap_mib: u32,
    /// Stay in the foreground; end of input or Ctrl-C stops the broker.
    #[arg(long, conflicts_with = "stop")]
    foreground: bool,
    /// Stop the broker that runs in the background.
    #[arg(long)]
    stop: bool,
    /// Become the broker itself, with its data in this folder, which stays: run again, also after SIGKILL, it goes on.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["stop", "foreground"], requires = "port")]
    lasting: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let result = if let (Some(folder), Some(port)) = (&arguments.lasting, arguments.port) {
        Err(become_broker(options(arguments), port, folder))
    } else if arguments.stop {
        stop()
    } else if arguments.foreground {
        foreground(options(arguments))
    } else {
        background(options(arguments))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(arguments: &Arguments) -> Options {
    Options {
        port: arguments.port,
        partitions: arguments.partitions,
        heap_mib: arguments.heap_mib,
        own: true,
        ..Options::default()
    }
}

/// Comes back only with the reason why it could not.
fn become_broker(options: Options, port: u16, folder: &Path) -> Error {
    match Kafka::lasting_command(options, port, folder) {
        Ok(mut command) => {
            let source = command.exec();
            Error::Io { what: "can't run the broker in", path: folder.to_path_buf(), source }
        }
        Err(error) => error,
    }
}

fn stop() -> Result<(), Error> {
    match stop_detached()? {
        Some(stopped) => eprintln!("stopped the broker on {} (process {})", stopped.brokers, stopped.pid),
        None => eprintln!("no broker of `cargo xtask kafka` is running"),
    }
    Ok(())
}

fn background(options: Options) -> Result<(), Error> {
    let broker = start_detached(options)?;
    println!("KAFKA_BROKERS={}", broker.brokers);
    eprintln!(
        "process {}, log {}; stop it with `cargo xtask kafka --stop`",
        broker.pid,
        broker.folder.join("broker.log").display()
    );
    Ok(())
}

fn foreground(options: Options) -> Result<(), Error> {
    let kafka = Kafka::start(options)?;
    println!("KAFKA_BROKERS={}", kafka.brokers());
    eprintln!("running until Ctrl-C or the end of input");
    // Whatever is typed is ignored; only the end counts.
    for line in io::stdin().lock().lines() {
        if line.is_err() {
            break;
        }
    }
    Ok(())
}
