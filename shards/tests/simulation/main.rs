//! Whole nodes in one thread, under a network and a clock that a seed decides: no sockets, no threads, no sleep.
//!
//! A [`world`] holds one log with partitions (as Kafka would), some [`node`]s that read it, each with a publisher and shards
//! as in production, and [`client`]s that connect, read at their own pace, are cut off, and come back to some node with their
//! cursor. Every step is drawn from the seed: an event is written, a node reads a little, a shard takes some of its mail, a
//! client pulls a frame, time passes, a connection breaks, a node crashes and comes back. In two of three worlds cursors refer
//! to checkpoints, in a log that the nodes share. Some clients ask for a snapshot first: the newest event of each seat. What a client may see is written
//! down in `client`; bounds and counts are checked by `world`.
//!
//! `cargo test -p tidegate-shards --test simulation` runs 40 seeds. More, or one again:
//! `cargo xtask simulate --seeds 10000`, `cargo xtask simulate --seed 17`.

mod client;
mod node;
mod snapshots;
mod world;

use std::env;
use std::io::{self, Write};
use std::panic;

use world::World;

const SEEDS: u64 = 40;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

#[test]
fn no_seed_loses_doubles_or_reorders_an_event() {
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(SEEDS),
    };
    let (mut deliveries, mut reconnects, mut lost, mut snapshots) = (0, 0, 0, 0);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let outcome = panic::catch_unwind(|| World::new(seed).run());
        let outcome =
            outcome.unwrap_or_else(|_| panic!("seed {seed} failed; again: cargo xtask simulate --seed {seed}"));
        deliveries += outcome.deliveries;
        reconnects += outcome.reconnects;
        lost += outcome.history_lost;
        snapshots += outcome.snapshots;
    }
    let said = writeln!(
        io::stdout(),
        "{count} seeds, {deliveries} deliveries, {reconnects} reconnects, {snapshots} snapshots, {lost} notices of lost \
         history, no violation"
    );
    said.unwrap();
    assert!(
        deliveries > 0 && reconnects > 0 && (count == 1 || snapshots > 0),
        "a world in which nothing happens proves nothing"
    );
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in [1, 2, 3] {
        assert_eq!(World::new(seed).run(), World::new(seed).run(), "seed {seed}");
    }
}
