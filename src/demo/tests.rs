//! The whole shop over real sockets, against a gateway that is played by a few lines of axum: a hub, and a list of answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;

/// What the shop says, in order of arrival.
struct Played {
    address: SocketAddr,
    events: UnboundedReceiver<Value>,
    answers: UnboundedReceiver<(String, u16, Value)>,
    definitions: UnboundedReceiver<Value>,
}

#[derive(Clone)]
struct Ports {
    events: UnboundedSender<Value>,
    answers: UnboundedSender<(String, u16, Value)>,
    definitions: UnboundedSender<Value>,
    subscribers: Arc<Mutex<Vec<UnboundedSender<String>>>>,
    /// The first call fails, as while a gateway restarts.
    has_failed: Arc<AtomicBool>,
    knows_the_api: Arc<AtomicBool>,
}

async fn publish(State(ports): State<Ports>, body: Bytes) -> StatusCode {
    if !ports.has_failed.swap(true, Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let Ok(event) = serde_json::from_slice::<Value>(&body) else { return StatusCode::BAD_REQUEST };
    let frame = format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    ports.subscribers.lock().expect("no panic").retain(|subscriber| subscriber.send(frame.clone()).is_ok());
    ports.events.send(event).map_or(StatusCode::GONE, |()| StatusCode::ACCEPTED)
}

async fn answer(State(ports): State<Ports>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name: &str| headers[name].to_str().expect("text").to_owned();
    let status = text("rig-response-code").parse().expect("a number");
    let answer = (text("rig-correlation"), status, serde_json::from_slice(&body).expect("JSON"));
    ports.answers.send(answer).map_or(StatusCode::GONE, |()| StatusCode::ACCEPTED)
}

async fn subscribe(State(ports): State<Ports>) -> Body {
    let (sender, frames) = unbounded_channel();
    sender.send("data: {\"id\":\"1\",\"type\":\"rig.subscriptions_set\"}\n\n".to_owned()).expect("received below");
    ports.subscribers.lock().expect("no panic").push(sender);
    Body::from_stream(stream::unfold(frames, |mut frames| async {
        let frame = frames.recv().await?;
        Some((Ok::<_, io::Error>(frame), frames))
    }))
}

async fn define(State(ports): State<Ports>, method: Method, body: Bytes) -> StatusCode {
    if method != Method::POST && !ports.knows_the_api.load(Ordering::Relaxed) {
        return StatusCode::NOT_FOUND;
    }
    if method == Method::POST {
        ports.knows_the_api.store(true, Ordering::Relaxed);
        let definition = serde_json::from_slice(&body).expect("JSON");
        return ports.definitions.send(definition).map_or(StatusCode::GONE, |()| StatusCode::CREATED);
    }
    StatusCode::OK
}

impl Played {
    async fn start() -> Self {
        let ((to_events, events), (to_answers, answers)) = (unbounded_channel(), unbounded_channel());
        let (to_definitions, definitions) = unbounded_channel();
        let ports = Ports {
            events: to_events,
            answers: to_answers,
            definitions: to_definitions,
            subscribers: Arc::default(),
            has_failed: Arc::default(),
            knows_the_api: Arc::default(),
        };
        let router = Router::new()
            .route("/v3/messages", post(publish))
            .route("/v3/responses", post(answer))
            .route("/v3/apis", post(define))
            .route("/v3/apis/tickets", get(define).put(define))
            .route("/_rig/v1/connection/sse", get(subscribe))
            .route("/metrics", get(async || "tidegate_connections{transport=\"sse\"} 5\n"))
            .with_state(ports);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { address, events, answers, definitions }
    }

    /// A shop beside it that is open.
    async fn shop(&mut self) -> Shop {
        let shop = shop_beside(format!("http://{}", self.address).parse().expect("a URL"));
        soon(self.definitions.recv()).await;
        shop
    }

    /// Data of the next event of this type.
    async fn next(&mut self, event_type: &str) -> Value {
        loop {
            let event = soon(self.events.recv()).await;
            if event["type"] == event_type {
                return event["data"].clone();
            }
        }
    }

    /// Buys a seat as the gateway passes it on; the status at once, and the answer that comes later.
    async fn buy(&mut self, shop: &Shop, seat: &str, name: &str) -> (u16, Value) {
        let path = format!("/tickets/seats/{seat}/buy?correlation=call-of-{name}");
        let body = json!({ "buyer": format!("id-of-{name}"), "name": name }).to_string();
        let (status, _) = call(shop, Method::POST, &path, "application/json", &body).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        let (correlation, status, answer) = soon(self.answers.recv()).await;
        assert_eq!(correlation, format!("call-of-{name}"));
        (status, answer)
    }
}

async fn soon<T>(wanted: impl Future<Output = Option<T>>) -> T {
    tokio::time::timeout(Duration::from_secs(20), wanted).await.expect("it comes in time").expect("the gateway runs")
}

fn options(gateway: &Uri, listen: SocketAddr) -> DemoOptions {
    DemoOptions {
        listen,
        gateway_internal: gateway.clone(),
        gateway_inbound: gateway.clone(),
        host: "127.0.0.1".into(),
        buyers: 0,
        kafka: None,
        token_key: None,
    }
}

fn shop_beside(gateway: Uri) -> Shop {
    start(options(&gateway, (Ipv4Addr::LOCALHOST, 0).into())).expect("the shop starts")
}

/// Status and body of a call to the shop.
async fn call(shop: &Shop, method: Method, path: &str, content_type: &str, body: &str) -> (StatusCode, Value) {
    let stream = tokio::net::TcpStream::connect(shop.address()).await.expect("the shop listens");
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("the shop speaks HTTP");
    tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", content_type)
        .body(http_body_util::Full::new(Bytes::from(body.to_owned())))
        .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    let status = answer.status();
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_purchase_goes_through_all_services_although_the_gateway_fails_at_first() {
    let mut gateway = Played::start().await;
    let shop = gateway.shop().await;
    let (status, answer) = gateway.buy(&shop, "C13", "Mia").await;
    assert_eq!((status, answer), (200, json!({"seat": "C13", "price": 95, "sequence": 1, "left": 305})));
    let sold = gateway.next("com.tidegate.tickets.seat.sold").await;
    assert_eq!((&sold["seat"], &sold["buyer"]), (&json!("C13"), &json!("Mia")));
    let mail = gateway.next("com.tidegate.tickets.mail.sent").await;
    assert_eq!((&mail["seat"], &mail["buyer"]), (&json!("C13"), &json!("id-of-Mia")));

    let (status, answer) = gateway.buy(&shop, "C13", "Ben").await;
    assert_eq!((status, &answer["error"]), (409, &json!("Too late: row C seat 13 went to Mia.")));
    let (_, hall) = call(&shop, Method::GET, "/api/hall", "", "").await;
    assert_eq!(hall["sold"], json!([{"seat": "C13", "buyer": "Mia"}]));
}

#[tokio::test]
async fn who_has_too_little_left_is_refused_and_the_seat_is_free_for_the_next() {
    let mut gateway = Played::start().await;
    let shop = gateway.shop().await;
    for seat in ["A1", "A2", "A3", "A4"] {
        assert_eq!(gateway.buy(&shop, seat, "Mia").await.0, 200, "{seat}");
    }
    let (status, answer) = gateway.buy(&shop, "A5", "Mia").await;
    let error = "The payment was refused: Mia has €20 left, and the seat costs €95.";
    assert_eq!((status, answer), (402, json!({ "error": error })));
    assert_eq!(gateway.next("com.tidegate.tickets.seat.released").await["seat"], "A5");
    assert_eq!(gateway.buy(&shop, "A5", "Ben").await.0, 200);
}

#[tokio::test]
async fn the_figures_leave_out_the_services_own_event_streams() {
    let mut gateway = Played::start().await;
    let _shop = gateway.shop().await;
    let viewers = async {
        while gateway.next("com.tidegate.tickets.stats").await["viewers"] != 2 {}
        Some(())
    };
    soon(viewers).await;
}

#[tokio::test]
async fn the_desk_refuses_what_is_no_call_of_a_gateway_or_no_json() {
    let mut gateway = Played::start().await;
    let shop = gateway.shop().await;
    let path = "/tickets/seats/B6/buy?correlation=x";
    let huge = format!(r#"{{"buyer":"{}"}}"#, "x".repeat(5_000));
    for (path, content_type, body, expected) in [
        ("/tickets/seats/B6/buy", "application/json", "{}", StatusCode::BAD_REQUEST),
        (path, "application/json", "no JSON", StatusCode::BAD_REQUEST),
        (path, "application/json", huge.as_str(), StatusCode::PAYLOAD_TOO_LARGE),
        (path, "text/plain", "{}", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        let (status, answer) = call(&shop, Method::POST, path, content_type, body).await;
        assert_eq!(status, expected, "{path} {content_type} {body:.60}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{answer}");
    }
}

#[tokio::test]
async fn the_website_works_while_no_gateway_answers() {
    let shop = shop_beside(Uri::from_static("http://127.0.0.1:9"));
    let (_, config) = call(&shop, Method::GET, "/config.json", "", "").await;
    assert_eq!(config, json!({"gateway": "http://localhost:9"}));
    let (status, hall) = call(&shop, Method::GET, "/api/hall", "", "").await;
    assert_eq!((status, &hall["sold"]), (StatusCode::OK, &json!([])));
}

#[test]
fn a_port_that_is_taken_is_named_with_the_way_out() {
    let gateway = Uri::from_static("http://127.0.0.1:9");
    let shop = shop_beside(gateway.clone());
    let error = start(options(&gateway, shop.address())).expect_err("the port is taken").to_string();
    assert!(error.contains(&shop.address().to_string()) && error.contains("--port"), "{error}");
}
