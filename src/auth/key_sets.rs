//! Sets of keys behind URLs: fetched at the start, refreshed by a thread for each, kept while their URL is out of reach.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use tidegate_shards::auth::jwk;
use tidegate_shards::auth::key::Key;
use tidegate_shards::auth::settings::TokenSettings;
use tidegate_shards::clock;
use tidegate_shards::node::Node;

use crate::config::{RemoteKeys, TokenConfig};
use crate::fetch::Fetcher;

/// How long the start waits for each set. Tokens are refused until there is one.
const START_WAIT: Duration = Duration::from_secs(3);
/// Time for one answer later on.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest time between two fetches, whatever keys tokens name.
const MIN_PAUSE_MS: u64 = 5_000;
/// Pause after the first failure; it doubles with each further one.
const FIRST_RETRY_MS: u64 = 1_000;
/// Longest pause after a failure.
const MAX_RETRY_MS: u64 = 60_000;

/// What is counted of one set.
#[derive(Debug, Default)]
pub struct KeySetMetrics {
    /// Its URL.
    pub url: String,
    /// Times it was fetched.
    pub fetched: AtomicU64,
    /// Times it could not be.
    pub failed: AtomicU64,
    /// Keys in force.
    pub keys: AtomicU64,
    /// When it was last fetched, by [`clock::now_ms`], and 1 more; 0 for never.
    fetched_at_ms: AtomicU64,
}

impl KeySetMetrics {
    /// Seconds since it was fetched; `None` if it never was.
    #[must_use]
    pub fn age_s(&self) -> Option<u64> {
        let at_ms = self.fetched_at_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(clock::now_ms().saturating_sub(at_ms) / 1_000)
    }
}

/// The sets of a node.
#[derive(Debug, Default)]
pub struct KeySets {
    sets: Vec<Set>,
    /// Wake the threads.
    followers: Vec<Sender<()>>,
    stopped: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Set {
    remote: RemoteKeys,
    fetcher: Fetcher,
    metrics: Arc<KeySetMetrics>,
    wake: Sender<()>,
    woken: Receiver<()>,
    refresh_ms: u64,
    failures: u32,
}

impl KeySets {
    /// Fetches all sets once, within a bounded time, and puts what came into the settings.
    ///
    /// # Errors
    /// The process can't have what fetching takes.
    pub fn open(config: &TokenConfig, ca_pem: Option<&Arc<[u8]>>, settings: &mut TokenSettings) -> io::Result<Self> {
        let mut sets = Vec::new();
        for remote in &config.remote {
            let (wake, woken) = bounded(1);
            let metrics = Arc::new(KeySetMetrics { url: remote.name.clone(), ..KeySetMetrics::default() });
            let mut set = Set {
                remote: remote.clone(),
                fetcher: Fetcher::new(ca_pem.cloned())?,
                metrics,
                wake: wake.clone(),
                woken,
                refresh_ms: config.refresh_ms,
                failures: 0,
            };
            let Some(issuer) = settings.issuers.get_mut(remote.issuer) else { continue };
            issuer.refresh = Some(wake);
            if let Some(keys) = set.fetch(START_WAIT) {
                issuer.keys = keys;
            }
            sets.push(set);
        }
        Ok(Self { sets, ..Self::default() })
    }

    /// What is counted, set by set.
    #[must_use]
    pub fn metrics(&self) -> Vec<Arc<KeySetMetrics>> {
        self.sets.iter().map(|set| Arc::clone(&set.metrics)).collect()
    }

    /// Begins to refresh them for a running node.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn follow(&mut self, node: &Arc<Node>) -> io::Result<()> {
        for set in self.sets.drain(..) {
            let (node, stopped, wake) = (Arc::downgrade(node), Arc::clone(&self.stopped), set.wake.clone());
            std::thread::Builder::new().name("keys".to_owned()).spawn(move || set.run(&node, &stopped))?;
            self.followers.push(wake);
        }
        Ok(())
    }

    /// Ends refreshing. A fetch that is under way ends by itself and changes nothing any more.
    pub fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        for wake in self.followers {
            let _woken_already = wake.try_send(());
        }
    }
}

impl Set {
    fn run(mut self, node: &Weak<Node>, stopped: &AtomicBool) {
        loop {
            self.pause(stopped);
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            let Some(keys) = self.fetch(TIMEOUT) else { continue };
            let Some(node) = node.upgrade().filter(|_| !stopped.load(Ordering::Relaxed)) else { return };
            if node.set_keys(self.remote.issuer, &keys).is_err() {
                tracing::error!(
                    url = self.remote.name,
                    "new keys are not in force on every core: a shard is too far behind"
                );
                self.failures = 1;
            }
        }
    }

    /// Waits until it is time, or a token names a key that isn't known; never less than a little.
    fn pause(&self, stopped: &AtomicBool) {
        let begun_ms = clock::now_ms();
        let wait_ms = match self.failures {
            0 => self.refresh_ms,
            failures => (FIRST_RETRY_MS << (failures - 1).min(6)).min(MAX_RETRY_MS).min(self.refresh_ms),
        };
        let rest = |until_ms: u64| Duration::from_millis((begun_ms + until_ms).saturating_sub(clock::now_ms()));
        if self.woken.recv_timeout(rest(wait_ms)).is_err() {
            return;
        }
        while !stopped.load(Ordering::Relaxed) && !rest(MIN_PAUSE_MS.min(wait_ms)).is_zero() {
            // Others ask for the same.
            let _asked = self.woken.recv_timeout(rest(MIN_PAUSE_MS.min(wait_ms)));
        }
    }

    fn fetch(&mut self, timeout: Duration) -> Option<Arc<[Key]>> {
        let RemoteKeys { url, name, allowed, own, .. } = &self.remote;
        let read = self
            .fetcher
            .get(url, timeout)
            .and_then(|json| jwk::read(&json, *allowed, false).map_err(|error| format!("it holds {error}")));
        match read {
            Ok(set) => {
                if let Some((count, first)) = set.unusable
                    && self.metrics.fetched.load(Ordering::Relaxed) == 0
                {
                    tracing::warn!(url = name, count, %first, "some keys are not used");
                }
                if self.failures > 0 {
                    tracing::warn!(url = name, "keys of tokens are there again");
                }
                let keys: Arc<[Key]> = own.iter().cloned().chain(set.keys).collect();
                self.failures = 0;
                self.metrics.fetched.fetch_add(1, Ordering::Relaxed);
                self.metrics.keys.store(keys.len() as u64, Ordering::Relaxed);
                self.metrics.fetched_at_ms.store(clock::now_ms() + 1, Ordering::Relaxed);
                Some(keys)
            }
            Err(reason) => {
                self.failures = self.failures.saturating_add(1);
                self.metrics.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    url = name,
                    reason,
                    "keys of tokens can't be fetched; those that were fetched before still count"
                );
                None
            }
        }
    }
}
