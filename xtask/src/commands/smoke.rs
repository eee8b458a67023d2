//! `cargo xtask smoke`: does what is not a test still run?

use std::process::ExitCode;

use xtask::programs::Profile;
use xtask::smoke;
use xtask::steps::Steps;

pub(crate) fn run() -> ExitCode {
    let mut steps = Steps::default();
    add(&mut steps);
    println!("\n{}", steps.summary());
    ExitCode::from(steps.exit_code())
}

pub(crate) fn add(steps: &mut Steps) {
    steps.run("benchmarks, once each", smoke::benchmarks);
    steps.run("load scenarios", smoke::load);
    steps.run("the README's demo", smoke::demo);
    let sizes = "--minutes 0.5 --nodes 2 --clients 150 --flood 20 --rate 100 --partitions 4 --groups 10";
    let faults = "--faults kill-broker,freeze-broker,delay-links,flood-slow-clients,fill-disk";
    let arguments: Vec<String> = [sizes, faults].join(" ").split(' ').map(str::to_owned).collect();
    super::chaos::add(steps, "chaos, briefly", Profile::Ci, &arguments);
}
