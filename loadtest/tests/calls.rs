//! Whole runs of calls over real sockets: to the bundled backend, and to servers that answer wrongly.

mod liar;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use liar::{Liar, Lie};
use tidegate_load::{
    Backend, BackendOptions, CallLoad, CallPath, CallReport, CallScenario, HttpCalls, LoadError, RequestBody, run_calls,
};

struct Running {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(answer_bytes: usize, delay_ms: u64) -> Self {
        let listen = "127.0.0.1:0".parse().unwrap();
        let backend = Backend::bind(BackendOptions { listen, answer_bytes, delay_ms, cpu: None }).unwrap();
        let (address, stop) = (backend.address().unwrap(), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&stop);
        let thread = Some(thread::spawn(move || backend.run(&flag).unwrap()));
        Self { address, stop, thread }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn load(rate_per_s: Option<f64>) -> CallLoad {
    CallLoad { concurrency: 8, rate_per_s, duration_s: 0.5, total: None, warmup_s: 0.1 }
}

fn run(calls: HttpCalls, load: CallLoad) -> CallReport {
    let mut scenario = CallScenario::new(CallPath::Http(calls), load);
    scenario.answer_timeout_s = 2.0;
    run_calls(&scenario, |_| {}).unwrap()
}

#[test]
fn every_call_gets_its_own_answer_whatever_method_and_sizes() {
    for (method, body, answer_bytes) in [
        ("GET", RequestBody::None, 0),
        ("HEAD", RequestBody::None, 500),
        ("POST", RequestBody::Plain { bytes: 300_000 }, 200),
        ("PUT", RequestBody::Plain { bytes: 1 }, 700_000),
    ] {
        let backend = Running::start(answer_bytes, 0);
        let calls = HttpCalls { method: method.to_owned(), body, ..HttpCalls::get(&backend.url()) };
        let report = run(calls, load(None));
        assert!(report.passed(), "{method}: {}", report.table());
        assert!(report.counts.answered >= 8 && report.statuses == [(200, report.counts.issued)]);
        assert_eq!(report.counts.reconnected, 0);
    }
}

#[test]
fn a_schedule_is_kept_to_the_call_and_latency_includes_the_backends_delay() {
    let backend = Running::start(100, 20);
    let report = run(HttpCalls::get(&backend.url()), load(Some(200.0)));
    assert!(report.passed(), "{}", report.table());
    assert_eq!((report.counts.issued, report.latency.as_ref().unwrap().count), (100, 80));
    assert!(report.latency.as_ref().unwrap().min_us >= 19_900, "{}", report.table());
    assert!(report.counts.most_in_flight > 1);
}

#[test]
fn calls_that_no_connection_was_free_for_are_late_and_not_forgotten() {
    let backend = Running::start(100, 50);
    let load = CallLoad { concurrency: 1, ..load(Some(40.0)) };
    let report = run(HttpCalls::get(&backend.url()), load);
    assert!(report.passed(), "{}", report.table());
    assert_eq!((report.counts.issued, report.counts.most_in_flight), (20, 1));
    assert!(report.latency.as_ref().unwrap().max_us > 400_000, "queued from the intended time: {}", report.table());
}

#[test]
fn what_the_schedule_wanted_and_could_not_be_sent_in_time_is_said() {
    let backend = Running::start(100, 1_000);
    let mut scenario = CallScenario::new(
        CallPath::Http(HttpCalls::get(&backend.url())),
        CallLoad { concurrency: 1, ..load(Some(100.0)) },
    );
    scenario.answer_timeout_s = 1.5;
    let report = run_calls(&scenario, |_| {}).unwrap();
    assert!(!report.passed());
    assert_eq!(report.counts.issued + report.counts.unsent, 50);
    assert!(report.counts.unsent > 40 && report.table().contains("never sent"), "{}", report.table());
}

#[test]
fn a_closed_loop_ends_after_the_number_of_calls_asked_for() {
    let backend = Running::start(100, 0);
    let load = CallLoad { duration_s: 60.0, total: Some(333), warmup_s: 0.0, ..load(None) };
    let report = run(HttpCalls::get(&backend.url()), load);
    assert!(report.passed(), "{}", report.table());
    assert_eq!((report.counts.answered, report.counts.measured), (333, 333));
    assert!(report.measured_s < 60.0);
}

#[test]
fn answers_to_other_calls_are_wrong() {
    let liar = Liar::start(Lie::Swap);
    let report = run(HttpCalls::get(&liar.url()), load(Some(100.0)));
    assert!(!report.passed());
    assert!(report.counts.wrong > 0, "{}", report.table());
    assert_eq!(report.counts.issued, report.counts.answered + report.counts.wrong);
    assert!(report.first_failure.as_ref().unwrap().contains("got the answer to"), "{}", report.table());
}

#[test]
fn answers_that_come_twice_are_double() {
    let liar = Liar::start(Lie::Repeat);
    let report = run(HttpCalls::get(&liar.url()), load(Some(100.0)));
    assert!(!report.passed());
    assert!(report.counts.duplicates > 0, "{}", report.table());
    assert_eq!(report.counts.answered, report.counts.issued);
}

#[test]
fn calls_whose_connection_ends_or_that_nobody_answers_are_missing() {
    for lie in [Lie::Close, Lie::Silence] {
        let liar = Liar::start(lie);
        let mut scenario = CallScenario::new(CallPath::Http(HttpCalls::get(&liar.url())), load(Some(100.0)));
        scenario.answer_timeout_s = 0.3;
        let report = run_calls(&scenario, |_| {}).unwrap();
        assert!(!report.passed());
        assert!(report.counts.missing > 0 && report.counts.answered > 0, "{}", report.table());
        let counts = &report.counts;
        assert_eq!(counts.issued, counts.answered + counts.missing, "{}", report.table());
        assert!(counts.reconnected >= counts.missing);
    }
}

#[test]
fn refusals_and_bodies_with_a_foreign_byte_are_told_apart() {
    let liar = Liar::start(Lie::Refuse);
    let report = run(HttpCalls::get(&liar.url()), load(Some(100.0)));
    assert!(report.counts.refused > 0 && report.counts.wrong == 0, "{}", report.table());
    assert!(report.statuses.iter().any(|(status, count)| *status == 502 && *count == report.counts.refused));
    let liar = Liar::start(Lie::Mix);
    let report = run(HttpCalls::get(&liar.url()), load(Some(100.0)));
    assert!(report.counts.wrong > 0 && report.counts.refused == 0, "{}", report.table());
    assert!(report.first_failure.as_ref().unwrap().contains("nobody's"));
}

#[test]
fn a_server_that_is_not_there_stops_the_run_with_the_systems_reason() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = run_calls(&CallScenario::new(CallPath::Http(HttpCalls::get(&url)), load(None)), |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::System { .. }) && error.to_string().contains("refused"), "{error}");
}

#[test]
fn the_servers_process_is_observed_over_the_measured_part_and_the_report_survives_json() {
    let backend = Running::start(100, 0);
    let mut scenario = CallScenario::new(
        CallPath::Http(HttpCalls::get(&backend.url())),
        CallLoad { duration_s: 2.2, ..load(Some(500.0)) },
    );
    scenario.observe.server_pid = Some(std::process::id());
    let mut seconds = 0;
    let report = run_calls(&scenario, |_| seconds += 1).unwrap();
    assert!(report.passed() && seconds >= 2, "{}", report.table());
    assert!(report.server.as_ref().unwrap().cpu_s() > 0.0 && report.table().contains("answers per server CPU second"));
    let back: CallReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!((back.counts, back.series.len()), (report.counts.clone(), report.series.len()));
    let page = report.html();
    assert!(page.contains("Calls in flight") && page.contains("99 %") && page.contains("passed"));
    assert!(!page.contains("src=") && !page.contains("<script"));
}
