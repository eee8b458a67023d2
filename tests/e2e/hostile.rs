//! Clients that come and go in masses, never read, or reset: issue, "Bad input".

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::clients::{Client, TRANSPORTS, Transport, put_request, query, to_type};
use crate::support::events::{accepted, batch, event, publish};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::wait_for;
use crate::support::websocket_frames::{Frame, PING, PONG, RawWebSocket, TEXT, upgrade};

const UNLIMITED: (&str, &str) = ("MAX_CONNECTIONS_PER_MINUTE", "1000000");

/// Settings for queues of this many bytes; the largest event must fit into one.
fn queue_of(bytes: &str) -> [(&str, &str); 3] {
    [("MAX_QUEUE_BYTES", bytes), ("MAX_EVENT_BYTES", "450000"), ("MAX_BODY_BYTES", "450000")]
}

/// Open long-lived connections and calls at the moment.
fn open_connections(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("tidegate_connections")
}

#[test]
fn a_thousand_connections_that_come_and_go_leave_nothing_behind() {
    let mut gateway = Gateway::with(&[UNLIMITED, ("SHARDS", "2")]);
    let mut bystander = Client::of_type(&gateway, Transport::WebSocket, "greeting");
    let target = query(&to_type("greeting"));
    for round in 0..1_000 {
        let mut connection = Connection::open(gateway.inbound());
        let request = match round % 4 {
            0 => Request::get(&format!("/_rig/v1/connection/sse?{target}")),
            1 => upgrade(&format!("/_rig/v1/connection/ws?{target}")),
            2 => Request::get("/_rig/health"),
            _ => Request::get("/nothing"),
        };
        connection.send(request.to_bytes());
        let status = connection.head().status;
        assert_eq!(status, [200, 101, 200, 404][round % 4], "round {round}");
        if round % 3 == 0 {
            connection.reset();
        }
    }
    publish(&gateway, &event("greeting", "1", &json!(null)));
    bystander.expect_ids(&["1"]);
    // The scrape itself comes to the internal port, which isn't counted here.
    wait_for("only the bystander to be left", || (open_connections(&gateway) == 1.0).then_some(()));
    wait_for("its subscription to be the only one", || {
        (gateway.metrics().sum("rig_subscriptions_total") == 1.0).then_some(())
    });
    gateway.assert_alive();
}

#[test]
fn a_client_may_reset_at_each_point_of_its_life() {
    let mut gateway = Gateway::start();
    let mut bystander = Client::of_type(&gateway, Transport::Sse, "greeting");
    let token = bystander.token.clone();
    let body = event("greeting", "cut", &json!(null)).to_string();
    let subscribe = query(&to_type("greeting"));
    let lives: Vec<Vec<u8>> = vec![
        Request::get(&format!("/_rig/v1/connection/sse?{subscribe}")).to_bytes(),
        [upgrade(&format!("/_rig/v1/connection/ws?{subscribe}")).to_bytes(), Frame::new(TEXT, b"x").to_bytes()].concat(),
        [upgrade("/_rig/v1/connection/ws").to_bytes(), Frame::new(PING, b"x").to_bytes()].concat(),
        Request::get("/_rig/v1/connection/longpolling").to_bytes(),
        put_request("sse", &token, &to_type("greeting")).to_bytes(),
        format!(
            "POST /_rig/v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len() + 1
        )
        .into_bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
    ];
    for life in &lives {
        for end in (0..=life.len()).step_by(7).chain([life.len()]) {
            let mut connection = Connection::open(gateway.inbound());
            connection.try_send(&life[..end]);
            connection.reset();
        }
    }
    publish(&gateway, &event("greeting", "whole", &json!(null)));
    assert_eq!(bystander.next_published_id(), "whole");
    wait_for("only the bystander to be left", || {
        let metrics = gateway.metrics();
        let open = ["sse", "ws"].map(|t| metrics.sum_where("tidegate_connections", &[("transport", t)]));
        (open == [1.0, 0.0]).then_some(())
    });
    assert_eq!(gateway.metrics().sum("tidegate_panics_total"), 0.0);
    gateway.assert_alive();
}

