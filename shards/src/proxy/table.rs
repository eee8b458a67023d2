//! The endpoints in force, and how a request finds its own.

use std::sync::Arc;

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
}
