//! Which of two records of an API is the newer one, by their offsets in the topic: a state machine without I/O.

use std::collections::HashMap;

/// The offsets of a topic, which may be deleted and made anew while a node runs.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    /// Of the newest record by id.
    by_id: HashMap<String, i64>,
    /// The highest that was seen.
    highest: Option<i64>,
    /// Of the last record that was read.
    read: Option<i64>,
    /// How often the topic has begun anew.
    generation: u64,
}

/// Where the topic was at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    generation: u64,
    highest: Option<i64>,
}

impl Offsets {
    /// Where the topic is now: what is written from here on lies behind it.
    pub(super) fn mark(&self) -> Mark {
        Mark { generation: self.generation, highest: self.highest }
    }

    /// Notes a record that was read; false if a newer one of the same API is there already. Records are read in their
    /// order: one that lies before the last one is of a topic that was made anew, or is read again from its beginning.
    pub(super) fn is_newer_read(&mut self, id: &str, offset: i64) -> bool {
        if self.read.is_some_and(|last| offset <= last) {
            self.begin_anew();
        }
        self.read = Some(offset);
        self.is_newer(id, offset)
    }

    /// Notes a record that was written behind this mark; false if a newer one of the same API is there already.
    pub(super) fn is_newer_written(&mut self, id: &str, offset: i64, behind: Mark) -> bool {
        if behind.generation == self.generation && behind.highest.is_some_and(|highest| offset <= highest) {
            self.begin_anew();
        }
        self.is_newer(id, offset)
    }

    fn is_newer(&mut self, id: &str, offset: i64) -> bool {
        self.highest = self.highest.max(Some(offset));
        if self.by_id.get(id).is_some_and(|newest| *newest >= offset) {
            return false;
        }
        self.by_id.insert(id.to_owned(), offset);
        true
    }

    /// Offsets of the topic that was there before say nothing any more.
    fn begin_anew(&mut self) {
        *self = Self { generation: self.generation + 1, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three records of `a` were read, at these offsets.
    fn read_up_to_two() -> Offsets {
        let mut offsets = Offsets::default();
        assert!((0..3).all(|offset| offsets.is_newer_read("a", offset)));
        offsets
    }

    #[test]
    fn a_record_that_was_written_and_is_read_counts_once() {
        let mut offsets = read_up_to_two();
        let mark = offsets.mark();
        assert!(offsets.is_newer_written("a", 3, mark));
        assert!(!offsets.is_newer_read("a", 3));
        assert!(offsets.is_newer_read("a", 4));
    }

    #[test]
    fn a_write_behind_which_another_node_wrote_is_not_the_newest() {
        let mut offsets = read_up_to_two();
        let mark = offsets.mark();
        assert!(offsets.is_newer_read("a", 3), "the node's own, before its acknowledgement is looked at");
        assert!(offsets.is_newer_read("a", 4), "the other node's");
        assert!(!offsets.is_newer_written("a", 3, mark));
        assert!(offsets.is_newer_written("b", 5, offsets.mark()));
    }

    #[test]
    fn a_write_into_a_topic_that_was_made_anew_counts_and_so_does_what_is_read_of_it() {
        let mut offsets = read_up_to_two();
        let mark = offsets.mark();
        assert!(offsets.is_newer_written("a", 0, mark));
        assert!(!offsets.is_newer_read("a", 0), "the same record");
        assert!(offsets.is_newer_read("a", 1));
    }

    #[test]
    fn what_is_read_of_a_topic_that_was_made_anew_counts_and_a_write_keeps_its_place_in_it() {
        let mut offsets = read_up_to_two();
        let mark = offsets.mark();
        assert!(offsets.is_newer_read("b", 0));
        assert!(offsets.is_newer_read("a", 1), "the node's own");
        assert!(offsets.is_newer_read("a", 2), "another node's");
        assert!(!offsets.is_newer_written("a", 1, mark));
    }
}
