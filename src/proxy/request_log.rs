//! `REQUEST_LOG`: a line on standard output, and an event in Kafka, for every call that matched an endpoint and was let in.
//! Shards hand calls to a thread of its own; when that can't keep up, calls are left out and counted.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate_shards::clock;
use tidegate_shards::proxy::endpoint::{Endpoint, Target};
use tidegate_shards::proxy::outbound::{RequestLog, RequestMessage, RequestSink};
use tidegate_shards::submit::{SubmitAnswer, SubmitError};
use tidegate_shards::trace;
use uuid::Uuid;

use crate::ingress::limiter::Limiter;
use crate::logging::Format;

/// Calls that may wait to be logged.
const MAX_WAITING: usize = 8_192;
/// Key of the events, as RIG sets it.
const KEY: &str = "partition";
/// Type of the events.
const EVENT_TYPE: &str = "com.rig.proxy.api.call";
/// Content type of their data in Avro.
const AVRO: &str = "avro/binary";

/// Where calls are logged.
pub struct LogSinks {
    /// Standard output, in this format.
    pub console: Option<Format>,
    /// A Kafka topic.
    pub kafka: Option<KafkaLog>,
}

/// The topic of the log.
pub struct KafkaLog {
    /// Who writes to it.
    pub sink: Arc<dyn RequestSink>,
    /// Its name.
    pub topic: String,
    /// Subject of its Avro schema; `None` writes JSON.
    pub schema: Option<String>,
    /// Events that Kafka hasn't acknowledged yet, the oldest first.
    pub unsettled: VecDeque<SubmitAnswer>,
}

/// The log; its thread ends with it.
#[derive(Debug)]
pub struct CallLog {
    calls: SyncSender<Call>,
    left_out: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Call {
    endpoint: Arc<Endpoint>,
    request_path: String,
    remote_ip: String,
}

impl CallLog {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn start(sinks: LogSinks) -> io::Result<Self> {
        let (calls, received) = sync_channel(MAX_WAITING);
        let left_out = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&left_out);
        thread::Builder::new().name("request-log".to_owned()).spawn(move || write_all(&received, sinks, &counter))?;
        Ok(Self { calls, left_out })
    }
}

impl RequestLog for CallLog {
    fn call(&self, endpoint: &Arc<Endpoint>, request_path: &str, remote_ip: &str) {
        let (endpoint, request_path, remote_ip) = (Arc::clone(endpoint), request_path.to_owned(), remote_ip.to_owned());
        if self.calls.try_send(Call { endpoint, request_path, remote_ip }).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_all(calls: &Receiver<Call>, mut sinks: LogSinks, left_out: &AtomicU64) {
    let mut limiter = Limiter::new(clock::now_ms());
    while let Ok(call) = calls.recv() {
        if let Some(format) = sinks.console {
            // Nobody reads standard output any more: there is no better place to say so.
            let _ = writeln!(io::stdout(), "{}", format.summary(&line(&call.endpoint)));
        }
        if let Some(kafka) = &mut sinks.kafka
            && let Some(error) = kafka.write(&call)
            && let Some(held_back) = limiter.permit(clock::now_ms())
        {
            tracing::warn!(topic = kafka.topic, %error, held_back, "a call is missing in the request log");
        }
        let missing = left_out.swap(0, Ordering::Relaxed);
        if missing > 0 {
            tracing::warn!(missing, "calls were left out of the request log, which can't keep up");
        }
    }
}

/// RIG's line.
fn line(endpoint: &Endpoint) -> String {
    let target = match &endpoint.target {
        Target::Http(backend) => {
            let scheme = if backend.tls { "https" } else { "http" };
            format!("{scheme}://{}:{}", backend.host, backend.port)
        }
        Target::Kafka(target) => format!("kafka:{}", target.topic),
    };
    format!("CALL: [{}] {} {} => {target}", endpoint.id, endpoint.method, endpoint.path_regex)
}

impl KafkaLog {
    /// Writes one call; returns what has become of those before, if it was a failure. The sink counts them.
    fn write(&mut self, call: &Call) -> Option<SubmitError> {
        self.unsettled.push_back(self.sink.produce(self.message(call)));
        let mut failure = None;
        while let Some(oldest) = self.unsettled.front_mut() {
            match oldest.try_recv() {
                Ok(None) if self.unsettled.len() <= MAX_WAITING => break,
                Ok(Some(Err(error))) => failure = Some(error),
                _ => {}
            }
            self.unsettled.pop_front();
        }
        failure
    }

    fn message(&self, call: &Call) -> RequestMessage {
        let (topic, key) = (self.topic.as_str().into(), Some(KEY.into()));
        match &self.schema {
            None => {
                let value = event(call, "application/json").to_string().into();
                let headers = vec![("ce_contenttype".into(), Bytes::from_static(b"application/json"))];
                RequestMessage { topic, key, value, schema: None, headers }
            }
            Some(schema) => {
                let mut event = event(call, AVRO);
                let data = event.as_object_mut().and_then(|event| event.remove("data")).unwrap_or_default();
                let attributes = event.as_object().into_iter().flatten();
                let attributes = attributes.filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())));
                let mut headers: Vec<(Box<str>, Bytes)> =
                    attributes.map(|(name, value)| (format!("ce_{name}").into(), value.into())).collect();
                headers.push(("content-type".into(), Bytes::from_static(AVRO.as_bytes())));
                let schema = Some(schema.as_str().into());
                RequestMessage { topic, key, value: data.to_string().into(), schema, headers }
            }
        }
    }
}

/// RIG's event.
fn event(call: &Call, content_type: &str) -> Value {
    json!({
        "contenttype": content_type,
        "data": {
            "endpoint": call.endpoint.definition,
            "remote_ip": call.remote_ip,
            "request_path": call.request_path,
        },
        "id": Uuid::new_v4().to_string(),
        "source": "/rig",
        "specversion": "0.2",
        "time": Timestamp::now().to_string(),
        "traceparent": trace::continue_trace(None),
        "type": EVENT_TYPE,
    })
}
