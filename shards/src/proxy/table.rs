//! The endpoints in force, and how a request finds its own.

use std::sync::Arc;

use http::Method;
use regex::Regex;

use super::counts::{Outcome, RequestCounters, RequestCounts, Unmatched};
use super::endpoint::Endpoint;
use super::path::{is_own, normalize};
use super::pattern::Pattern;
use super::prefilter::Prefilter;
use super::rewrite::Rewrite;

/// An endpoint with its compiled regex.
#[derive(Clone, Debug)]
pub struct Route {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Its `path_regex`, anchored at both ends.
    pub regex: Regex,
    /// Its `path_replacement`.
    pub rewrite: Option<Rewrite>,
}

/// Definitions that don't fit into one table.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("all API definitions together are too large: {0}")]
pub struct TableTooLarge(String);

/// All endpoints of the active APIs, in the order in which they match: APIs by id, endpoints as defined. Never changes;
/// a change of a definition makes a new one.
#[derive(Clone, Debug, Default)]
pub struct ApiTable {
    routes: Vec<Route>,
    counts: Vec<Arc<RequestCounts>>,
    unmatched: Unmatched,
    prefilter: Prefilter,
    /// Those of the regexes that are plain, by the index of their route.
    patterns: Vec<Option<Pattern>>,
}

impl ApiTable {
    /// The table of these routes, which stand in the order in which they match.
    ///
    /// # Errors
    /// They are too many, or their texts too long, for one table.
    pub fn new(routes: Vec<Route>, counters: &mut RequestCounters) -> Result<Self, TableTooLarge> {
        let regexes = || routes.iter().map(|route| &*route.endpoint.path_regex);
        let patterns = regexes().map(Pattern::new).collect();
        let prefilter = Prefilter::new(regexes()).map_err(|error| TableTooLarge(error.to_string()))?;
        let counts = routes.iter().map(|route| counters.of(&route.endpoint)).collect();
        Ok(Self { routes, counts, unmatched: counters.unmatched(), prefilter, patterns })
    }

    /// The same table with memory of its own to match in: one for each shard.
    #[must_use]
    pub fn for_one_thread(&self) -> Self {
        self.clone()
    }

    /// How many endpoints there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The endpoint that takes `method` on `path` (percent-encoded, as sent), and what to send there. A path of Tidegate's
    /// own never has one.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> Option<Found> {
        let path = normalize(path)?;
        if self.routes.is_empty() || is_own(&path) {
            return None;
        }
        let candidates = self.prefilter.candidates(&path);
        let mut takers = candidates
            .iter()
            .map(|index| *index as usize)
            .filter(|index| takes(&self.routes[*index].endpoint.method, method))
            .filter_map(|index| self.groups(index, &path).map(|groups| (index, groups)));
        let (first, groups) = takers.next()?;
        let route = &self.routes[first];
        let others = takers.filter(|(index, _)| self.routes[*index].endpoint.method == route.endpoint.method).count();
        let text = |&(start, end): &(usize, usize)| path.get(start..end).unwrap_or_default();
        let group = |number: usize| match number {
            0 => Some(&*path),
            number => groups.get(number - 1).map(text),
        };
        let captures = groups.iter().map(|place| text(place).to_owned()).collect();
        let (sent, query) = match &route.rewrite {
            Some(rewrite) => rewrite.apply(group)?,
            None => (path.clone().into_owned(), None),
        };
        Some(Found {
            endpoint: Arc::clone(&route.endpoint),
            counts: Arc::clone(&self.counts[first]),
            path: sent,
            query,
            captures,
            others,
        })
    }

    /// The places of the regex's groups if it matches; one that took no part is empty.
    fn groups(&self, index: usize, path: &str) -> Option<Vec<(usize, usize)>> {
        let mut groups = Vec::new();
        match &self.patterns[index] {
            Some(pattern) if path.is_ascii() => pattern.matches(path, &mut groups).then_some(groups),
            _ => {
                let regex = &self.routes[index].regex;
                // Groups cost more than a match, and most endpoints have none.
                if regex.captures_len() == 1 {
                    return regex.is_match(path).then_some(groups);
                }
                let captures = regex.captures(path)?;
                let place =
                    |group: Option<regex::Match<'_>>| group.map_or((0, 0), |group| (group.start(), group.end()));
                groups.extend(captures.iter().skip(1).map(place));
                Some(groups)
            }
        }
    }

    /// Counts a request that no endpoint takes; called by shard number `shard` alone.
    pub fn count_unmatched(&self, shard: usize, method: &Method) {
        let named = self.unmatched.iter().find(|(known, _)| known == method);
        if let Some((_, counts)) = named.or(self.unmatched.last()) {
            counts.add(shard, Outcome::NotFound);
        }
    }
}

fn takes(endpoint: &Method, request: &Method) -> bool {
    endpoint == request || (*request == Method::HEAD && *endpoint == Method::GET)
}

/// A request's endpoint.
#[derive(Clone, Debug)]
pub struct Found {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Its counters.
    pub counts: Arc<RequestCounts>,
    /// Path to send: normalised and rewritten, percent-encoded.
    pub path: String,
    /// Query that `path_replacement` puts before the client's, without question mark.
    pub query: Option<String>,
    /// Groups of `path_regex`, the first at index 0.
    pub captures: Vec<String>,
    /// Endpoints of the same method that match too and come later.
    pub others: usize,
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
