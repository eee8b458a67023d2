//! What a server does with requests: each is dealt with, committed behind its answer, and never handled too late or twice.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tidegate_reactive::headers::names;
use tidegate_reactive::payload::{CodecError, Decode, Payload};
use tidegate_reactive::{Delivery, Failure, Headers, Json, ReactiveServer, Request, ServerSettings, Service};

use crate::stage::{SOON, Stage, block_on, eventually, forever, on_tokio};

fn echo() -> Service {
    Service::sync("echo", |request: Request<String>| request.payload)
}

/// A payload that can't be decoded without a panic.
struct Panics;

impl Decode for Panics {
    fn decode(_: Payload) -> Result<Self, CodecError> {
        panic!("seven is no seat")
    }
}

/// The same, and what it panics with panics again where it is dropped.
struct PanicsTwice;

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in a drop")
    }
}

impl Decode for PanicsTwice {
    fn decode(_: Payload) -> Result<Self, CodecError> {
        std::panic::panic_any(Bomb)
    }
}

#[test]
fn offsets_are_committed_in_batches_behind_the_answers() {
    let Some(stage) = Stage::set("commits behind answers") else { return };
    on_tokio(async {
        let server = stage.server(echo()).await;
        let client = stage.client().await;
        let to = stage.to("echo");
        for _ in 0..10 {
            let calls: Vec<_> = (0..100)
                .map(|_| {
                    let (client, to) = (client.clone(), to.clone());
                    tokio::spawn(async move { client.request::<String>(&to, "x", Headers::new(), SOON).await.unwrap() })
                })
                .collect();
            for call in calls {
                call.await.unwrap();
            }
        }
        let group = stage.server_settings().group;
        eventually("all offsets are committed", || stage.committed(&group) == 1_000);
        let commits = server.statistics().commits;
        assert!((1..500).contains(&commits), "{commits} commits for 1,000 answers");
    });
}

#[test]
fn what_a_crashed_server_held_is_handled_by_the_next_one() {
    let Some(stage) = Stage::set("at least once") else { return };
    block_on(async {
        let settings = ServerSettings { partitions: 1, ..stage.server_settings() };
        let service = echo() | Service::future("hangs", |_: Request<()>| forever(()));
        let first = ReactiveServer::start(settings.clone(), service).await.unwrap();
        let client = stage.client().await;
        client.send(&stage.to("hangs"), (), Headers::new(), SOON).await.unwrap();
        client.request::<String>(&stage.to("echo"), "behind it", Headers::new(), SOON).await.unwrap();
        // Not drained: what hangs is not finished, and nothing behind it is committed.
        assert_eq!(first.shutdown(Duration::from_millis(100)).await, 1);
        assert_eq!(stage.committed(&settings.group), 0);
        let (done, handled) = mpsc::channel();
        let service = echo() | Service::sync("hangs", move |_: Request<()>| done.send(()).unwrap());
        let second = ReactiveServer::start(settings.clone(), service).await.unwrap();
        handled.recv_timeout(SOON).unwrap();
        assert_eq!(second.shutdown(SOON).await, 0);
        assert_eq!(stage.committed(&settings.group), 2);
    });
}

#[test]
fn at_most_once_commits_before_the_handler_runs() {
    let Some(stage) = Stage::set("at most once") else { return };
    block_on(async {
        let settings = ServerSettings { delivery: Delivery::AtMostOnce, partitions: 1, ..stage.server_settings() };
        let (begun, begins) = mpsc::channel();
        let service = echo()
            | Service::future("hangs", move |_: Request<()>| {
                begun.send(()).unwrap();
                forever(())
            });
        let first = ReactiveServer::start(settings.clone(), service).await.unwrap();
        let client = stage.client().await;
        client.send(&stage.to("hangs"), (), Headers::new(), SOON).await.unwrap();
        begins.recv_timeout(SOON).unwrap();
        assert_eq!(stage.committed(&settings.group), 1);
        assert_eq!(first.shutdown(Duration::from_millis(100)).await, 1);
        let (done, handled) = mpsc::channel();
        let service = echo() | Service::sync("hangs", move |_: Request<()>| done.send(()).unwrap());
        let _second = ReactiveServer::start(settings, service).await.unwrap();
        client.request::<String>(&stage.to("echo"), "x", Headers::new(), SOON).await.unwrap();
        assert!(handled.try_recv().is_err(), "it was not handled again");
    });
}

