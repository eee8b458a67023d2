//! The faults of the reference client (0.4.0), each shown to be absent. A test is named after what its users would see.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use tidegate_reactive::headers::names;
use tidegate_reactive::{
    ClientSettings, Destination, Failure, Headers, Json, ReactiveClient, ReactiveServer, Request, ServerSettings,
    Service,
};

use crate::stage::{SOON, Stage, block_on, eventually, forever, on_tokio};

fn echo() -> Service {
    Service::sync("echo", |request: Request<String>| request.payload)
}

#[test]
fn headers_of_the_user_reach_the_handler_and_its_own_come_back() {
    let Some(stage) = Stage::set("user headers") else { return };
    block_on(async {
        let service = Service::sync("headers", |request: Request<()>| {
            let user = request.headers.text("x-user").unwrap_or("nobody").to_owned();
            tidegate_reactive::Response::new(user).header("x-server", "here")
        });
        let _server = stage.server(service).await;
        let client = stage.client().await;
        let headers = Headers::new().with("x-user", "jane");
        let answer = client.request::<String>(&stage.to("headers"), (), headers, SOON).await.unwrap();
        assert_eq!((answer.payload.as_str(), answer.headers.text("x-server")), ("jane", Some("here")));
        let forged = Headers::new().with(names::CORRELATION, "mine");
        let refused = client.request::<String>(&stage.to("headers"), (), forged, SOON).await;
        assert!(matches!(refused, Err(Failure::BadRequest { .. })), "{refused:?}");
    });
}

#[test]
fn a_failed_call_and_one_to_an_unknown_service_do_not_look_like_success() {
    let Some(stage) = Stage::set("the status is looked at") else { return };
    block_on(async {
        let service = Service::sync("fails", |_: Request<String>| "x".parse::<u8>().map(Json));
        let _server = stage.server(service).await;
        let client = stage.client().await;
        let call = async |id| client.request::<String>(&stage.to(id), "x", Headers::new(), SOON).await;
        assert!(matches!(call("fails").await, Err(Failure::HandlerFailed { status: 500, .. })));
        // 404, where the reference says 500.
        assert!(matches!(call("unknown").await, Err(Failure::NoSuchService { .. })));
        let codes = stage.messages(&stage.replies);
        let mut codes: Vec<&str> = codes.iter().filter_map(|answer| answer.header(names::RESPONSE_CODE)).collect();
        codes.sort_unstable();
        assert_eq!(codes, ["404", "500"]);
    });
}

#[test]
fn unanswered_requests_leave_nothing_behind() {
    let Some(stage) = Stage::set("unanswered requests") else { return };
    on_tokio(async {
        let client = stage.client().await;
        // The topic is there, and nobody serves it.
        drop(stage.server(echo()).await);
        let to = stage.to("nobody");
        let calls: Vec<_> = (0..5_000)
            .map(|_| {
                let (client, to) = (client.clone(), to.clone());
                tokio::spawn(async move { client.request::<()>(&to, (), Headers::new(), Duration::from_secs(2)).await })
            })
            .collect();
        for call in calls {
            let outcome = call.await.unwrap();
            assert!(matches!(outcome, Err(Failure::TimedOut | Failure::NoSuchService { .. })), "{outcome:?}");
        }
        let statistics = client.statistics();
        assert_eq!((statistics.pending, statistics.waiting), (0, 0));
    });
}

#[test]
fn a_message_that_is_too_large_or_a_topic_that_cannot_be_ends_its_own_call_only() {
    let Some(stage) = Stage::set("too large, illegal topic") else { return };
    block_on(async {
        assert!("kafka:no such topic/echo".parse::<Destination>().is_err());
        let service = echo() | Service::sync("large", |_: Request<()>| vec![b'x'; 2_000_000]);
        let _server = stage.server(service).await;
        let client = stage.client().await;
        let large = vec![b'x'; 2_000_000];
        let outcome = client.request::<String>(&stage.to("echo"), large.as_slice(), Headers::new(), SOON).await;
        assert!(matches!(outcome, Err(Failure::BadRequest { status: 413, .. })), "{outcome:?}");
        let outcome = client.request::<Vec<u8>>(&stage.to("large"), (), Headers::new(), SOON).await;
        assert!(matches!(outcome, Err(Failure::HandlerFailed { .. })), "{outcome:?}");
        let answer = client.request::<String>(&stage.to("echo"), "still here", Headers::new(), SOON).await.unwrap();
        assert_eq!(answer.payload, "still here");
        assert_eq!(client.pending(), 0);
    });
}

