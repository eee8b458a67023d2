//! The command line of Tidegate.

use std::io;
use std::process::ExitCode;

use tidegate::command::{self, Command};
use tidegate::config::Config;
use tidegate::config::values::Problem;
use tidegate::demo::DemoArguments;
use tidegate::{check, gateway, limits, logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for settings that can't be used.
const UNUSABLE_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    limits::refuse_huge_pages();
    let (mut command, mut values) = command::read();
    if let Command::Demo(arguments) = &mut command {
        arguments.prepare(&mut values);
    }
    let config = match Config::validate(&values) {
        Ok(config) => config,
        Err(problems) => return refuse(&problems),
    };
    match command {
        Command::Serve => serve(&config),
        Command::Demo(arguments) => demo(arguments, &config),
        Command::Check => check::run(&config),
        Command::Tune(arguments) => finish(arguments.run(&config)),
    }
}

fn serve(config: &Config) -> ExitCode {
    logging::start(config.log_level, config.log_format);
    finish(gateway::serve(config))
}

fn demo(arguments: DemoArguments, config: &Config) -> ExitCode {
    logging::start(config.log_level, config.log_format);
    finish(arguments.run(config))
}

fn finish(outcome: io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(problems: &[Problem]) -> ExitCode {
    let count = problems.len();
    eprintln!("tidegate: {count} setting{} can't be used:", if count == 1 { "" } else { "s" });
    for problem in problems {
        eprintln!("  {problem}");
    }
    ExitCode::from(UNUSABLE_SETTINGS)
}
