//! What becomes of connections when their session is blacklisted or their token expires.

use serde_json::json;

use crate::sessions_api::{blacklist, is_listed};
use crate::support::clients::{Client, TRANSPORTS, Transport, put_request, to_type};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::http2::Http2Connection;
use crate::support::jwt::{self, now_s, of_session, token};
use crate::support::kafka::{KAFKA_DEADLINE, gateway_on, shared_brokers, topic_name};
use crate::support::longpolling::LongPolling;
use crate::support::sse::EventStream;
use crate::support::websocket::WebSocketClient;
use crate::support::{wait_for, wait_up_to};

fn with_tokens(settings: &[(&str, &str)]) -> Gateway {
    Gateway::with(&[&[jwt::SETTING], settings].concat())
}

fn jwt_query(token: &str) -> String {
    format!("jwt={token}")
}

/// A session's cookies are forgotten by the gateway: the next call opens a new one, or is refused.
fn is_over(gateway: &Gateway, session: &LongPolling) -> bool {
    let response = gateway.call(session.request());
    assert_eq!(response.status, 200, "{response:?}");
    response.text() == "\"ok\""
}

#[test]
fn a_blacklisted_session_ends_its_connections_and_no_other() {
    let gateway = with_tokens(&[("SHARDS", "2"), ("LONG_POLLING_WAIT_MS", "200")]);
    let query = jwt_query(&of_session("thief"));
    let mut events = EventStream::open(&gateway, &query);
    let socket = WebSocketClient::open(&gateway, &query);
    let session = LongPolling::open(&gateway, &query);
    let http2 = Http2Connection::open(&gateway);
    let (_, mut multiplexed) = http2.event_stream(&query);
    let mut others: Vec<_> = TRANSPORTS
        .into_iter()
        .map(|transport| {
            let query =
                format!("{}&{}", jwt_query(&of_session("owner")), crate::support::clients::query(&to_type("a")));
            Client::with_query(&gateway, transport, &query)
        })
        .collect();
    multiplexed.next_event();
    blacklist(&gateway, "thief", 600);
    let names = [(); 3].map(|()| events.next_event().name);
    assert_eq!(names, ["rig.connection.create", "rig.subscriptions_set", "rig.session_killed"]);
    assert_eq!(events.next_item(), None, "the stream ends after it");
    let close = socket.wait_for_close();
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1000, "Session killed."));
    wait_for("the long-polling session's end", || is_over(&gateway, &session).then_some(()));
    while multiplexed.next_event().name != "rig.session_killed" {}
    assert_eq!(gateway.metrics().sum("tidegate_connections_killed_total"), 4.0);
    publish(&gateway, &event("a", "1", &json!(null)));
    for other in &mut others {
        other.expect_ids(&["1"]);
    }
}

#[test]
fn tokens_of_a_blacklisted_session_are_refused_until_its_time_is_over() {
    let gateway = with_tokens(&[]);
    let query = jwt_query(&of_session("s"));
    let anonymous = Client::of_type(&gateway, Transport::Sse, "a");
    let put = || {
        let request = put_request("sse", &anonymous.token, &to_type("a"));
        gateway.call(request.header("authorization", format!("Bearer {}", of_session("s")))).status
    };
    blacklist(&gateway, "s", 2);
    let connect = || LongPolling::opening_call(&gateway, &query).status;
    assert_eq!((connect(), put()), (400, 400));
    let close = WebSocketClient::open(&gateway, &query).wait_for_close();
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1000, "Bad request."));
    wait_for("the entry's end", || (!is_listed(&gateway, "s")).then_some(()));
    assert_eq!((connect(), put()), (200, 204));
}

#[test]
fn an_anonymous_connection_belongs_to_the_session_of_the_token_on_its_put() {
    let gateway = with_tokens(&[]);
    let mut client = Client::of_type(&gateway, Transport::Sse, "a");
    let request = put_request("sse", &client.token, &to_type("a"));
    let request = request.header("authorization", format!("Bearer {}", of_session("late")));
    assert_eq!(gateway.call(request).status, 204);
    assert_eq!(client.next()["type"], "rig.subscriptions_set");
    blacklist(&gateway, "late", 600);
    assert_eq!(client.next()["type"], "rig.session_killed");
    let gone = gateway.call(put_request("sse", &client.token, &to_type("a")));
    assert_eq!(gone.status, 410);
}

#[test]
fn a_session_is_found_where_the_setting_says_and_may_be_a_number() {
    let gateway = with_tokens(&[("JWT_SESSION_FIELD", "/user/id")]);
    let mut client =
        Client::with_query(&gateway, Transport::Sse, &jwt_query(&token(&json!({ "user": { "id": 4711 } }))));
    let _jti_means_nothing = Client::with_query(&gateway, Transport::Sse, &jwt_query(&of_session("4711")));
    blacklist(&gateway, "4711", 600);
    assert_eq!(client.next()["type"], "rig.session_killed");
    assert_eq!(gateway.metrics().sum("tidegate_connections_killed_total"), 1.0);
}

