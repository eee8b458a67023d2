//! From the blacklist call on one node to the last closed connection on three.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;
use xtask::report::{Bound, Finding, Unit};

use super::context::Context;
use super::error::FigureError;
use super::gateway::{Gateway, connect};

const NODES: usize = 3;
const SECRET: &str = "the figures' own secret, nobody else's";
/// Life of the tokens and of the entries, in seconds.
const VALIDITY_S: u64 = 3_600;

pub(super) fn closing(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let (rounds, per_node) = (context.pick(50, 5), context.pick(300, 20));
    let mut finding = Finding::new(
        "blacklist",
        &format!(
            "POST /v3/session-blacklist on one of 3 nodes to the end of the last of the session's {per_node} event streams on \
             each, through Kafka: slowest of {rounds} calls"
        ),
        Bound::Below(1_000_000.0),
        Unit::Microseconds,
    );
    let (brokers, sessions) = (context.kafka()?.brokers().to_owned(), context.new_topic("sessions"));
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(start(context, &brokers, &sessions)?);
    }
    let mut took_us = Vec::new();
    for round in 0..rounds {
        let session = format!("round {round}");
        let token = token(&session)?;
        let mut streams = Vec::new();
        for _ in 0..per_node {
            for node in &nodes {
                streams.push(open(node, &token)?);
            }
        }
        let began = Instant::now();
        blacklist(&nodes[round % NODES], &session)?;
        let called_us = micros(began);
        for stream in &mut streams {
            end_of(stream)?;
        }
        took_us.push((micros(began), called_us));
    }
    took_us.sort_unstable();
    let (slowest_us, _) = took_us.last().copied().unwrap_or_default();
    let (median_us, called_us) = took_us[took_us.len() / 2];
    finding.values.push(slowest_us as f64);
    finding.details.push(format!("median {median_us} µs, of which the call itself took {called_us}"));
    Ok(vec![finding])
}

fn start(context: &Context, brokers: &str, sessions: &str) -> Result<Gateway, FigureError> {
    let settings = [
        ("KAFKA_BROKERS", brokers.to_owned()),
        ("KAFKA_SOURCE_TOPICS", context.new_topic("unused")),
        ("SESSIONS_TOPIC", sessions.to_owned()),
        ("JWT_SECRET_KEY", SECRET.to_owned()),
    ];
    Gateway::start(context, &settings)
}

/// An event stream that stands: its subscriptions are in force.
fn open(gateway: &Gateway, token: &str) -> Result<TcpStream, FigureError> {
    let mut stream = connect(&gateway.inbound)?;
    let head = format!("GET /_rig/v1/connection/sse?jwt={token} HTTP/1.1\r\nhost: figures\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(FigureError::system("asking for an event stream"))?;
    let mut seen = Vec::new();
    let mut buffer = [0; 4_096];
    while !seen.windows(b"rig.subscriptions_set".len()).any(|bytes| bytes == b"rig.subscriptions_set") {
        match stream.read(&mut buffer).map_err(FigureError::system("waiting for an event stream"))? {
            0 => return Err(FigureError::Invalid("an event stream was refused".to_owned())),
            received => seen.extend_from_slice(&buffer[..received]),
        }
    }
    Ok(stream)
}

fn blacklist(gateway: &Gateway, session: &str) -> Result<(), FigureError> {
    let body = json!({ "sessionId": session, "validityInSeconds": VALIDITY_S }).to_string();
    let answer = gateway.call("POST /v3/session-blacklist HTTP/1.1\r\ncontent-type: application/json\r\n", &body)?;
    if answer.starts_with("HTTP/1.1 201") {
        return Ok(());
    }
    let refusal = answer.lines().next().unwrap_or_default();
    Err(FigureError::Invalid(format!("the blacklist call was refused: {refusal}")))
}

/// Reads to the end, and closes.
fn end_of(stream: &mut TcpStream) -> Result<(), FigureError> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).map_err(FigureError::system("waiting for the end of an event stream"))?;
    if String::from_utf8_lossy(&rest).contains("rig.session_killed") {
        return Ok(());
    }
    Err(FigureError::Invalid("an event stream ended for another reason".to_owned()))
}

/// A token of this session (RFC 7515).
fn token(session: &str) -> Result<String, FigureError> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let claims = json!({ "jti": session, "exp": now_s + VALIDITY_S }).to_string();
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(claims));
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes());
    let mac = mac.map_err(|error| FigureError::Invalid(format!("no token can be signed: {error}")))?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.chain_update(&text).finalize().into_bytes())))
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
