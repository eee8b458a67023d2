//! `cargo xtask`: the development tasks of this repository.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development tasks of Tidegate.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    Kafka(commands::kafka::Arguments),
    Test(commands::test::Arguments),
    BenchReport(commands::bench_report::Arguments),
    Chaos(commands::chaos::Arguments),
    Simulate(commands::simulate::Arguments),
    /// Runs every benchmark once and every load scenario briefly, and the demo until its page answers.
    Smoke,
    /// Checks that every dependency's licence goes with Apache-2.0.
    Licences,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Task::Kafka(arguments) => commands::kafka::run(&arguments),
        Task::Test(arguments) => commands::test::run(&arguments),
        Task::BenchReport(arguments) => commands::bench_report::run(&arguments),
        Task::Chaos(arguments) => commands::chaos::run(&arguments),
        Task::Simulate(arguments) => commands::simulate::run(&arguments),
        Task::Smoke => commands::smoke::run(),
        Task::Licences => commands::licences::run(),
    }
}
