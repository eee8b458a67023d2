//! `cargo xtask chaos`: nothing may be lost, whatever happens.

use std::process::ExitCode;

use clap::Args;
use xtask::chaos;
use xtask::programs::Profile;
use xtask::steps::Steps;

/// Runs several gateways on a Kafka of their own, with thousands of audited clients, under faults from a seed.
///
/// Builds the gateway and the load generator, then runs `tidegate-load chaos`, whose help names the faults. Ends with 1
/// if an event was lost, doubled or reordered for any client, or a process did not live that should.
#[derive(Args)]
pub(crate) struct Arguments {
    /// What the plan of faults comes from [default: of the clock].
    #[arg(long)]
    seed: Option<u64>,
    /// How long there are faults, in minutes.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Further arguments for `tidegate-load chaos`.
    #[arg(last = true)]
    further: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let mut further = vec!["--minutes".to_owned(), arguments.minutes.to_string()];
    if let Some(seed) = arguments.seed {
        further.extend(["--seed".to_owned(), seed.to_string()]);
    }
    further.extend(arguments.further.iter().cloned());
    let mut steps = Steps::default();
    add(&mut steps, "chaos", Profile::Release, &further);
    println!("\n{}", steps.summary());
    ExitCode::from(steps.exit_code())
}

/// Adds a run with these arguments.
pub(crate) fn add(steps: &mut Steps, name: &str, profile: Profile, arguments: &[String]) {
    steps.run(name, || match std::env::current_exe() {
        Ok(this) => chaos::chaos(profile, &this, arguments),
        Err(error) => xtask::steps::Outcome::failed(format!("this program can't be found: {error}")),
    });
}
