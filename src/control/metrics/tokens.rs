//! Tokens, checks, and the keys that come from URLs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_shards::auth::TokenRefusal;
use tidegate_shards::metrics::{Cell, ShardMetrics, TokenCounts};

use crate::auth::KeySetMetrics;
use crate::control::exposition::{Kind, Page};

pub(super) fn write(page: &mut Page, shards: &[Arc<ShardMetrics>], key_sets: &[Arc<KeySetMetrics>]) {
    let sum = |cell: fn(&TokenCounts) -> &Cell| -> u64 { shards.iter().map(|shard| cell(&shard.tokens).get()).sum() };
    for (name, help, value) in [
        ("tidegate_tokens_accepted_total", "Tokens that were valid.", sum(|counts| &counts.accepted)),
        ("tidegate_tokens_cached_total", "Tokens that had been verified before.", sum(|counts| &counts.cached)),
    ] {
        page.single(name, Kind::Counter, help, value);
    }
    let name = "tidegate_tokens_refused_total";
    page.family(name, Kind::Counter, "Tokens that were refused, by reason.");
    for refusal in TokenRefusal::ALL {
        let count: u64 = shards.iter().map(|shard| shard.tokens.refused[refusal as usize].get()).sum();
        page.sample(name, &[("reason", refusal.name())], count);
    }
    let name = "tidegate_checks_total";
    page.family(
        name,
        Kind::Counter,
        "Checks of subscriptions and submissions; without an answer in time they are denied.",
    );
    let (denied, unanswered) = (sum(|counts| &counts.checks_denied), sum(|counts| &counts.checks_unanswered));
    for (outcome, count) in [
        ("allowed", sum(|counts| &counts.checks_allowed)),
        ("denied", denied.saturating_sub(unanswered)),
        ("unanswered", unanswered),
    ] {
        page.sample(name, &[("outcome", outcome)], count);
    }
    if key_sets.is_empty() {
        return;
    }
    let name = "tidegate_key_fetches_total";
    page.family(name, Kind::Counter, "Fetches of key sets behind URLs.");
    for set in key_sets {
        for (outcome, count) in [("ok", &set.fetched), ("failed", &set.failed)] {
            page.sample(name, &[("url", &set.url), ("outcome", outcome)], count.load(Ordering::Relaxed));
        }
    }
    page.family("tidegate_keys", Kind::Gauge, "Keys in force of issuers with a key set behind a URL.");
    for set in key_sets {
        page.sample("tidegate_keys", &[("url", &set.url)], set.keys.load(Ordering::Relaxed));
    }
    let name = "tidegate_key_set_age_seconds";
    page.family(name, Kind::Gauge, "Time since a key set was fetched.");
    for set in key_sets {
        if let Some(age_s) = set.age_s() {
            page.sample(name, &[("url", &set.url)], age_s);
        }
    }
}
