//! `rig_proxy_requests_total` (contract, section 6): one set of counters per endpoint's labels, in it one per shard and
//! outcome. A shard writes its own alone; they outlive changes of definitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;

use super::endpoint::Endpoint;
use crate::metrics::Cell;

/// Different label sets at most; what comes beyond shares one with the path `other`.
const MAX_SERIES: usize = 10_000;

/// Label of what has no endpoint.
const NOT_AVAILABLE: &str = "N/A";

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered; whatever a backend or service answers counts as this.
    Ok,
    /// The request itself was refused.
    BadRequest,
    /// There is no endpoint for it.
    NotFound,
    /// Backend or Kafka can't be reached, or what came from there was broken.
    Unreachable,
    /// The backend didn't begin its answer in time.
    RequestTimeout,
    /// The correlated answer didn't come in time.
    ResponseTimeout,
}

impl Outcome {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 6] =
        [Self::Ok, Self::BadRequest, Self::NotFound, Self::Unreachable, Self::RequestTimeout, Self::ResponseTimeout];

    /// Value of the `status` label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::BadRequest => "bad_request",
            Self::NotFound => "not_found",
            Self::Unreachable => "unreachable",
            Self::RequestTimeout => "request_timeout",
            Self::ResponseTimeout => "response_timeout",
        }
    }
}

/// Values of the labels `method`, `path`, `target` and `response_from`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    /// Method of the endpoint; of the request where nothing matched.
    pub method: Box<str>,
    /// `path_regex` of the endpoint.
    pub path: Box<str>,
    /// Its target.
    pub target: &'static str,
    /// Where its answers come from.
    pub response_from: &'static str,
}

/// Counters of one label set.
#[derive(Debug)]
pub struct RequestCounts {
    shards: Box<[ShardCounts]>,
}

/// One shard's own, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct ShardCounts([Cell; Outcome::ALL.len()]);

impl RequestCounts {
    fn new(shards: usize) -> Self {
        Self { shards: (0..shards).map(|_| ShardCounts::default()).collect() }
    }

    /// Counts one request; only shard number `shard` may call this with its number.
    pub fn add(&self, shard: usize, outcome: Outcome) {
        if let Some(counts) = self.shards.get(shard) {
            counts.0[outcome as usize].add(1);
        }
    }

    /// Requests with this outcome on all shards.
    #[must_use]
    pub fn total(&self, outcome: Outcome) -> u64 {
        self.shards.iter().map(|counts| counts.0[outcome as usize].get()).sum()
    }
}

/// Counters of requests without endpoint, by method.
pub type Unmatched = Arc<[(Method, Arc<RequestCounts>)]>;

/// The counters of a node. Kept by whoever builds tables; shards only see their [`RequestCounts`].
#[derive(Debug)]
pub struct RequestCounters {
    shards: usize,
    series: BTreeMap<Labels, Arc<RequestCounts>>,
    unmatched: Unmatched,
}

impl RequestCounters {
    /// Counters for this many shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        let methods =
            [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
        let mut counters = Self { shards, series: BTreeMap::new(), unmatched: Arc::default() };
        let known = methods.map(|method| {
            let counts = counters.of_unmatched(method.as_str());
            (method, counts)
        });
        // Whoever invents methods must not invent labels: the last entry takes them.
        let other = (Method::TRACE, counters.of_unmatched("other"));
        counters.unmatched = known.into_iter().chain([other]).collect();
        counters
    }

    fn of_unmatched(&mut self, method: &str) -> Arc<RequestCounts> {
        self.of_labels(Labels {
            method: method.into(),
            path: NOT_AVAILABLE.into(),
            target: NOT_AVAILABLE,
            response_from: NOT_AVAILABLE,
        })
    }

    /// The counters of an endpoint; the same for endpoints with the same labels.
    pub fn of(&mut self, endpoint: &Endpoint) -> Arc<RequestCounts> {
        self.of_labels(Labels {
            method: endpoint.method.as_str().into(),
            path: endpoint.path_regex.clone(),
            target: endpoint.target.name(),
            response_from: endpoint.response_from.name(),
        })
    }

    /// The counters of requests without endpoint; the last entry takes every method that has none.
    #[must_use]
    pub fn unmatched(&self) -> Unmatched {
        Arc::clone(&self.unmatched)
    }

    fn of_labels(&mut self, mut labels: Labels) -> Arc<RequestCounts> {
        if self.series.len() >= MAX_SERIES && !self.series.contains_key(&labels) {
            labels.path = "other".into();
        }
        let shards = self.shards;
        Arc::clone(self.series.entry(labels).or_insert_with(|| Arc::new(RequestCounts::new(shards))))
    }

    /// All label sets with their counters, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Labels, &RequestCounts)> {
        self.series.iter().map(|(labels, counts)| (labels, &**counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(path: &str) -> Labels {
        Labels { method: "GET".into(), path: path.into(), target: "http", response_from: "http" }
    }

    #[test]
    fn counters_survive_a_change_of_definitions_and_add_up_over_shards() {
        let mut counters = RequestCounters::new(2);
        counters.of_labels(labels("/a")).add(0, Outcome::Ok);
        counters.of_labels(labels("/a")).add(1, Outcome::Ok);
        counters.of_labels(labels("/a")).add(1, Outcome::Unreachable);
        let counts = counters.of_labels(labels("/a"));
        assert_eq!((counts.total(Outcome::Ok), counts.total(Outcome::Unreachable)), (2, 1));
        assert_eq!(counts.total(Outcome::NotFound), 0);
    }

    #[test]
    fn the_number_of_label_sets_is_bounded() {
        let mut counters = RequestCounters::new(1);
        for number in 0..MAX_SERIES + 100 {
            counters.of_labels(labels(&format!("/{number}"))).add(0, Outcome::Ok);
        }
        assert!(counters.iter().count() <= MAX_SERIES + 1);
        let total: u64 = counters.iter().map(|(_, counts)| counts.total(Outcome::Ok)).sum();
        assert_eq!(total, MAX_SERIES as u64 + 100, "none is lost");
    }
}
