//! Whole runs over real sockets, against a gateway that does its work, and against some that don't.

mod gateway;

use gateway::{Fault, Gateway};
use tidegate_load::{
    KeyOrder, Load, LoadError, Report, Scenario, Source, Target, Transport, Workload, html, run, run_with_progress,
    table,
};

fn load(rate_per_s: f64) -> Load {
    Load { rate_per_s, duration_s: 0.4, warmup_s: 0.0, ..Load::default() }
}

fn broadcast(connections: u32) -> Workload {
    Workload::Broadcast { connections, load: load(200.0) }
}

fn scenario(gateway: &Gateway, workload: Workload, transport: Transport) -> Scenario {
    let mut scenario = Scenario::new(workload, Target::new(&format!("http://{}", gateway.address), transport));
    scenario.limits.drain_timeout_s = 5.0;
    scenario.limits.ready_timeout_s = 20.0;
    scenario
}

fn all_well(report: &Report) {
    assert!(report.passed(), "{}", table(report));
}

#[test]
fn a_broadcast_reaches_every_client_over_every_transport() {
    for transport in [Transport::Ws, Transport::Sse, Transport::Longpolling] {
        let gateway = Gateway::start(Fault::None);
        let report = run(&scenario(&gateway, broadcast(8), transport)).unwrap();
        all_well(&report);
        assert_eq!((report.deliveries, report.audit.expected), (80 * 8, 80 * 8), "{transport:?}");
        assert_eq!(report.latency.as_ref().unwrap().count, 640);
    }
}

#[test]
fn batches_over_several_publishing_connections_keep_the_order_of_each_key() {
    let gateway = Gateway::start(Fault::None);
    let workload = Workload::Unicast { connections: 6, load: load(3_000.0), keys: KeyOrder::Random { seed: 3 } };
    let mut scenario = scenario(&gateway, workload, Transport::Ws);
    let Source::Http(http) = &mut scenario.source else { panic!("not HTTP") };
    (http.connections, http.batch) = (3, 7);
    let report = run(&scenario).unwrap();
    all_well(&report);
    assert_eq!(report.deliveries, 1_200);
}

#[test]
fn a_closed_loop_never_has_more_outstanding_than_allowed_and_loses_nothing() {
    let gateway = Gateway::start(Fault::None);
    let flow = Load { max_outstanding: Some(4), ..load(1e6) };
    let workload = Workload::Broadcast { connections: 3, load: flow };
    let report = run(&scenario(&gateway, workload, Transport::Ws)).unwrap();
    all_well(&report);
    assert_eq!(report.deliveries, 3 * report.publish.as_ref().unwrap().accepted);
}

#[test]
fn events_that_a_gateway_loses_are_missing_in_the_audit() {
    let gateway = Gateway::start(Fault::Skip(50));
    let mut scenario = scenario(&gateway, broadcast(4), Transport::Ws);
    scenario.limits.drain_timeout_s = 0.2;
    let report = run(&scenario).unwrap();
    assert!(!report.passed());
    assert!(report.audit.missing > 0);
    assert_eq!(report.audit.received + report.audit.missing, 320);
    assert!(table(&report).contains("FAILED"));
}

#[test]
fn events_that_a_gateway_repeats_are_duplicates_in_the_audit() {
    let gateway = Gateway::start(Fault::Repeat(50));
    let report = run(&scenario(&gateway, broadcast(4), Transport::Sse)).unwrap();
    assert!(!report.passed());
    assert!(report.audit.duplicates > 0);
    assert_eq!((report.audit.missing, report.audit.out_of_order), (0, 0));
}

#[test]
fn events_for_other_keys_are_misdelivered_and_the_table_says_what_to_look_at() {
    let gateway = Gateway::start(Fault::IgnoreKeys);
    let workload = Workload::Unicast { connections: 3, load: load(100.0), keys: KeyOrder::RoundRobin };
    let report = run(&scenario(&gateway, workload, Transport::Ws)).unwrap();
    assert!(!report.passed());
    assert_eq!(report.audit.misdelivered, 2 * 40);
    assert!(table(&report).contains("EXTRACTORS"));
}

