//! The API proxy of one shard: requests that are for none of Tidegate's own calls.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use futures_channel::oneshot;
use http::StatusCode;
use http::request::Parts;
use hyper::body::Incoming;
use tidegate_reactive::correlation::CorrelationId;
use tidegate_reactive::pending::Pending;

use super::SharedWorld;
use super::service::{Answer, Caller, text, uncached};
use crate::proxy::outbound::CorrelatedAnswer;
use crate::proxy::table::ApiTable;
use crate::settings::ShardSettings;

/// What the proxy of a shard keeps.
pub(super) struct Proxy {
    /// The endpoints in force. A request clones the `Arc` and finishes under what it began with.
    pub(super) apis: RefCell<Arc<ApiTable>>,
    /// Requests that wait for a correlated answer.
    pub(super) pending: Rc<RefCell<Pending<oneshot::Sender<CorrelatedAnswer>>>>,
}

impl Proxy {
    pub(super) fn new(number: usize, settings: &ShardSettings, now_ms: u64) -> Self {
        let instance = settings.proxy.instance + number as u64;
        let pending = Pending::new(instance, settings.proxy.max_pending, now_ms);
        Self { apis: RefCell::default(), pending: Rc::new(RefCell::new(pending)) }
    }

    /// Brings an answer to the request that waits for it; false if none does.
    pub(super) fn settle(&self, id: CorrelationId, answer: CorrelatedAnswer) -> bool {
        let waiting = self.pending.borrow_mut().remove(id);
        waiting.is_some_and(|waiting| waiting.send(answer).is_ok())
    }

    /// Ends the waits that took too long: dropping the sender tells the request.
    pub(super) fn tick(&self, now_ms: u64) {
        self.pending.borrow_mut().expire(now_ms, |_, waiting| drop(waiting));
    }
}

/// Answers a request by the endpoint it means.
pub(super) async fn answer(_world: &SharedWorld, _caller: &Caller, _parts: &Parts, _body: Incoming) -> Answer {
    uncached(text(StatusCode::NOT_FOUND, r#"{"message":"Not Found"}"#))
}