#[test]
fn a_reset_amid_events_touches_no_other_client() {
    let mut gateway = Gateway::start();
    let mut bystanders = TRANSPORTS.map(|transport| Client::of_type(&gateway, transport, "greeting"));
    let target = query(&to_type("greeting"));
    for number in 0..30 {
        let mut connection = Connection::open(gateway.inbound());
        let request = if number % 2 == 0 {
            Request::get(&format!("/_rig/v1/connection/sse?{target}"))
        } else {
            upgrade(&format!("/_rig/v1/connection/ws?{target}"))
        };
        connection.send(request.to_bytes());
        connection.head();
        let id = number.to_string();
        publish(&gateway, &event("greeting", &id, &json!("x".repeat(10_000))));
        connection.reset();
        for bystander in &mut bystanders {
            bystander.expect_ids(&[&id]);
        }
    }
    gateway.assert_alive();
}

/// Publishes batches of large events until the metric of slow connections says that one was cut off.
fn flood_until_slow(gateway: &Gateway, others: &mut [Client<'_>]) {
    let data = Value::from("x".repeat(20_000));
    let mut number = 0_u32;
    wait_for("the slow client to be disconnected", || {
        let ids: Vec<_> = (0..20).map(|offset| (number + offset).to_string()).collect();
        number += 20;
        let events: Vec<_> = ids.iter().map(|id| event("flood", id, &data)).collect();
        accepted(gateway, batch(json!(events).to_string()));
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        for other in others.iter_mut() {
            other.expect_ids(&ids);
        }
        (gateway.metrics().sum("tidegate_connections_slow_total") >= 1.0).then_some(())
    });
}

#[test]
fn a_client_that_never_reads_is_disconnected_and_others_are_unaffected() {
    let target = |transport: &str| format!("/_rig/v1/connection/{transport}?{}", query(&to_type("flood")));
    let with_a_body = Request::get(&target("sse")).header("transfer-encoding", "chunked").body("0\r\n\r\n");
    for (transport, request) in
        [("sse", Request::get(&target("sse"))), ("sse", with_a_body), ("ws", upgrade(&target("ws")))]
    {
        let mut gateway = Gateway::with(&queue_of("1000000"));
        let mut others = TRANSPORTS.map(|transport| Client::of_type(&gateway, transport, "flood"));
        let mut slow = Connection::open(gateway.inbound());
        slow.send(request.to_bytes());
        slow.head();

        flood_until_slow(&gateway, &mut others);
        wait_for("its connection to be gone", || {
            let metrics = gateway.metrics();
            let open = metrics.sum_where("tidegate_connections", &[("transport", transport)]);
            (open == 1.0).then_some(())
        });
        slow.until_end();
        publish(&gateway, &event("flood", "after", &json!(null)));
        for other in &mut others {
            other.expect_ids(&["after"]);
        }
        wait_for("the queues to be empty", || (gateway.metrics().sum("tidegate_queue_bytes") == 0.0).then_some(()));
        gateway.assert_alive();
    }
}

#[test]
fn an_http_2_client_that_never_reads_is_disconnected_too() {
    let mut gateway = Gateway::with(&queue_of("500000"));
    let mut others = [Client::of_type(&gateway, Transport::Sse, "flood")];
    let connection = crate::support::http2::Http2Connection::open(&gateway);
    let (head, stream) = connection.event_stream(&query(&to_type("flood")));
    assert_eq!(head.status(), 200);
    flood_until_slow(&gateway, &mut others);
    wait_for("its stream and what waits for it to be gone", || {
        let metrics = gateway.metrics();
        let open = metrics.sum_where("tidegate_connections", &[("transport", "sse")]);
        ((open, metrics.sum("tidegate_queue_bytes")) == (1.0, 0.0)).then_some(())
    });
    drop(stream);
    gateway.assert_alive();
}

/// A socket that ends when the test does, whatever comes of it: who reads or writes it goes on.
struct Ended(TcpStream);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

#[test]
fn floods_of_pings_whose_pongs_are_read_hold_nobody_up() {
    // Whoever reads here may fall behind, and is not to be disconnected for it.
    let mut gateway = Gateway::with(&[("MAX_QUEUE_BYTES", "200000000")]);
    let mut bystander = Client::of_type(&gateway, Transport::WebSocket, "greeting");
    let pings = Frame::new(PING, b"").to_bytes().repeat(50_000);
    thread::scope(|scope| {
        let _floods = [(); 8].map(|()| {
            let mut connection = Connection::open(gateway.inbound());
            connection.send(upgrade("/_rig/v1/connection/ws").to_bytes());
            connection.head();
            let (socket, _greeting) = connection.into_parts();
            let [mut reader, mut writer] = [(); 2].map(|()| socket.try_clone().expect("a descriptor"));
            let pings = &pings;
            scope.spawn(move || while writer.write_all(pings).is_ok() {});
            scope.spawn(move || while reader.read(&mut [0; 256 * 1024]).is_ok_and(|length| length > 0) {});
            Ended(socket)
        });
        for id in ["1", "2", "3", "4", "5"] {
            publish(&gateway, &event("greeting", id, &json!(null)));
            bystander.expect_ids(&[id]);
        }
    });
    gateway.assert_alive();
}

#[test]
fn pings_that_come_together_are_all_answered_in_order_and_together() {
    const PINGS: usize = 1_000;
    let gateway = Gateway::start();
    let mut socket = RawWebSocket::open(&gateway, "");
    socket.next_of(TEXT);
    socket.next_of(TEXT);
    let before = gateway.metrics().sum("tidegate_sends_total");
    let pings: Vec<u8> = (0..PINGS).flat_map(|number| Frame::new(PING, number.to_string()).to_bytes()).collect();
    socket.send_bytes(&pings);
    for number in 0..PINGS {
        assert_eq!(socket.next_of(PONG).payload, number.to_string().into_bytes());
    }
    let sends = gateway.metrics().sum("tidegate_sends_total") - before;
    assert!(sends <= PINGS as f64 / 10.0, "{sends} sends for {PINGS} pongs");
}

#[test]
fn pings_without_reading_their_pongs_are_bounded() {
    let mut gateway = Gateway::with(&queue_of("450000"));
    let mut bystander = Client::of_type(&gateway, Transport::WebSocket, "greeting");
    let mut connection = Connection::open(gateway.inbound());
    connection.send(upgrade("/_rig/v1/connection/ws").to_bytes());
    connection.head();
    let pings = Frame::new(PING, [b'x'; 125]).to_bytes().repeat(1_000);
    let start = Instant::now();
    // The gateway either stops reading, or ends the connection; both bound what it keeps.
    while connection.try_send(&pings) && start.elapsed() < Duration::from_secs(5) {
        let waiting = gateway.metrics().sum("tidegate_queue_bytes");
        assert!(waiting <= 1_000_000.0, "{waiting} bytes wait for a client that reads none");
    }
    publish(&gateway, &event("greeting", "1", &json!(null)));
    bystander.expect_ids(&["1"]);
    gateway.assert_alive();
}

#[test]
fn a_burst_to_many_clients_arrives_whole_and_in_order() {
    let gateway = Gateway::with(&[UNLIMITED, ("SHARDS", "2")]);
    let mut clients: Vec<_> =
        (0..60).map(|number| Client::of_type(&gateway, TRANSPORTS[number % 2], "greeting")).collect();
    let ids: Vec<_> = (0..500).map(|number| number.to_string()).collect();
    for chunk in ids.chunks(50) {
        let events: Vec<_> = chunk.iter().map(|id| event("greeting", id, &json!("x".repeat(200)))).collect();
        accepted(&gateway, batch(json!(events).to_string()));
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    for client in &mut clients {
        client.expect_ids(&ids);
    }
}

#[test]
fn the_process_keeps_no_file_open_for_connections_that_are_gone() {
    let gateway = Gateway::with(&[UNLIMITED]);
    let files = || std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("Linux").count();
    let before = files();
    for _ in 0..200 {
        let mut connection = Connection::open(gateway.inbound());
        connection.send(Request::get("/_rig/v1/connection/sse").to_bytes());
        connection.head();
    }
    wait_for("the descriptors to be closed", || (files() <= before + 2).then_some(()));
}
