//! The texts that long-polling sessions keep, counted once each however many sessions keep them.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use crate::metrics::ShardMetrics;

/// An event's JSON text. Its bytes are in [`ShardMetrics::session_bytes`] until the last session has forgotten it.
#[derive(Debug)]
pub struct StoredText {
    text: Box<str>,
    metrics: Arc<ShardMetrics>,
}

impl StoredText {
    /// Counts the text in `metrics`.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>, metrics: &Arc<ShardMetrics>) -> Rc<Self> {
        let text = text.into();
        metrics.session_bytes.add(text.len() as u64);
        Rc::new(Self { text, metrics: Arc::clone(metrics) })
    }
}

impl Deref for StoredText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl Drop for StoredText {
    fn drop(&mut self) {
        self.metrics.session_bytes.subtract(self.text.len() as u64);
    }
}