#[test]
fn a_partition_that_is_taken_away_is_let_go_when_its_requests_are_finished_and_committed() {
    let Some(stage) = Stage::set("a rebalance") else { return };
    on_tokio(async {
        let handled = Arc::new(Mutex::new(Vec::new()));
        let service = |handled: &Arc<Mutex<Vec<u32>>>| {
            let handled = Arc::clone(handled);
            Service::sync("count", move |request: Request<Json<u32>>| {
                std::thread::sleep(Duration::from_millis(2));
                handled.lock().unwrap().push(request.payload.0);
            })
        };
        let first = stage.server(service(&handled)).await;
        let client = stage.client().await;
        let to = stage.to("count");
        let calls: Vec<_> = (0..2_000_u32)
            .map(|number| {
                let (client, to) = (client.clone(), to.clone());
                tokio::spawn(async move { client.request::<()>(&to, Json(number), Headers::new(), SOON).await })
            })
            .collect();
        let second = stage.server(service(&handled)).await;
        let third = stage.server(service(&handled)).await;
        for call in calls {
            call.await.unwrap().unwrap();
        }
        assert_eq!(first.shutdown(SOON).await, 0);
        client.request::<()>(&to, Json(2_000), Headers::new(), SOON).await.unwrap();
        assert_eq!((second.shutdown(SOON).await, third.shutdown(SOON).await), (0, 0));
        let mut numbers = handled.lock().unwrap().clone();
        numbers.sort_unstable();
        let twice: Vec<&[u32]> = numbers.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "handled twice: {twice:?}");
        assert_eq!(numbers.len(), 2_001);
        assert_eq!(stage.committed(&stage.server_settings().group), 2_001);
    });
}

#[test]
fn shutdown_drains_what_is_in_the_works() {
    let Some(stage) = Stage::set("shutdown drains") else { return };
    on_tokio(async {
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let service = Service::sync("slow", move |_: Request<()>| held.lock().unwrap().recv().unwrap());
        let server = stage.server(service).await;
        let client = stage.client().await;
        let call = {
            let (client, to) = (client.clone(), stage.to("slow"));
            tokio::spawn(async move { client.request::<()>(&to, (), Headers::new(), SOON).await })
        };
        eventually("it is in the works", || server.statistics().held == 1);
        let stop = tokio::spawn(server.shutdown(SOON));
        release.send(()).unwrap();
        assert_eq!(stop.await.unwrap(), 0);
        call.await.unwrap().unwrap();
        assert_eq!(stage.committed(&stage.server_settings().group), 1);
    });
}

#[test]
fn a_request_that_is_too_late_is_not_handled() {
    let Some(stage) = Stage::set("too late") else { return };
    block_on(async {
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let server = stage
            .server(Service::sync("count", move |_: Request<String>| {
                counted.fetch_add(1, SeqCst);
            }))
            .await;
        let service = |deadline: &'static str| [(names::SERVICE, "count"), (names::DEADLINE, deadline)];
        stage.write(&stage.requests, None, &service("1000"), "too late");
        stage.write(&stage.requests, None, &service("99999999999999"), "in time");
        eventually("one is handled, one is skipped", || server.statistics().too_late == 1 && count.load(SeqCst) == 1);
        assert_eq!(server.shutdown(SOON).await, 0);
        assert_eq!(stage.committed(&stage.server_settings().group), 2);
    });
}

#[test]
fn what_can_not_be_decoded_is_counted_and_kept_as_a_dead_letter() {
    let Some(stage) = Stage::set("dead letters") else { return };
    block_on(async {
        let dead = format!("{}-dead", stage.requests);
        let settings = ServerSettings { dead_letters: Some(dead.clone()), ..stage.server_settings() };
        let service = Service::sync("number", |request: Request<Json<u8>>| request.payload);
        let server = ReactiveServer::start(settings.clone(), service).await.unwrap();
        let client = stage.client().await;
        stage.write(&stage.requests, None, &[("x-from", "elsewhere")], "no request at all");
        let refused = client.request::<()>(&stage.to("number"), "seven", Headers::new(), SOON).await;
        assert!(matches!(refused, Err(Failure::BadRequest { status: 400, .. })), "{refused:?}");
        eventually("both are kept", || server.statistics().dead_letters == 2);
        assert_eq!(server.statistics().undecodable, 2);
        let letters = stage.messages(&dead);
        let strange = letters.iter().find(|letter| letter.value == b"no request at all").unwrap();
        assert_eq!(strange.header("x-from"), Some("elsewhere"));
        assert!(letters.iter().all(|letter| letter.header(names::REASON).is_some()));
        assert_eq!(server.shutdown(SOON).await, 0);
        assert_eq!(stage.committed(&settings.group), 2);
    });
}

