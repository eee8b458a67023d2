//! Buckets: the clauses that ask one field of one event type for one value.

use super::insert;
use ahash::RandomState;
use hashbrown::HashTable;
use slab::Slab;
use std::ops::{Index, IndexMut};

/// All buckets of a shard, in one table whose entries are only numbers: the key stands once, in the bucket.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    table: HashTable<u32>,
    entries: Slab<Bucket>,
    hasher: RandomState,
}

#[derive(Debug)]
pub(super) struct Bucket {
    value: Box<[u8]>,
    list: List,
    pub(super) type_id: u32,
    /// The last event that hit the bucket.
    pub(super) stamp: u32,
    pub(super) position: u16,
}

/// A clause in a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) connection: u32,
    pub(super) registration: u32,
    /// Whether the registration has more conditions.
    pub(super) has_rest: bool,
}

/// Most buckets hold one clause and need no memory of their own for it.
#[derive(Debug)]
enum List {
    One(Entry),
    Many(Vec<Entry>),
}

impl Buckets {
    pub(super) fn find(&self, type_id: u32, position: u16, value: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one((type_id, position, value));
        self.table.find(hash, |&id| self.entries[id as usize].key() == (type_id, position, value)).copied()
    }

    /// Adds an empty bucket, which must not exist yet.
    pub(super) fn insert(&mut self, type_id: u32, position: u16, value: Box<[u8]>) -> u32 {
        let Buckets { table, entries, hasher } = self;
        let bucket = Bucket { value, list: List::Many(Vec::new()), type_id, stamp: 0, position };
        let hash = hasher.hash_one(bucket.key());
        let id = insert(entries, bucket);
        table.insert_unique(hash, id, |&id| hasher.hash_one(entries[id as usize].key()));
        id
    }

    /// Forgets an empty bucket.
    pub(super) fn remove(&mut self, id: u32) {
        let bucket = self.entries.remove(id as usize);
        if let Ok(found) = self.table.find_entry(self.hasher.hash_one(bucket.key()), |&other| other == id) {
            found.remove();
        }
    }

    pub(super) fn clear_stamps(&mut self) {
        self.entries.iter_mut().for_each(|(_, bucket)| bucket.stamp = 0);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty() && self.entries.is_empty()
    }
}

impl Index<u32> for Buckets {
    type Output = Bucket;

    fn index(&self, id: u32) -> &Bucket {
        &self.entries[id as usize]
    }
}

impl IndexMut<u32> for Buckets {
    fn index_mut(&mut self, id: u32) -> &mut Bucket {
        &mut self.entries[id as usize]
    }
}

impl Bucket {
    fn key(&self) -> (u32, u16, &[u8]) {
        (self.type_id, self.position, &self.value)
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match &self.list {
            List::One(entry) => std::slice::from_ref(entry),
            List::Many(entries) => entries,
        }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        match &mut self.list {
            List::Many(entries) if entries.is_empty() => self.list = List::One(entry),
            List::Many(entries) => entries.push(entry),
            List::One(first) => self.list = List::Many(vec![*first, entry]),
        }
    }

    /// Removes a clause; the registration that now has its slot, if one was moved.
    pub(super) fn swap_remove(&mut self, slot: u32) -> Option<u32> {
        match &mut self.list {
            List::One(_) => self.list = List::Many(Vec::new()),
            List::Many(entries) => {
                entries.swap_remove(slot as usize);
                if let [last] = entries[..] {
                    self.list = List::One(last);
                }
            }
        }
        self.entries().get(slot as usize).map(|entry| entry.registration)
    }
}
