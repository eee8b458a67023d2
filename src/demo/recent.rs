//! What a service remembers: the newest entries, up to a bound.

use std::collections::{HashMap, VecDeque};

/// A map that forgets its oldest entries.
#[derive(Debug)]
pub(super) struct Recent<V> {
    entries: HashMap<String, V>,
    /// Keys as they came; some may be removed already.
    order: VecDeque<String>,
    capacity: usize,
}

impl<V> Recent<V> {
    /// Remembers up to `capacity` entries.
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), capacity }
    }

    /// The entry.
    pub(super) fn get(&self, key: &str) -> Option<&V> {
        self.entries.get(key)
    }

    /// Adds or replaces an entry.
    pub(super) fn insert(&mut self, key: &str, value: V) {
        if let Some(known) = self.entries.get_mut(key) {
            *known = value;
            return;
        }
        if self.order.len() == self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        self.order.push_back(key.to_owned());
        self.entries.insert(key.to_owned(), value);
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, key: &str) -> Option<V> {
        let value = self.entries.remove(key)?;
        self.order.retain(|known| known != key);
        Some(value)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entry_makes_room_for_the_newest() {
        let mut recent = Recent::new(2);
        recent.insert("a", 1);
        recent.insert("b", 2);
        recent.insert("a", 3);
        recent.insert("c", 4);
        assert_eq!((recent.get("a"), recent.get("b"), recent.get("c")), (None, Some(&2), Some(&4)));
    }

    #[test]
    fn what_was_removed_takes_no_room() {
        let mut recent = Recent::new(2);
        recent.insert("a", 1);
        assert_eq!(recent.remove("a"), Some(1));
        assert_eq!(recent.remove("a"), None);
        recent.insert("b", 2);
        recent.insert("c", 3);
        assert_eq!((recent.get("b"), recent.get("c")), (Some(&2), Some(&3)));
        recent.clear();
        assert_eq!(recent.get("c"), None);
    }
}