#[test]
fn a_payload_whose_decoding_panics_fails_its_own_call_only() {
    let Some(stage) = Stage::set("a panic in a payload") else { return };
    block_on(async {
        let service = echo()
            | Service::sync("sync", |_: Request<Panics>| ())
            | Service::future("async", |_: Request<Panics>| async {});
        let server = stage.server(service).await;
        let client = stage.client().await;
        for id in ["sync", "async"] {
            let failed = client.request::<()>(&stage.to(id), (), Headers::new(), SOON).await.unwrap_err();
            let told = |message: &str| message.contains("seven is no seat");
            assert!(matches!(&failed, Failure::HandlerFailed { message, .. } if told(message)), "{failed:?}");
        }
        client.request::<String>(&stage.to("echo"), "behind it", Headers::new(), SOON).await.unwrap();
        assert_eq!(server.statistics().panicked, 2);
        assert_eq!(server.shutdown(SOON).await, 0);
        assert_eq!(stage.committed(&stage.server_settings().group), 3);
    });
}

#[test]
fn a_shutdown_ends_even_where_the_thread_that_reads_has_panicked() {
    let Some(stage) = Stage::set("a server that has panicked") else { return };
    block_on(async {
        let server = stage.server(Service::sync("twice", |_: Request<PanicsTwice>| ())).await;
        let client = stage.client().await;
        client.send(&stage.to("twice"), (), Headers::new(), SOON).await.unwrap();
        eventually("it is handled", || server.statistics().panicked == 1);
        server.shutdown(SOON).await;
    });
}

#[test]
fn an_executor_that_takes_no_tasks_fails_the_call() {
    let Some(stage) = Stage::set("an executor that panics") else { return };
    block_on(async {
        let spawn: tidegate_reactive::server::Spawn = Arc::new(|_| panic!("shut down"));
        let settings = ServerSettings { spawn: Some(spawn), ..stage.server_settings() };
        let service = echo() | Service::future("async", |_: Request<()>| async {});
        let server = ReactiveServer::start(settings, service).await.unwrap();
        let client = stage.client().await;
        let failed = client.request::<()>(&stage.to("async"), (), Headers::new(), SOON).await;
        assert!(matches!(failed, Err(Failure::HandlerFailed { .. })), "{failed:?}");
        client.request::<String>(&stage.to("echo"), "behind it", Headers::new(), SOON).await.unwrap();
        assert_eq!(server.shutdown(SOON).await, 0);
    });
}

#[test]
fn a_repeated_idempotency_key_gets_the_stored_answer_and_another_payload_is_refused() {
    let Some(stage) = Stage::set("idempotency") else { return };
    block_on(async {
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let service = Service::sync("buy", move |_: Request<String>| Json(counted.fetch_add(1, SeqCst)));
        let server = stage.server(service).await;
        let client = stage.client().await;
        let buy = async |key: &str, what: &str| {
            let headers = Headers::new().with("idempotency-key", key);
            client.request::<Json<u32>>(&stage.to("buy"), what, headers, SOON).await
        };
        assert_eq!(buy("a", "seat 7").await.unwrap().payload, Json(0));
        assert_eq!(buy("a", "seat 7").await.unwrap().payload, Json(0));
        assert!(matches!(buy("a", "seat 8").await, Err(Failure::BadRequest { status: 422, .. })));
        assert_eq!(buy("b", "seat 8").await.unwrap().payload, Json(1));
        let statistics = server.statistics();
        assert_eq!((statistics.repeated, statistics.key_reused, count.load(SeqCst)), (1, 1, 2));
    });
}

#[test]
fn the_trace_of_a_request_is_seen_by_its_handler_and_comes_back_with_its_answer() {
    let Some(stage) = Stage::set("traceparent") else { return };
    block_on(async {
        let service = Service::sync("trace", |request: Request<()>| {
            request.headers.text(names::TRACEPARENT).unwrap_or_default().to_owned()
        });
        let _server = stage.server(service).await;
        let client = stage.client().await;
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = Headers::new().with(names::TRACEPARENT, trace);
        let answer = client.request::<String>(&stage.to("trace"), (), headers, SOON).await.unwrap();
        assert_eq!((answer.payload.as_str(), answer.headers.text(names::TRACEPARENT)), (trace, Some(trace)));
    });
}

#[test]
fn async_handlers_may_run_on_an_executor_of_the_program() {
    let Some(stage) = Stage::set("handlers on tokio") else { return };
    on_tokio(async {
        let handle = tokio::runtime::Handle::current();
        let spawn: tidegate_reactive::server::Spawn = Arc::new(move |task| drop(handle.spawn(task)));
        let settings = ServerSettings { spawn: Some(spawn), ..stage.server_settings() };
        let service = Service::future("sleeps", |_: Request<()>| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            "slept"
        });
        let _server = ReactiveServer::start(settings, service).await.unwrap();
        let client = stage.client().await;
        let answer = client.request::<String>(&stage.to("sleeps"), (), Headers::new(), SOON).await.unwrap();
        assert_eq!(answer.payload, "slept");
    });
}
