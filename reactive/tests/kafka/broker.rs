//! A broker that is killed with thousands of calls in flight: each ends, none twice, and nothing is left.

use std::time::Duration;

use tidegate_reactive::{ClientSettings, Failure, Headers, ReactiveClient, Request, Service};

use crate::stage::{SOON, Stage, eventually, on_tokio};

#[test]
fn a_broker_killed_with_thousands_of_calls_in_flight_leaves_none_hanging_and_answers_none_twice() {
    let Some(mut stage) = Stage::set_alone("a killed broker") else { return };
    on_tokio(async {
        let server = stage.server(Service::sync("echo", |request: Request<String>| request.payload)).await;
        let settings = ClientSettings { max_in_flight: 20_000, ..stage.client_settings() };
        let client = ReactiveClient::connect(settings).await.unwrap();
        let to = stage.to("echo");
        let calls: Vec<_> = (0..10_000_u32)
            .map(|number| {
                let (client, to) = (client.clone(), to.clone());
                tokio::spawn(async move {
                    let text = number.to_string();
                    let outcome =
                        client.request::<String>(&to, text.as_str(), Headers::new(), Duration::from_secs(15)).await;
                    match outcome {
                        Ok(answer) => {
                            assert_eq!(answer.payload, text);
                            true
                        }
                        Err(Failure::TimedOut | Failure::Disconnected(_)) => false,
                        Err(other) => panic!("{other}"),
                    }
                })
            })
            .collect();
        eventually("some are answered", || client.statistics().answered > 100);
        stage.kafka().kill().unwrap();
        let pending = client.pending();
        stage.kafka().restart().unwrap();
        let mut answered = 0;
        for call in calls {
            answered += u64::from(call.await.unwrap());
        }
        let statistics = client.statistics();
        assert_eq!((statistics.pending, statistics.answered), (0, answered), "{pending} were in flight at the kill");
        // The same client and server go on.
        eventually("a call is answered again", || {
            let (client, to) = (client.clone(), to.clone());
            let call = async move { client.request::<String>(&to, "after", Headers::new(), SOON).await };
            tokio::task::block_in_place(|| crate::stage::block_on(call)).is_ok()
        });
        client.shutdown(SOON).await;
        assert_eq!(server.shutdown(SOON).await, 0);
    });
}

#[test]
fn without_a_broker_a_call_and_a_message_end_as_disconnected_when_their_time_is_over() {
    let Some(mut stage) = Stage::set_alone("a broker that is away") else { return };
    on_tokio(async {
        let server = stage.server(Service::sync("echo", |request: Request<String>| request.payload)).await;
        assert_eq!(server.shutdown(SOON).await, 0);
        let client = stage.client().await;
        let to = stage.to("echo");
        client.send(&to, "before", Headers::new(), SOON).await.unwrap();
        stage.kafka().kill().unwrap();
        let timeout = Duration::from_secs(1);
        let outcome = client.request::<String>(&to, "x", Headers::new(), timeout).await;
        assert!(matches!(outcome, Err(Failure::Disconnected(_))), "{outcome:?}");
        let outcome = client.send(&to, "x", Headers::new(), timeout).await;
        assert!(matches!(outcome, Err(Failure::Disconnected(_))), "{outcome:?}");
        assert_eq!(client.pending(), 0);
        client.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn a_request_is_not_done_before_kafka_has_acknowledged_its_answer() {
    let Some(mut stage) = Stage::set_alone("answers without a broker") else { return };
    on_tokio(async {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let service = Service::sync("slow", move |_: Request<()>| held.lock().unwrap().recv().unwrap_or_default());
        let server = stage.server(service).await;
        let client = stage.client().await;
        let call = {
            let (client, to) = (client.clone(), stage.to("slow"));
            tokio::spawn(async move { client.request::<()>(&to, (), Headers::new(), SOON).await })
        };
        eventually("it is in the works", || server.statistics().held == 1);
        stage.kafka().kill().unwrap();
        drop(release);
        eventually("its handler is done", || server.statistics().serving.count() == 1);
        let statistics = server.statistics();
        assert_eq!((statistics.held, statistics.answered), (1, 0), "the answer is on its way");
        stage.kafka().restart().unwrap();
        eventually("the answer is acknowledged", || server.statistics().answered >= 1 && server.statistics().held == 0);
        let outcome = call.await.unwrap();
        assert!(matches!(outcome, Ok(_) | Err(Failure::TimedOut)), "{outcome:?}");
        // The group finds together again first, and may ask anew.
        eventually("it is committed", || stage.committed(&stage.server_settings().group) == 1);
        client.shutdown(SOON).await;
        assert_eq!(server.shutdown(SOON).await, 0);
    });
}
