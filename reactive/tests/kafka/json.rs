//! The JSON envelope of the Scala Reactive System: its services can answer, and its clients can ask.

use serde_json::{Value, json};
use tidegate_reactive::headers::names;
use tidegate_reactive::{ClientSettings, Envelope, Failure, Headers, Json, ReactiveClient, Request, Service};

use crate::stage::{SOON, Stage, block_on, eventually};

fn settings(stage: &Stage) -> ClientSettings {
    ClientSettings { envelope: Envelope::Json, ..stage.client_settings() }
}

#[test]
fn client_and_server_speak_the_json_envelope_on_request() {
    let Some(stage) = Stage::set("the JSON envelope") else { return };
    block_on(async {
        let service =
            Service::sync("sum", |request: Request<Json<Vec<u32>>>| Json(request.payload.0.iter().sum::<u32>()));
        let _server = stage.server(service).await;
        let client = ReactiveClient::connect(settings(&stage)).await.unwrap();
        let headers = Headers::new().with("x-user", "jane");
        let answer = client.request::<Json<u32>>(&stage.to("sum"), Json([1, 2]), headers, SOON).await.unwrap();
        assert_eq!(answer.payload, Json(3));
        let value: Value = serde_json::from_slice(&stage.messages(&stage.requests)[0].value).unwrap();
        assert_eq!(value["destination"], json!({"medium": "kafka", "topic": stage.requests, "serviceId": "sum"}));
        assert_eq!((&value["payload"], &value["headers"]["x-user"]), (&json!("[1,2]"), &json!("jane")));
        let unknown = client.request::<String>(&stage.to("other"), "", Headers::new(), SOON).await;
        assert!(matches!(unknown, Err(Failure::NoSuchService { .. })), "{unknown:?}");
    });
}

#[test]
fn a_scala_service_that_knows_no_partitions_can_answer() {
    let Some(stage) = Stage::set("a Scala service answers") else { return };
    block_on(async {
        drop(stage.server(Service::sync("other", |_: Request<()>| ())).await);
        let client = ReactiveClient::connect(settings(&stage)).await.unwrap();
        for partition in 0..4 {
            let to = stage.to("echo");
            let mut call = std::pin::pin!(client.request::<String>(&to, "hi", Headers::new(), SOON));
            let first = std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context))).await;
            assert!(first.is_pending());
            let mut seen = Vec::new();
            eventually("the request is there", || {
                seen = stage.messages(&stage.requests);
                seen.len() == partition as usize + 1
            });
            let requests = seen.iter().map(|seen| serde_json::from_slice::<Value>(&seen.value).unwrap());
            let ids: Vec<Value> = requests.map(|request| request["correlationId"].clone()).collect();
            // Answers to those before are late; the one that waits gets its own.
            for id in ids {
                let answer = json!({"correlationId": id, "replyTo": stage.replies, "response": "ho", "statusCode": 200, "headers": {}});
                stage.write(&stage.replies, Some(partition), &[], &answer.to_string());
            }
            assert_eq!(call.await.unwrap().payload, "ho");
        }
    });
}

#[test]
fn a_scala_client_is_answered_on_the_topic_it_names() {
    let Some(stage) = Stage::set("a Scala client asks") else { return };
    block_on(async {
        let _server = stage.server(Service::sync("echo", |request: Request<String>| request.payload)).await;
        let request = json!({
            "correlationId": "akka://system/user/1",
            "destination": {"medium": "kafka", "topic": stage.requests, "serviceId": "echo"},
            "payload": "hi",
            "replyTo": stage.replies,
            "headers": {"traceparent": "00-a-b-01"},
        });
        // Its reply topic exists.
        let _client = stage.client().await;
        stage.write(&stage.requests, None, &[], &request.to_string());
        let mut answers = Vec::new();
        eventually("the answer is there", || {
            answers = stage.messages(&stage.replies);
            !answers.is_empty()
        });
        let answer: Value = serde_json::from_slice(&answers[0].value).unwrap();
        assert_eq!(answer["correlationId"], request["correlationId"]);
        assert_eq!((&answer["response"], &answer["statusCode"]), (&json!("hi"), &json!(200)));
        assert_eq!(answer["headers"][names::TRACEPARENT], "00-a-b-01");
    });
}
