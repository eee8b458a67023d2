//! The whole shop over real sockets, against a gateway that is played by a few lines of axum.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;

/// What the shop publishes, in order of arrival.
struct Gateway {
    address: SocketAddr,
    events: UnboundedReceiver<Value>,
}

#[derive(Clone)]
struct Listener {
    events: UnboundedSender<Value>,
    /// The first call fails, as while a gateway restarts.
    has_failed: Arc<AtomicBool>,
}

async fn take(State(listener): State<Listener>, body: Bytes) -> StatusCode {
    if !listener.has_failed.swap(true, Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    match serde_json::from_slice(&body).map(|event| listener.events.send(event)) {
        Ok(Ok(())) => StatusCode::ACCEPTED,
        _ => StatusCode::BAD_REQUEST,
    }
}

impl Gateway {
    async fn start() -> Self {
        let (sender, events) = unbounded_channel();
        let router = Router::new()
            .route("/v3/messages", post(take))
            .route("/metrics", get(async || "tidegate_connections{transport=\"sse\"} 2\n"))
            .with_state(Listener { events: sender, has_failed: Arc::default() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { address, events }
    }

    fn url(&self) -> Uri {
        format!("http://{}", self.address).parse().expect("a URL")
    }

    /// Data of the next event of this type.
    async fn next(&mut self, event_type: &str) -> Value {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(20), self.events.recv()).await;
            let event = event.expect("an event arrives in time").expect("the gateway runs");
            if event["type"] == event_type {
                return event["data"].clone();
            }
        }
    }
}

fn shop_beside(gateway: Uri) -> Shop {
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    start(DemoOptions { listen, gateway_internal: gateway.clone(), gateway_inbound: gateway, buyers: 0 })
        .expect("the shop starts")
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

async fn buy(shop: &Shop, seat: &str, body: &str) -> (StatusCode, Value) {
    call(shop, Method::POST, &format!("/api/seats/{seat}/buy"), "application/json", body).await
}

#[tokio::test]
async fn sales_are_published_in_order_although_the_gateway_fails_at_first() {
    let mut gateway = Gateway::start().await;
    let shop = shop_beside(gateway.url());
    for (seat, sequence) in [("A1", 1), ("A2", 2), ("A3", 3)] {
        let (status, answer) = buy(&shop, seat, r#"{"buyer":"Mia"}"#).await;
        assert_eq!((status, answer), (StatusCode::OK, json!({"seat": seat, "price": 95, "sequence": sequence})));
    }
    for seat in ["A1", "A2", "A3"] {
        assert_eq!(gateway.next("com.tidegate.tickets.seat.sold").await["seat"], seat);
    }
    let stats = gateway.next("com.tidegate.tickets.stats").await;
    assert_eq!(stats, json!({"viewers": 2, "sold": 3, "seats": 300, "sequence": 3}));
}

#[tokio::test]
async fn a_refused_purchase_says_why() {
    let gateway = Gateway::start().await;
    let shop = shop_beside(gateway.url());
    buy(&shop, "B5", r#"{"buyer":"Mia"}"#).await;
    let taken = json!({"error": "Too late: row B seat 5 went to Mia.", "buyer": "Mia"});
    assert_eq!(buy(&shop, "B5", r#"{"buyer":"Ben"}"#).await, (StatusCode::CONFLICT, taken));

    let long = format!(r#"{{"buyer":"{}"}}"#, "x".repeat(41));
    let huge = format!(r#"{{"buyer":"{}"}}"#, "x".repeat(5_000));
    for (seat, body, expected) in [
        ("Z1", r#"{"buyer":"Ben"}"#, StatusCode::NOT_FOUND),
        ("B99", r#"{"buyer":"Ben"}"#, StatusCode::NOT_FOUND),
        ("B6", r#"{"buyer":"  "}"#, StatusCode::BAD_REQUEST),
        ("B6", r#"{"buyer":"a\u0007b"}"#, StatusCode::BAD_REQUEST),
        ("B6", long.as_str(), StatusCode::BAD_REQUEST),
        ("B6", huge.as_str(), StatusCode::PAYLOAD_TOO_LARGE),
        ("B6", r#"{"name":"Ben"}"#, StatusCode::UNPROCESSABLE_ENTITY),
        ("B6", "no JSON", StatusCode::BAD_REQUEST),
    ] {
        let (status, answer) = buy(&shop, seat, body).await;
        assert_eq!(status, expected, "{seat} {body:.60}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{answer}");
    }
    let (status, _) = call(&shop, Method::POST, "/api/seats/B6/buy", "text/plain", r#"{"buyer":"Ben"}"#).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "other sites' forms cannot buy");
    let (_, hall) = call(&shop, Method::GET, "/api/hall", "", "").await;
    assert_eq!(hall["sold"], json!([{"seat": "B5", "buyer": "Mia"}]), "nothing else was sold");
}

#[tokio::test]
async fn the_shop_sells_while_no_gateway_answers() {
    let nobody = Uri::from_static("http://127.0.0.1:9");
    let shop = shop_beside(nobody);
    let (status, _) = buy(&shop, "T18", r#"{"buyer":"Mia"}"#).await;
    assert_eq!(status, StatusCode::OK);
    let (_, config) = call(&shop, Method::GET, "/config.json", "", "").await;
    assert_eq!(config, json!({"gateway": "http://localhost:9"}));
}

#[test]
fn a_port_that_is_taken_is_named_with_the_way_out() {
    let shop = shop_beside(Uri::from_static("http://127.0.0.1:9"));
    let options = DemoOptions {
        listen: shop.address(),
        gateway_internal: Uri::from_static("http://127.0.0.1:9"),
        gateway_inbound: Uri::from_static("http://127.0.0.1:9"),
        buyers: 0,
    };
    let error = start(options).expect_err("the port is taken").to_string();
    assert!(error.contains(&shop.address().to_string()) && error.contains("--port"), "{error}");
}