#[test]
fn a_request_whose_answer_can_go_nowhere_does_not_stop_the_server() {
    let Some(stage) = Stage::set("impossible reply addresses") else { return };
    block_on(async {
        let settings = ServerSettings { partitions: 1, ..stage.server_settings() };
        let server = ReactiveServer::start(settings.clone(), echo()).await.unwrap();
        let client = stage.client().await;
        let long = "t".repeat(300);
        let addresses =
            [("no such topic", "0"), (stage.replies.as_str(), "999"), (long.as_str(), "0"), ("", "0"), ("..", "-7")];
        for (topic, partition) in addresses {
            let headers = [
                (names::SERVICE, "echo"),
                (names::CORRELATION, "c"),
                (names::REPLY_TOPIC, topic),
                (names::REPLY_PARTITION, partition),
            ];
            stage.write(&stage.requests, None, &headers, "x");
        }
        let answer = client.request::<String>(&stage.to("echo"), "still here", Headers::new(), SOON).await.unwrap();
        assert_eq!(answer.payload, "still here");
        eventually("nothing is held", || server.statistics().held == 0);
        assert_eq!(server.statistics().unanswered, 5);
        assert_eq!(server.shutdown(SOON).await, 0);
        assert_eq!(stage.committed(&settings.group), 6);
    });
}

#[test]
fn requests_that_are_never_answered_do_not_stop_the_server() {
    let Some(stage) = Stage::set("never answered") else { return };
    on_tokio(async {
        let settings = ServerSettings { max_concurrent: 4, ..stage.server_settings() };
        let service = echo() | Service::future("hangs", |_: Request<()>| forever(()));
        let server = ReactiveServer::start(settings, service).await.unwrap();
        let client = stage.client().await;
        // As many as the server takes at once, and more.
        let hangs: Vec<_> = (0..8)
            .map(|_| {
                let (client, to) = (client.clone(), stage.to("hangs"));
                tokio::spawn(async move { client.request::<()>(&to, (), Headers::new(), Duration::from_secs(2)).await })
            })
            .collect();
        for call in hangs {
            assert!(matches!(call.await.unwrap(), Err(Failure::TimedOut)));
        }
        client.request::<String>(&stage.to("echo"), "x", Headers::new(), SOON).await.unwrap();
        assert_eq!(server.shutdown(SOON).await, 0);
    });
}

