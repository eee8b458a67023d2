//! `REQUEST_LOG`: a line on standard output, and an event in Kafka, for every call that matched an endpoint and was let in.
//! Shards hand calls to a thread of its own; when that can't keep up, calls are left out and counted.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate_shards::proxy::endpoint::{Endpoint, Target};
use tidegate_shards::proxy::outbound::{RequestLog, RequestMessage, RequestSink};
use tidegate_shards::trace;
use uuid::Uuid;

use crate::logging::Format;

/// Calls that may wait to be logged.
const MAX_WAITING: usize = 8_192;
/// Key of the events, as RIG sets it.
const KEY: &str = "partition";
/// Type of the events.
const EVENT_TYPE: &str = "com.rig.proxy.api.call";

/// Where calls are logged.
pub struct LogSinks {
    /// Standard output, in this format.
    pub console: Option<Format>,
    /// A Kafka topic.
    pub kafka: Option<(Arc<dyn RequestSink>, String)>,
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
        thread::Builder::new().name("request-log".to_owned()).spawn(move || write_all(&received, &sinks, &counter))?;
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

fn write_all(calls: &Receiver<Call>, sinks: &LogSinks, left_out: &AtomicU64) {
    while let Ok(call) = calls.recv() {
        if let Some(format) = sinks.console {
            // Nobody reads standard output any more: there is no better place to say so.
            let _ = writeln!(io::stdout(), "{}", format.summary(&line(&call.endpoint)));
        }
        if let Some((sink, topic)) = &sinks.kafka {
            let value = Bytes::from(event(&call).to_string());
            let headers = vec![("ce_contenttype".into(), Bytes::from_static(b"application/json"))];
            let message = RequestMessage { topic: topic.as_str().into(), key: Some(KEY.into()), value, headers };
            // What becomes of it is counted by the sink.
            drop(sink.produce(message));
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

/// RIG's event.
fn event(call: &Call) -> Value {
    json!({
        "contenttype": "application/json",
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
