//! What a caller has: one call and one answer, typed, bounded, and always an end.

use std::time::Duration;

use tidegate_reactive::{
    ClientSettings, Failure, Headers, Json, Overflow, ReactiveClient, Refusal, Request, Response, Service,
};

use crate::stage::{SOON, Stage, block_on, eventually, forever, on_tokio};

fn echo() -> Service {
    Service::sync("echo", |request: Request<String>| request.payload)
}

#[test]
fn a_call_gets_its_answer_on_a_bare_block_on() {
    let Some(stage) = Stage::set("a call on a bare block_on") else { return };
    block_on(async {
        let server = stage.server(echo()).await;
        let client = stage.client().await;
        let answer = client.request::<String>(&stage.to("echo"), "hi", Headers::new(), SOON).await.unwrap();
        assert_eq!((answer.status, answer.payload.as_str()), (200, "hi"));
        client.shutdown(SOON).await;
        assert_eq!(server.shutdown(SOON).await, 0);
    });
}

#[test]
fn a_thousand_calls_at_once_each_get_their_own_answer_on_tokio() {
    let Some(stage) = Stage::set("a thousand calls on tokio") else { return };
    on_tokio(async {
        let server = stage.server(echo()).await;
        let client = stage.client().await;
        let calls = (0..1_000).map(|number| {
            let (client, to) = (client.clone(), stage.to("echo"));
            tokio::spawn(async move {
                let text = number.to_string();
                let answer = client.request::<String>(&to, text.as_str(), Headers::new(), SOON).await.unwrap();
                assert_eq!(answer.payload, text);
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        let statistics = client.statistics();
        assert_eq!((statistics.pending, statistics.answered, statistics.late), (0, 1_000, 0));
        assert_eq!(statistics.read_bytes, statistics.own_bytes);
        assert_eq!(statistics.round_trip.count(), 1_000);
        assert_eq!(server.shutdown(SOON).await, 0);
    });
}

#[test]
fn text_bytes_nothing_and_json_are_sent_and_received_by_sync_and_async_handlers() {
    let Some(stage) = Stage::set("typed payloads") else { return };
    block_on(async {
        let service = echo()
            | Service::sync("bytes", |request: Request<Vec<u8>>| request.payload)
            | Service::future("nothing", |_: Request<()>| async {})
            | Service::future("json/deep/er", |request: Request<Json<(u8, String)>>| async move {
                Response::new(request.payload).status(202)
            });
        let _server = stage.server(service).await;
        let client = stage.client().await;
        let bytes: Vec<u8> = (0..=255).collect();
        let answer = client.request::<Vec<u8>>(&stage.to("bytes"), bytes.as_slice(), Headers::new(), SOON).await;
        assert_eq!(answer.unwrap().payload, bytes);
        client.request::<()>(&stage.to("nothing"), (), Headers::new(), SOON).await.unwrap();
        let value = Json((7, "ü".to_owned()));
        let answer = client.request(&stage.to("json/deep/er"), value.clone(), Headers::new(), SOON).await.unwrap();
        assert_eq!((answer.status, answer.payload), (202, value));
    });
}

#[test]
fn each_way_to_fail_is_told_apart() {
    let Some(stage) = Stage::set("typed outcomes") else { return };
    block_on(async {
        let service = Service::sync("number", |request: Request<Json<u8>>| request.payload)
            | Service::sync("refuses", |_: Request<()>| Err::<(), _>(Refusal::bad_request("no such seat").status(422)))
            | Service::sync("fails", |_: Request<()>| Err::<(), _>(std::io::Error::other("disk full")))
            | Service::future("panics", |_: Request<()>| async {
                if true {
                    panic!("boom")
                }
            })
            | Service::future("hangs", |_: Request<()>| forever(()));
        let server = stage.server(service).await;
        let client = stage.client().await;
        let call = async |service: &str, timeout| {
            client.request::<()>(&stage.to(service), (), Headers::new(), timeout).await.unwrap_err()
        };
        assert!(matches!(call("unknown", SOON).await, Failure::NoSuchService { .. }));
        assert!(matches!(call("number", SOON).await, Failure::BadRequest { status: 400, .. }));
        let refused = call("refuses", SOON).await;
        assert!(matches!(refused, Failure::BadRequest { status: 422, message } if message == "no such seat"));
        let failed = call("fails", SOON).await;
        assert!(matches!(failed, Failure::HandlerFailed { status: 500, message } if message == "disk full"));
        let panicked = call("panics", SOON).await;
        assert!(matches!(panicked, Failure::HandlerFailed { message, .. } if message.contains("boom")));
        assert!(matches!(call("hangs", Duration::from_secs(2)).await, Failure::TimedOut));
        let statistics = server.statistics();
        assert_eq!((statistics.panicked, statistics.failed, statistics.unknown_service), (1, 2, 1));
        assert_eq!(client.pending(), 0);
    });
}

#[test]
fn sending_one_way_is_done_when_kafka_has_the_message_and_the_handler_gets_it() {
    let Some(stage) = Stage::set("sending one way") else { return };
    let (done, got) = std::sync::mpsc::channel();
    block_on(async {
        let service = Service::sync("note", move |request: Request<String>| done.send(request.payload).unwrap());
        let server = stage.server(service).await;
        let client = stage.client().await;
        client.send(&stage.to("note"), "remember", Headers::new(), SOON).await.unwrap();
        assert_eq!(stage.messages(&stage.requests).len(), 1);
        assert_eq!(got.recv_timeout(SOON).unwrap(), "remember");
        assert_eq!(server.shutdown(SOON).await, 0);
        assert!(stage.messages(&stage.replies).is_empty());
        assert_eq!(stage.committed(&stage.server_settings().group), 1);
    });
}

#[test]
fn beyond_the_bound_a_call_waits_or_fails_at_once_as_configured() {
    let Some(stage) = Stage::set("bounded in flight") else { return };
    on_tokio(async {
        let settings = ClientSettings { max_in_flight: 1, ..stage.client_settings() };
        let _server = stage.server(echo() | Service::future("hangs", |_: Request<()>| forever(()))).await;
        let fails =
            ReactiveClient::connect(ClientSettings { overflow: Overflow::Fail, ..settings.clone() }).await.unwrap();
        let (hangs, to_echo) = (stage.to("hangs"), stage.to("echo"));
        let blocked = {
            let (fails, hangs) = (fails.clone(), hangs.clone());
            tokio::spawn(async move { fails.request::<()>(&hangs, (), Headers::new(), SOON).await })
        };
        eventually("the first is in flight", || fails.pending() == 1);
        let second = fails.request::<String>(&to_echo, "a", Headers::new(), SOON).await;
        assert!(matches!(second, Err(Failure::Overloaded)), "{second:?}");
        // A caller that goes away frees its place at once.
        blocked.abort();
        assert!(blocked.await.unwrap_err().is_cancelled());
        assert_eq!(fails.pending(), 0);
        fails.request::<String>(&to_echo, "b", Headers::new(), SOON).await.unwrap();

        let waits = ReactiveClient::connect(settings).await.unwrap();
        let calls: Vec<_> = (0..20)
            .map(|number: u32| {
                let (waits, to_echo) = (waits.clone(), to_echo.clone());
                tokio::spawn(async move {
                    waits.request::<String>(&to_echo, number.to_string(), Headers::new(), SOON).await
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        let first = waits.request::<()>(&hangs, (), Headers::new(), Duration::from_secs(2));
        let late = waits.request::<String>(&to_echo, "late", Headers::new(), Duration::from_millis(200));
        let (first, late) = tokio::join!(first, late);
        assert!(matches!(first, Err(Failure::TimedOut)), "{first:?}");
        assert!(matches!(late, Err(Failure::Overloaded)), "{late:?}");
        assert!(
            stage.messages(&stage.requests).iter().all(|seen| seen.value != b"late"),
            "what is too late is not sent"
        );
    });
}

#[test]
fn on_shutdown_every_pending_call_ends_as_cancelled_and_so_does_every_later_one() {
    let Some(stage) = Stage::set("shutdown of a client") else { return };
    on_tokio(async {
        let _server = stage.server(Service::future("hangs", |_: Request<()>| forever(()))).await;
        let client = stage.client().await;
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let (client, to) = (client.clone(), stage.to("hangs"));
                tokio::spawn(async move { client.request::<()>(&to, (), Headers::new(), SOON).await })
            })
            .collect();
        eventually("all are in flight", || client.pending() == 100);
        client.shutdown(Duration::from_millis(100)).await;
        for call in calls {
            assert!(matches!(call.await.unwrap(), Err(Failure::Cancelled)));
        }
        let later = client.request::<()>(&stage.to("hangs"), (), Headers::new(), SOON).await;
        assert!(matches!(later, Err(Failure::Cancelled)), "{later:?}");
        client.shutdown(SOON).await;
    });
}

#[test]
fn a_program_that_cannot_reach_kafka_is_told_so_in_time() {
    let settings =
        ClientSettings { connect_timeout: Duration::from_millis(500), ..ClientSettings::new("127.0.0.1:1", "replies") };
    let error = block_on(ReactiveClient::connect(settings)).unwrap_err();
    assert!(error.retry_helps(), "{error}");
}