#[test]
fn a_slow_handler_holds_up_no_other_whether_it_blocks_or_waits() {
    let Some(stage) = Stage::set("slow handlers") else { return };
    on_tokio(async {
        let (release, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let service = echo()
            | Service::sync("blocks", move |_: Request<()>| held.lock().unwrap().recv().unwrap_or_default())
            | Service::future("waits", |_: Request<()>| forever(()));
        let settings = ServerSettings { partitions: 1, ..stage.server_settings() };
        let server = ReactiveServer::start(settings, service).await.unwrap();
        let client = stage.client().await;
        for slow in ["blocks", "blocks", "waits", "waits"] {
            let (client, to) = (client.clone(), stage.to(slow));
            tokio::spawn(async move { client.request::<()>(&to, (), Headers::new(), SOON).await });
        }
        eventually("the slow ones are in the works", || server.statistics().held == 4);
        for _ in 0..20 {
            client.request::<String>(&stage.to("echo"), "x", Headers::new(), SOON).await.unwrap();
        }
        eventually("the quick ones are done, the slow ones are not", || server.statistics().held == 4);
        drop(release);
        client.shutdown(Duration::ZERO).await;
        server.shutdown(Duration::from_millis(200)).await;
    });
}

#[test]
fn a_handler_that_fails_without_a_message_or_panics_does_not_end_the_server() {
    let Some(stage) = Stage::set("handlers that fail") else { return };
    block_on(async {
        #[derive(Debug, thiserror::Error)]
        #[error("")]
        struct Silent;
        let service = echo()
            | Service::sync("silent", |_: Request<()>| Err::<(), _>(Silent))
            | Service::sync("panics", |request: Request<String>| -> String { panic!("{}", request.payload) })
            | Service::future("panics/async", |request: Request<String>| -> std::future::Ready<()> {
                panic!("{}", request.payload)
            });
        let _server = stage.server(service).await;
        let client = stage.client().await;
        for id in ["silent", "panics", "panics/async"] {
            let outcome = client.request::<()>(&stage.to(id), (), Headers::new(), SOON).await;
            assert!(matches!(outcome, Err(Failure::HandlerFailed { .. })), "{id}: {outcome:?}");
        }
        client.request::<String>(&stage.to("echo"), "x", Headers::new(), SOON).await.unwrap();
    });
}

#[test]
fn clients_steal_nothing_from_each_other_and_two_in_one_program_do_not_clash() {
    let Some(stage) = Stage::set("two clients") else { return };
    on_tokio(async {
        let _server = stage.server(echo()).await;
        // One partition: they have to share it.
        let settings = ClientSettings { reply_partitions: 1, ..stage.client_settings() };
        let first = ReactiveClient::connect(settings.clone()).await.unwrap();
        let second = ReactiveClient::connect(settings).await.unwrap();
        let calls: Vec<_> = (0..200)
            .map(|number: u32| {
                let client = if number.is_multiple_of(2) { first.clone() } else { second.clone() };
                let to = stage.to("echo");
                tokio::spawn(async move {
                    let text = number.to_string();
                    let answer = client.request::<String>(&to, text.as_str(), Headers::new(), SOON).await.unwrap();
                    assert_eq!(answer.payload, text);
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!((first.statistics().answered, second.statistics().answered), (100, 100));
        first.shutdown(SOON).await;
        second.request::<String>(&stage.to("echo"), "x", Headers::new(), SOON).await.unwrap();
    });
}

#[test]
fn a_first_start_does_not_replay_the_reply_topic() {
    let Some(stage) = Stage::set("no replay") else { return };
    block_on(async {
        let _server = stage.server(echo()).await;
        let settings = ClientSettings { reply_partitions: 1, ..stage.client_settings() };
        let before = ReactiveClient::connect(settings.clone()).await.unwrap();
        for _ in 0..50 {
            before.request::<String>(&stage.to("echo"), "old", Headers::new(), SOON).await.unwrap();
        }
        before.shutdown(SOON).await;
        let client = ReactiveClient::connect(settings).await.unwrap();
        client.request::<String>(&stage.to("echo"), "new", Headers::new(), SOON).await.unwrap();
        let statistics = client.statistics();
        assert_eq!((statistics.answered, statistics.foreign, statistics.read_bytes), (1, 0, 3));
    });
}

#[test]
fn a_client_has_no_group_and_commits_nothing() {
    let Some(stage) = Stage::set("no group") else { return };
    block_on(async {
        let _server = stage.server(echo()).await;
        // A name of its own, by which it would be found in any group.
        let mut settings = stage.client_settings();
        settings.connection.properties.push(("client.id".to_owned(), stage.replies.clone()));
        let client = ReactiveClient::connect(settings).await.unwrap();
        client.request::<String>(&stage.to("echo"), "x", Headers::new(), SOON).await.unwrap();
        use rdkafka::producer::Producer;
        let groups = stage.producer().client().fetch_group_list(None, SOON).unwrap();
        assert!(groups.groups().iter().any(|group| group.name() == stage.server_settings().group));
        // Whatever it might commit at its end counts too.
        client.shutdown(SOON).await;
        for group in groups.groups() {
            assert!(group.members().iter().all(|member| member.client_id() != stage.replies), "{}", group.name());
            assert_eq!(stage.committed_on(&stage.replies, group.name()), 0, "{}", group.name());
        }
    });
}

#[test]
fn answers_cost_no_commit_each_and_at_least_once_does_commit() {
    let Some(stage) = Stage::set("few commits") else { return };
    block_on(async {
        let server = stage.server(echo()).await;
        let client = stage.client().await;
        let begun = Instant::now();
        let mut answers = 0;
        while begun.elapsed() < Duration::from_secs(1) {
            client.request::<String>(&stage.to("echo"), "x", Headers::new(), SOON).await.unwrap();
            answers += 1;
        }
        let commits = server.statistics().commits;
        assert!(commits * 4 < answers as u64, "{commits} commits for {answers} answers, one by one");
        assert_eq!(server.shutdown(SOON).await, 0);
        assert_eq!(stage.committed(&stage.server_settings().group), answers);
    });
}

#[test]
fn shutdown_comes_to_an_end_on_both_sides_whatever_is_in_flight() {
    let Some(stage) = Stage::set("shutdown ends") else { return };
    on_tokio(async {
        let (release, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let service = Service::sync("blocks", move |_: Request<()>| held.lock().unwrap().recv().unwrap_or_default());
        let server = stage.server(service).await;
        let client = stage.client().await;
        let call = {
            let (client, to) = (client.clone(), stage.to("blocks"));
            tokio::spawn(async move { client.request::<()>(&to, (), Headers::new(), SOON).await })
        };
        eventually("it is in the works", || server.statistics().held == 1);
        client.shutdown(Duration::ZERO).await;
        assert!(matches!(call.await.unwrap(), Err(Failure::Cancelled)));
        assert_eq!(server.shutdown(Duration::from_millis(50)).await, 1);
        drop(release);
    });
}
