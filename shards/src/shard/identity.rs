//! Whose connection it is: the sessions of the tokens that it was opened or renewed with, and when these expire. Kept beside the
//! table of connections, so that anonymous ones pay nothing.
//!
//! A connection ends when one of its sessions is blacklisted, or when its token expires; a minute before, it is warned, and a
//! fresh token on the subscriptions PUT renews it.

use std::collections::{BTreeSet, HashMap};

use ahash::RandomState;

use super::connection::{Address, Closing, Output};
use super::{Shard, Timer, key, own_events};
use crate::sessions::{Fingerprint, News};
use crate::ws::close_code;

/// How long before its token expires a connection is warned, in milliseconds.
pub const TOKEN_WARNING_MS: u64 = 60_000;
/// Time for a connection that ends to take what waits for it, in milliseconds.
const LAST_BYTES_MS: u64 = 1_000;

/// What a token says about a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Sessions of the tokens, where they name one.
    pub sessions: Vec<Fingerprint>,
    /// The earliest `exp` of the tokens, in seconds since 1970; `None` if the connection doesn't end with its token.
    pub expires_at_s: Option<u64>,
}

/// Why a connection is ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Its session was blacklisted.
    Killed,
    /// Its token has expired.
    Expired,
}

/// The identity of one connection as it is kept.
#[derive(Debug)]
struct Entry {
    /// Those it was opened with, then those of the newest renewal.
    sessions: Vec<Fingerprint>,
    /// How many of them it was opened with.
    opened_with: usize,
    expires_at_s: u64,
    /// `expires_at_s` by [`crate::clock::now_ms`]; `u64::MAX` for never.
    expires_ms: u64,
    warned: bool,
    /// The timer that counts; others of this connection are out of date. `u64::MAX`: none.
    timer_ms: u64,
}

/// The identities of a shard's connections.
#[derive(Debug)]
pub(super) struct Identities {
    by_slot: HashMap<u32, Entry, RandomState>,
    by_session: BTreeSet<(Fingerprint, u32)>,
    /// Additions to the blacklist that were looked at.
    seen: u64,
}

impl Identities {
    /// None yet; `additions` to the blacklist need not be looked at.
    pub(super) fn new(additions: u64) -> Self {
        Self { by_slot: HashMap::default(), by_session: BTreeSet::new(), seen: additions }
    }

    /// The connection in this slot has gone.
    pub(super) fn forget(&mut self, slot: u32) {
        if let Some(entry) = self.by_slot.remove(&slot) {
            self.unlink(slot, &entry.sessions);
            if self.by_slot.is_empty() {
                self.by_slot.shrink_to_fit();
            }
        }
    }

    /// Does every connection belong to nobody?
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_slot.is_empty() && self.by_session.is_empty()
    }

    fn unlink(&mut self, slot: u32, sessions: &[Fingerprint]) {
        for session in sessions {
            self.by_session.remove(&(*session, slot));
        }
    }

    fn slots_of(&self, session: Fingerprint) -> Vec<u32> {
        self.by_session.range((session, 0)..=(session, u32::MAX)).map(|(_, slot)| *slot).collect()
    }
}

impl Shard {
    /// Notes whose connection it is, at its opening or with a fresh token later. Ends it if a session is blacklisted.
    pub fn identify(&mut self, address: Address, identity: &Identity, now_ms: u64) {
        if self.connections.get(address).is_none() || *identity == Identity::default() {
            return;
        }
        let Identities { by_slot, by_session, .. } = &mut self.identities;
        let known = by_slot.contains_key(&address.slot);
        let entry = by_slot.entry(address.slot).or_insert_with(|| Entry {
            sessions: Vec::new(),
            opened_with: identity.sessions.len(),
            expires_at_s: u64::MAX,
            expires_ms: u64::MAX,
            warned: false,
            timer_ms: u64::MAX,
        });
        if known {
            for session in entry.sessions.drain(entry.opened_with..) {
                by_session.remove(&(session, address.slot));
            }
        }
        entry.sessions.extend(&identity.sessions);
        by_session.extend(entry.sessions.iter().map(|session| (*session, address.slot)));
        if let Some(expires_at_s) = identity.expires_at_s {
            entry.expires_at_s = expires_at_s;
            entry.expires_ms = self.settings.sessions.clock_ms(expires_at_s.saturating_mul(1_000));
            entry.warned = false;
            self.set_token_timer(address, now_ms);
        }
        let table = &self.settings.sessions;
        if identity.sessions.iter().any(|session| table.is_listed(*session, table.unix_ms(now_ms))) {
            self.end(address, Ending::Killed, now_ms);
        }
    }

