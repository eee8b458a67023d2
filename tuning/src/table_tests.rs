//! Texts for made-up outcomes.

use super::*;
use crate::link::Link;
use crate::measurement::{Busy, Traffic};
use crate::recommend::recommend;

fn measured(traffic: Traffic, shards: usize, deliveries_per_s: f64) -> Measurement {
    Measurement {
        shards,
        traffic,
        connections: 1_000,
        deliveries_per_s,
        p99_us: Some(1_250),
        cpu_ms_per_thousand: 0.527,
        payload_bytes_per_s: deliveries_per_s * 200.0,
        busy: Busy { shard: 0.99, ingress: 0.05, generator: 0.75, machine: 0.87, others: 0.0 },
        shared_cores: false,
        complete: true,
    }
}

fn outcome(measurements: Vec<Measurement>) -> Outcome {
    let recommendation = recommend(&measurements, None).unwrap();
    Outcome { cores: 2, link: None, measurements, recommendation }
}

#[test]
fn the_table_lines_up_and_ends_with_the_recommendation() {
    let outcome =
        outcome(vec![measured(Traffic::Broadcast, 1, 1_234_567.0), measured(Traffic::Broadcast, 2, 1_300_000.0)]);
    let text = table(&outcome);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..3],
        [
            "shards  traffic    deliveries/s     p99  CPU ms/1,000  shard  ingress  generator  machine  others",
            "     1  broadcast     1,234,567  1.2 ms          0.53   99 %      5 %       75 %     87 %     0 %",
            "     2  broadcast     1,300,000  1.2 ms          0.53   99 %      5 %       75 %     87 %     0 %",
        ]
    );
    assert!(text.contains("in % of 2 cores"));
    assert!(text.contains("Recommended: --shards 1\n  broadcast: 1 shard; 2 deliver +5 %"), "{text}");
}

#[test]
fn each_limit_is_named_in_words() {
    let link = Link { name: "eth0".to_owned(), bits_per_s: 2_500_000_000 };
    let cases = [
        (Limit::Cores, "every core has one"),
        (Limit::Gain { next_shards: 4, gain_percent: -3.4 }, "4 deliver -3 %"),
        (Limit::Ingress { shards: 4, busy: 0.97 }, "ingress thread is full (97 % of a core)"),
        (Limit::Generator { shards: 4, shared_cores: true }, "competes with the shards"),
        (
            Limit::Generator { shards: 4, shared_cores: false },
            "load generator is the limit and not the gateway: a lower bound",
        ),
        (Limit::Network { link }, "fill eth0 (2.5 Gbit/s)"),
    ];
    for (limit, words) in cases {
        let text = because(&Reason { traffic: Traffic::Unicast, shards: 2, limit });
        assert!(text.starts_with("2 shards; ") && text.contains(words), "{text}");
    }
}

#[test]
fn lost_events_and_a_full_generator_are_said_aloud() {
    let mut found = measured(Traffic::Unicast, 1, 1e5);
    assert!(!table(&outcome(vec![found])).contains("lower bound"));
    found.complete = false;
    found.busy.others = 0.4;
    found.busy.generator = 1.0;
    let text = table(&outcome(vec![found]));
    assert!(text.contains("lower bounds") && text.contains("WARNING: events were missing"), "{text}");
    assert!(text.contains("WARNING: other processes were busy while 1 was measured"), "{text}");
}

#[test]
fn progress_says_where_it_is() {
    let running = Progress::Running { shards: 2, traffic: Traffic::Unicast, deliveries_per_s: 31_000.4 };
    assert_eq!(progress_line(&running), "2 shards    unicast          31,000 deliveries/s");
    let done = progress_line(&Progress::Measured(measured(Traffic::Broadcast, 1, 5.0)));
    assert!(done.starts_with("1 shard     broadcast") && done.ends_with("1.2 ms"), "{done}");
}

#[test]
fn delays_have_a_unit_that_suits_them() {
    let texts = [None, Some(7), Some(1_500), Some(25_000), Some(2_500_000)].map(delay);
    assert_eq!(texts, ["none", "7 µs", "1.5 ms", "25 ms", "2.5 s"]);
}