#[test]
fn of_many_unwanted_events_only_the_first_and_the_last_wanted_one_arrive() {
    let gateway = Gateway::start(Fault::None);
    let mut scenario = scenario(&gateway, Workload::Drop { messages: 500, event_bytes: 1_000 }, Transport::Ws);
    scenario.observe.server_pid = Some(std::process::id());
    let report = run(&scenario).unwrap();
    all_well(&report);
    assert_eq!(report.deliveries, 2);
    let figures = report.drop.as_ref().unwrap();
    assert_eq!(figures.messages, 500);
    assert!(figures.messages_per_s > 0.0 && figures.server_cpu_us_per_message.is_some());
}

#[test]
fn idle_connections_are_held_and_their_memory_and_cpu_are_reported() {
    let gateway = Gateway::start(Fault::None);
    let workload = Workload::Idle { connections: 20, duration_s: 0.2 };
    let mut scenario = scenario(&gateway, workload, Transport::Sse);
    scenario.observe.server_pid = Some(std::process::id());
    let report = run(&scenario).unwrap();
    all_well(&report);
    assert_eq!(report.connections.ready, 20);
    assert!(report.measured_s >= 0.2);
    assert!(report.server.as_ref().unwrap().ready.rss_bytes > 0);
    assert!(table(&report).contains("server RSS per connection"));
}

#[test]
fn churn_opens_exactly_as_many_connections_as_asked_and_closes_them_all() {
    for reset in [false, true] {
        let gateway = Gateway::start(Fault::None);
        let workload = Workload::Churn { total: 200, concurrency: 7, reset };
        let report = run(&scenario(&gateway, workload, Transport::Ws)).unwrap();
        all_well(&report);
        assert_eq!((report.connections.ready, gateway.accepted()), (200, 200));
        assert_eq!(report.latency.as_ref().unwrap().count, 200);
    }
}

#[test]
fn clients_that_stop_reading_are_told_apart_from_those_that_go_on() {
    let gateway = Gateway::start(Fault::None);
    let flow = Load { event_bytes: 50_000, duration_s: 1.0, ..load(300.0) };
    let workload = Workload::SlowClients { connections: 5, slow: 2, load: flow };
    let report = run(&scenario(&gateway, workload, Transport::Ws)).unwrap();
    all_well(&report);
    let figures = report.slow_clients.as_ref().unwrap();
    assert_eq!((report.audit.clients, report.audit.expected), (3, 900));
    assert_eq!((figures.slow, figures.disconnected), (2, 2), "the gateway ends clients that block it");
    assert!(figures.before.is_some() && figures.during.is_some());
}

#[test]
fn a_refused_subscription_stops_the_run_with_the_servers_reason() {
    let gateway = Gateway::start(Fault::Refuse);
    let error = run(&scenario(&gateway, broadcast(2), Transport::Ws)).unwrap_err();
    assert!(matches!(error, LoadError::NotReady { ready: 0, .. }));
    assert!(error.to_string().contains("Bad request."), "{error}");
}

#[test]
fn a_server_that_is_not_there_stops_the_run_with_the_systems_reason() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = run(&Scenario::new(broadcast(1), Target::new(&url, Transport::Sse))).unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn more_connections_than_open_files_are_refused_before_anything_is_opened() {
    let gateway = Gateway::start(Fault::None);
    let workload = Workload::Idle { connections: u32::MAX, duration_s: 1.0 };
    let error = run(&scenario(&gateway, workload, Transport::Ws)).unwrap_err();
    assert!(matches!(error, LoadError::OpenFiles { .. }));
    assert_eq!(gateway.accepted(), 0);
}

#[test]
fn the_report_survives_json_and_its_page_is_self_contained() {
    let gateway = Gateway::start(Fault::None);
    let mut scenario = scenario(&gateway, broadcast(3), Transport::Ws);
    let Workload::Broadcast { load, .. } = &mut scenario.workload else { panic!("not a broadcast") };
    load.duration_s = 2.2;
    let mut seconds = 0;
    let report = run_with_progress(&scenario, |_| seconds += 1).unwrap();
    assert!(seconds >= 2);
    let back: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!((back.audit, back.deliveries), (report.audit.clone(), report.deliveries));
    let page = html(&report);
    assert!(page.contains("<svg") && page.contains("99 %") && page.contains("passed"));
    assert!(!page.contains("src=") && !page.contains("<link") && !page.contains("<script"));
}