    /// Waits for the next thing to do: the warning, then the end.
    fn set_token_timer(&mut self, address: Address, now_ms: u64) {
        let Some(entry) = self.identities.by_slot.get_mut(&address.slot) else { return };
        let next_ms = if entry.warned { entry.expires_ms } else { entry.expires_ms.saturating_sub(TOKEN_WARNING_MS) };
        let next_ms = next_ms.max(now_ms);
        // One that comes earlier finds that it is too early, and is set again.
        if next_ms < entry.timer_ms {
            entry.timer_ms = next_ms;
            self.wheel.insert(next_ms, key(address, Timer::Token));
        }
    }

    pub(super) fn token_timer(&mut self, address: Address, now_ms: u64) {
        let Some(entry) = self.identities.by_slot.get_mut(&address.slot) else { return };
        if now_ms < entry.timer_ms {
            return;
        }
        entry.timer_ms = u64::MAX;
        if entry.expires_ms <= now_ms {
            return self.end(address, Ending::Expired, now_ms);
        }
        if !entry.warned && entry.expires_ms.saturating_sub(TOKEN_WARNING_MS) <= now_ms {
            entry.warned = true;
            let data = own_events::token_expiring_data(entry.expires_at_s);
            self.send_own_event(address, own_events::TOKEN_EXPIRING, &data);
        }
        self.set_token_timer(address, now_ms);
    }

    /// Ends the connections of sessions that were blacklisted since the last look.
    pub(super) fn end_killed_sessions(&mut self, now_ms: u64) {
        let table = std::sync::Arc::clone(&self.settings.sessions);
        let now_unix_ms = table.unix_ms(now_ms);
        let slots: Vec<u32> = match table.news(&mut self.identities.seen) {
            News::Listed(listed) if listed.is_empty() => return,
            News::Listed(listed) => {
                let still = listed.into_iter().filter(|session| table.is_listed(*session, now_unix_ms));
                still.flat_map(|session| self.identities.slots_of(session)).collect()
            }
            News::TooMany => {
                let all = self.identities.by_session.iter();
                all.filter(|(session, _)| table.is_listed(*session, now_unix_ms)).map(|(_, slot)| *slot).collect()
            }
        };
        for slot in slots {
            if let Some(connection) = self.connections.at(slot) {
                let address = Address { slot, generation: connection.generation };
                self.end(address, Ending::Killed, now_ms);
            }
        }
    }

    fn end(&mut self, address: Address, ending: Ending, now_ms: u64) {
        let Some(connection) = self.connections.get(address) else { return };
        if connection.closing != Closing::No {
            return;
        }
        let (counter, event_type, code, reason) = match ending {
            Ending::Killed => {
                let counter = &self.metrics.connections_killed;
                (counter, own_events::SESSION_KILLED, close_code::NORMAL, "Session killed.")
            }
            Ending::Expired => {
                let counter = &self.metrics.connections_expired;
                (counter, own_events::TOKEN_EXPIRED, close_code::POLICY, "Token expired.")
            }
        };
        counter.add(1);
        match connection.output {
            Output::Session(_) => {
                self.answer_waiting(address);
                self.remove(address);
            }
            Output::EventStream { .. } | Output::Pulled => {
                self.send_own_event(address, event_type, "null");
                self.finish(address, None, "");
                self.set_linger(address, now_ms + LAST_BYTES_MS);
            }
            Output::WebSocket(_) => {
                self.finish(address, Some(code), reason);
                self.set_linger(address, now_ms + LAST_BYTES_MS);
            }
            Output::Http => self.close(address, Closing::Now),
        }
    }
}
