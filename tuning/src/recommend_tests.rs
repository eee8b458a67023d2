//! Recommendations for made-up machines.

use super::*;
use crate::measurement::Busy;

fn measured(traffic: Traffic, shards: usize, deliveries_per_s: f64) -> Measurement {
    Measurement {
        shards,
        traffic,
        connections: 1_000,
        deliveries_per_s,
        p99_us: Some(1_000),
        cpu_ms_per_thousand: 0.5,
        payload_bytes_per_s: deliveries_per_s * 200.0,
        busy: Busy { shard: 0.99, ingress: 0.2, generator: 0.5, machine: 0.6, others: 0.01 },
        shared_cores: false,
        complete: true,
    }
}

fn broadcast(rates: &[(usize, f64)]) -> Vec<Measurement> {
    rates.iter().map(|(shards, rate)| measured(Traffic::Broadcast, *shards, *rate)).collect()
}

fn only_reason(measurements: &[Measurement], link: Option<&Link>) -> Reason {
    let recommendation = recommend(measurements, link).unwrap();
    assert_eq!(recommendation.reasons.len(), 1);
    assert_eq!(recommendation.shards, recommendation.reasons[0].shards);
    recommendation.reasons[0].clone()
}

#[test]
fn nothing_measured_gives_no_recommendation() {
    assert_eq!(recommend(&[], None), None);
}

#[test]
fn a_machine_that_scales_to_its_last_core_gets_a_shard_on_each() {
    let reason = only_reason(&broadcast(&[(1, 1e6), (2, 1.9e6), (4, 3.7e6)]), None);
    assert_eq!((reason.shards, reason.limit), (4, Limit::Cores));
}

#[test]
fn a_count_that_gains_less_than_a_tenth_is_not_worth_its_cores() {
    let reason = only_reason(&broadcast(&[(1, 1e6), (2, 2e6), (4, 2.1e6)]), None);
    assert_eq!(reason.shards, 2);
    let Limit::Gain { next_shards, gain_percent } = reason.limit else { panic!("{:?}", reason.limit) };
    assert_eq!(next_shards, 4);
    assert!((gain_percent - 5.0).abs() < 1e-9);
}

#[test]
fn small_steps_that_add_up_to_a_tenth_are_taken() {
    let reason = only_reason(&broadcast(&[(6, 1e6), (7, 1.06e6), (8, 1.12e6)]), None);
    assert_eq!(reason.shards, 8);
}

#[test]
fn the_order_of_measuring_does_not_matter() {
    let mut measurements = broadcast(&[(1, 1e6), (2, 2e6), (4, 2.1e6), (3, 2.9e6), (5, 2.9e6)]);
    assert_eq!(only_reason(&measurements, None).shards, 3);
    measurements.reverse();
    assert_eq!(only_reason(&measurements, None).shards, 3);
}

#[test]
fn a_full_ingress_thread_is_named_as_the_limit() {
    let mut measurements = broadcast(&[(1, 1e6), (2, 1.8e6), (4, 1.85e6)]);
    measurements[2].busy.ingress = 0.98;
    assert_eq!(only_reason(&measurements, None).limit, Limit::Ingress { shards: 4, busy: 0.98 });
}

#[test]
fn a_full_generator_is_named_as_the_limit_and_the_figure_is_a_lower_bound() {
    let mut measurements = broadcast(&[(1, 1e6), (2, 1.05e6)]);
    measurements[1].busy.generator = 1.0;
    assert_eq!(only_reason(&measurements, None).limit, Limit::Generator { shards: 2, shared_cores: false });
    assert!(!recommend(&measurements, None).unwrap().is_lower_bound, "one shard was measured properly");
    measurements[0].busy.generator = 1.0;
    assert!(recommend(&measurements, None).unwrap().is_lower_bound);
}

#[test]
fn a_gateway_that_had_time_left_was_not_the_limit() {
    let mut measurements = broadcast(&[(1, 1e6), (2, 1.05e6)]);
    measurements[1].busy.shard = 0.5;
    assert_eq!(only_reason(&measurements, None).limit, Limit::Generator { shards: 2, shared_cores: false });
    measurements[0].busy.shard = 0.5;
    assert!(recommend(&measurements, None).unwrap().is_lower_bound);
}

#[test]
fn a_generator_on_the_cores_of_the_shards_is_the_limit_however_busy_it_is() {
    let mut measurements = broadcast(&[(1, 1e6), (2, 0.7e6)]);
    measurements[1].busy.generator = 0.3;
    measurements[1].shared_cores = true;
    assert_eq!(only_reason(&measurements, None).limit, Limit::Generator { shards: 2, shared_cores: true });
    measurements[1].deliveries_per_s = 1.5e6;
    let recommendation = recommend(&measurements, None).unwrap();
    assert_eq!((recommendation.shards, recommendation.is_lower_bound), (2, true));
}

#[test]
fn no_more_shards_are_recommended_than_fill_the_network_card() {
    let link = Link { name: "eth0".to_owned(), bits_per_s: 1_000_000_000 };
    let measurements = broadcast(&[(1, 3e5), (2, 6e5), (4, 1.2e6), (8, 2.4e6)]);
    let reason = only_reason(&measurements, Some(&link));
    assert_eq!((reason.shards, reason.limit), (2, Limit::Network { link: link.clone() }));
    let fast = Link { bits_per_s: 100_000_000_000, ..link };
    assert_eq!(only_reason(&measurements, Some(&fast)).limit, Limit::Cores);
}

#[test]
fn the_traffic_that_asks_for_more_decides_and_what_the_other_loses_is_said() {
    let mut measurements = broadcast(&[(1, 1e6), (2, 2e6), (4, 4e6)]);
    measurements.extend([(1, 3e5), (2, 4e5), (4, 3e5)].map(|(shards, rate)| measured(Traffic::Unicast, shards, rate)));
    let recommendation = recommend(&measurements, None).unwrap();
    assert_eq!(recommendation.shards, 4);
    assert_eq!(recommendation.reasons.iter().map(|reason| reason.shards).collect::<Vec<_>>(), [4, 2]);
    assert_eq!(recommendation.loses, [Traffic::Unicast]);
}

#[test]
fn counts_with_lost_events_are_listed_once() {
    let mut measurements = broadcast(&[(1, 1e6), (2, 2e6)]);
    measurements.push(Measurement { complete: false, ..measured(Traffic::Unicast, 2, 1e5) });
    measurements[1].complete = false;
    assert_eq!(recommend(&measurements, None).unwrap().incomplete_at, [2]);
}

#[test]
fn counts_measured_beside_busy_processes_are_listed() {
    let mut measurements = broadcast(&[(1, 1e6), (2, 2e6)]);
    measurements[0].busy.others = 0.3;
    assert_eq!(recommend(&measurements, None).unwrap().disturbed_at, [1]);
}

#[test]
fn a_gateway_that_delivered_nothing_still_gets_an_answer() {
    let reason = only_reason(&broadcast(&[(1, 0.0), (2, 0.0)]), None);
    assert_eq!(
        reason,
        Reason { traffic: Traffic::Broadcast, shards: 1, limit: Limit::Gain { next_shards: 2, gain_percent: 0.0 } }
    );
}