#[test]
fn an_odd_session_in_a_token_is_no_session_and_breaks_nothing() {
    let mut gateway = with_tokens(&[]);
    for jti in [json!(""), json!(null), json!(["a"]), json!({}), json!(true), json!(1.5), json!(7)] {
        let query = jwt_query(&token(&json!({ "jti": jti })));
        for transport in TRANSPORTS {
            let client = Client::with_query(&gateway, transport, &query);
            let request = put_request(transport.path(), &client.token, &to_type("a"));
            let bearer = format!("Bearer {}", token(&json!({ "jti": jti })));
            assert_eq!(gateway.call(request.header("authorization", bearer)).status, 204, "{jti} on {transport:?}");
        }
    }
    gateway.assert_alive();
}

#[test]
fn a_blacklist_call_on_one_node_ends_connections_on_another_and_a_restart_forgets_nothing() {
    let Some(brokers) = shared_brokers("sessions on two nodes") else { return };
    let topic = topic_name("sessions");
    let settings = [jwt::SETTING, ("SESSIONS_TOPIC", topic.as_str())];
    {
        let (first, second) = (gateway_on(brokers, "none", &settings), gateway_on(brokers, "none", &settings));
        let mut here = Client::with_query(&first, Transport::Sse, &jwt_query(&of_session("s")));
        let socket = WebSocketClient::open(&second, &jwt_query(&of_session("s")));
        let session = LongPolling::open(&second, &jwt_query(&of_session("s")));
        blacklist(&first, "s", 600);
        assert_eq!(here.next()["type"], "rig.session_killed");
        assert_eq!(socket.wait_for_close().reason.as_str(), "Session killed.");
        wait_up_to(KAFKA_DEADLINE, "the session on the other node", || is_over(&second, &session).then_some(()));
    }
    let again = gateway_on(brokers, "none", &settings);
    let refused = LongPolling::opening_call(&again, &jwt_query(&of_session("s")));
    assert_eq!(refused.status, 400, "from the first call on: {refused:?}");
}

#[test]
fn a_connection_ends_with_its_token_and_is_warned_before() {
    let gateway = with_tokens(&[("LONG_POLLING_WAIT_MS", "100")]);
    let expires_at = now_s() + 3;
    let query = jwt_query(&token(&json!({ "exp": expires_at })));
    let mut events = Client::with_query(&gateway, Transport::Sse, &query);
    let mut socket = WebSocketClient::open(&gateway, &query);
    let session = LongPolling::open(&gateway, &query);
    let warning = events.next();
    assert_eq!(
        (&warning["type"], &warning["data"]),
        (&json!("rig.token_expiring"), &json!({ "expires_at": expires_at }))
    );
    assert_eq!(events.next()["type"], "rig.token_expired");
    while !socket.next_text().contains("rig.token_expiring") {}
    let close = socket.wait_for_close();
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1008, "Token expired."));
    wait_for("the long-polling session's end", || is_over(&gateway, &session).then_some(()));
    assert!(now_s() >= expires_at);
    assert_eq!(gateway.metrics().sum("tidegate_connections_expired_total"), 3.0);
}

#[test]
fn a_fresh_token_on_the_put_renews_a_connection() {
    let gateway = with_tokens(&[]);
    let query = jwt_query(&token(&json!({ "exp": now_s() + 4 })));
    let mut renewed = Client::with_query(&gateway, Transport::Sse, &query);
    let mut left_alone = Client::with_query(&gateway, Transport::Sse, &query);
    assert_eq!(renewed.next()["type"], "rig.token_expiring");
    let put = put_request("sse", &renewed.token, &to_type("a"));
    assert_eq!(gateway.call(put.header("authorization", format!("Bearer {}", token(&json!({}))))).status, 204);
    assert_eq!(renewed.next()["type"], "rig.subscriptions_set");
    assert_eq!(left_alone.next()["type"], "rig.token_expiring");
    assert_eq!(left_alone.next()["type"], "rig.token_expired", "the first token is over");
    publish(&gateway, &event("a", "1", &json!(null)));
    renewed.expect_ids(&["1"]);
}

#[test]
fn a_connection_outlives_its_token_where_the_setting_says_so() {
    let gateway = with_tokens(&[("END_AT_TOKEN_EXPIRY", "false")]);
    let expires_at = now_s() + 2;
    let query = format!(
        "{}&{}",
        jwt_query(&token(&json!({ "exp": expires_at }))),
        crate::support::clients::query(&to_type("a"))
    );
    let mut client = Client::with_query(&gateway, Transport::Sse, &query);
    let refused = || LongPolling::opening_call(&gateway, &query).status == 400;
    wait_for("the token to be refused", || refused().then_some(()));
    publish(&gateway, &event("a", "1", &json!(null)));
    client.expect_ids(&["1"]);
}
