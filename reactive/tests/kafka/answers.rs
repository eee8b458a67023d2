//! Answers go straight home: to the one partition that the client reads from its end, without a group or a commit.

use std::time::Duration;

use tidegate_reactive::headers::names;
use tidegate_reactive::{ClientSettings, Failure, Headers, ReactiveClient, Request, Service};

use crate::stage::{SOON, Stage, block_on, eventually};

fn echo() -> Service {
    Service::sync("echo", |request: Request<String>| request.payload)
}

#[test]
fn a_request_names_where_its_answer_goes_and_the_answer_goes_exactly_there() {
    let Some(stage) = Stage::set("answers go straight home") else { return };
    block_on(async {
        let _server = stage.server(echo()).await;
        let settings = ClientSettings { reply_partition: Some(2), ..stage.client_settings() };
        let client = ReactiveClient::connect(settings).await.unwrap();
        for _ in 0..20 {
            client.request::<String>(&stage.to("echo"), "x", Headers::new(), SOON).await.unwrap();
        }
        let request = &stage.messages(&stage.requests)[0];
        assert_eq!(request.header(names::REPLY_TOPIC), Some(stage.replies.as_str()));
        assert_eq!(request.header(names::REPLY_PARTITION), Some("2"));
        assert_eq!(request.header(names::INSTANCE).map(str::len), Some(16));
        assert_eq!(request.header(names::SERVICE), Some("echo"));
        assert!(request.header(names::DEADLINE).is_some());
        let answers = stage.messages(&stage.replies);
        assert_eq!(answers.len(), 20);
        assert!(answers.iter().all(|answer| answer.partition == 2));
        assert_eq!(answers[0].header(names::RESPONSE_CODE), Some("200"));
    });
}

#[test]
fn several_clients_read_their_own_answers_only_until_there_are_more_of_them_than_partitions() {
    let Some(stage) = Stage::set("one partition per client") else { return };
    block_on(async {
        let _server = stage.server(echo()).await;
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(stage.client().await);
        }
        for client in &clients {
            for _ in 0..10 {
                client.request::<String>(&stage.to("echo"), "x", Headers::new(), SOON).await.unwrap();
            }
        }
        for client in &clients {
            let statistics = client.statistics();
            assert_eq!((statistics.answered, statistics.foreign), (10, 0));
            assert_eq!(statistics.read_bytes, statistics.own_bytes);
        }
        let fifth = stage.client().await;
        let shared = clients.iter().find(|client| client.reply_to() == fifth.reply_to()).unwrap();
        fifth.request::<String>(&stage.to("echo"), "x", Headers::new(), SOON).await.unwrap();
        eventually("the other one on the partition reads it too", || shared.statistics().foreign == 1);
        assert_eq!((shared.statistics().answered, fifth.statistics().answered), (10, 1));
    });
}

#[test]
fn a_late_answer_is_counted_and_reaches_nobody() {
    let Some(stage) = Stage::set("late answers") else { return };
    block_on(async {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let service = Service::sync("slow", move |_: Request<()>| held.lock().unwrap().recv().unwrap_or_default());
        let _server = stage.server(service | echo()).await;
        let client = stage.client().await;
        client.request::<String>(&stage.to("echo"), "first", Headers::new(), SOON).await.unwrap();
        let outcome = client.request::<()>(&stage.to("slow"), (), Headers::new(), Duration::from_secs(2)).await;
        assert!(matches!(outcome, Err(Failure::TimedOut)), "{outcome:?}");
        drop(release);
        eventually("the late answer is counted", || client.statistics().late == 1);
        assert_eq!(client.pending(), 0);
    });
}

#[test]
fn unknown_forged_and_malformed_answers_reach_nobody() {
    let Some(stage) = Stage::set("unknown and forged answers") else { return };
    block_on(async {
        let _server = stage.server(echo()).await;
        let client = stage.client().await;
        let partition = client.reply_to().partition;
        client.request::<String>(&stage.to("echo"), "x", Headers::new(), SOON).await.unwrap();
        let own = stage.messages(&stage.replies)[0].header(names::CORRELATION).unwrap().to_owned();
        for (id, code) in [(own.as_str(), "200"), ("AAAAAAAAAAAAAAAAAAAAAA", "200"), ("!", "200"), (own.as_str(), "x")]
        {
            let headers = [(names::CORRELATION, id), (names::RESPONSE_CODE, code)];
            stage.write(&stage.replies, partition, &headers, "forged");
        }
        stage.write(&stage.replies, partition, &[], "no answer at all");
        eventually("all are counted", || {
            let statistics = client.statistics();
            (statistics.late, statistics.foreign, statistics.malformed) == (2, 1, 2)
        });
        let answer = client.request::<String>(&stage.to("echo"), "y", Headers::new(), SOON).await.unwrap();
        assert_eq!(answer.payload, "y");
    });
}

#[test]
fn a_service_in_another_language_answers_with_a_correlation_id_and_a_code() {
    let Some(stage) = Stage::set("a service in another language") else { return };
    block_on(async {
        // Its topic, and nobody of ours behind it.
        drop(stage.server(Service::sync("other", |_: Request<()>| ())).await);
        let client = stage.client().await;
        let to = stage.to("python/hello");
        let call = client.request::<String>(&to, "Jane", Headers::new(), SOON);
        let answers = async {
            eventually("the request is there", || {
                stage.messages(&stage.requests).iter().any(|seen| seen.value == b"Jane")
            });
            let request = stage.messages(&stage.requests).into_iter().find(|seen| seen.value == b"Jane").unwrap();
            let partition = request.header(names::REPLY_PARTITION).unwrap().parse().unwrap();
            let headers =
                [("Rig-Correlation", request.header(names::CORRELATION).unwrap()), ("rig-response-code", "203")];
            stage.write(&stage.replies, Some(partition), &headers, "Hello, Jane");
        };
        let answer = join(call, answers).await.unwrap();
        assert_eq!((answer.status, answer.payload.as_str()), (203, "Hello, Jane"));
    });
}

/// Polls the call once, so that it is on its way, then does the other thing, then waits for the call.
async fn join<T>(call: impl Future<Output = T>, then: impl Future<Output = ()>) -> T {
    let mut call = std::pin::pin!(call);
    let first = std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context))).await;
    assert!(first.is_pending());
    then.await;
    call.await
}

#[test]
fn the_stages_of_a_call_are_measured() {
    let Some(stage) = Stage::set("histograms") else { return };
    block_on(async {
        let server = stage.server(echo()).await;
        let client = stage.client().await;
        for _ in 0..5 {
            client.request::<String>(&stage.to("echo"), "x", Headers::new(), SOON).await.unwrap();
        }
        eventually("acknowledgements are measured", || client.statistics().producing.count() == 5);
        let statistics = client.statistics();
        assert_eq!((statistics.queueing.count(), statistics.round_trip.count()), (5, 5));
        assert_eq!((statistics.serving.count(), statistics.returning.count()), (5, 5));
        eventually("the server measures too", || server.statistics().answering.count() == 5);
        assert_eq!(server.statistics().serving.count(), 5);
    });
}
