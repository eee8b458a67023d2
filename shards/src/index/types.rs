//! Event types: found by name, named by number.

use super::{TypeChanges, insert};
use ahash::RandomState;
use hashbrown::HashTable;
use slab::Slab;
use std::ops::{Index, IndexMut};

#[derive(Debug, Default)]
pub(super) struct Types {
    table: HashTable<u32>,
    entries: Slab<TypeEntry>,
    hasher: RandomState,
}

/// What is registered for one event type.
#[derive(Debug, Default)]
pub(super) struct TypeEntry {
    name: Box<str>,
    /// Connections that want every event of the type, each once; dense, as broadcasts copy it.
    pub(super) unconstrained: Vec<u32>,
    /// The registration behind each of them.
    pub(super) unconstrained_registrations: Vec<u32>,
    /// Fields that clauses are registered under; few.
    pub(super) keyed_fields: Vec<KeyedField>,
    /// Unconstrained ones and clauses together.
    pub(super) registrations: u32,
    /// The last call of `set` that subscribed to all events of the type.
    pub(super) unconstrained_stamp: u64,
}

#[derive(Debug)]
pub(super) struct KeyedField {
    pub(super) position: u16,
    /// How many different values are asked for.
    pub(super) buckets: u32,
}

impl Types {
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        self.table.find(hash, |&id| *self.entries[id as usize].name == *name).copied()
    }

    /// Whoever gets a new entry registers something in it.
    pub(super) fn get_or_insert(&mut self, name: &str, changes: &mut TypeChanges) -> u32 {
        if let Some(id) = self.find(name) {
            return id;
        }
        changes.added.push(name.into());
        let id = insert(&mut self.entries, TypeEntry { name: name.into(), ..TypeEntry::default() });
        let Types { table, entries, hasher } = self;
        table.insert_unique(hasher.hash_one(name), id, |&id| hasher.hash_one(&*entries[id as usize].name));
        id
    }

    /// Forgets a type that nothing is registered for; its name.
    pub(super) fn remove(&mut self, id: u32) -> Box<str> {
        let name = self.entries.remove(id as usize).name;
        if let Ok(found) = self.table.find_entry(self.hasher.hash_one(&*name), |&other| other == id) {
            found.remove();
        }
        name
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty() && self.entries.is_empty()
    }
}

impl Index<u32> for Types {
    type Output = TypeEntry;

    fn index(&self, id: u32) -> &TypeEntry {
        &self.entries[id as usize]
    }
}

impl IndexMut<u32> for Types {
    fn index_mut(&mut self, id: u32) -> &mut TypeEntry {
        &mut self.entries[id as usize]
    }
}

impl TypeEntry {
    /// Removes a connection; the registration that now has its slot, if one was moved.
    pub(super) fn remove_unconstrained(&mut self, slot: u32) -> Option<u32> {
        self.unconstrained.swap_remove(slot as usize);
        self.unconstrained_registrations.swap_remove(slot as usize);
        self.unconstrained_registrations.get(slot as usize).copied()
    }

    pub(super) fn add_bucket(&mut self, position: u16) {
        match self.keyed_fields.iter_mut().find(|field| field.position == position) {
            Some(field) => field.buckets += 1,
            None => self.keyed_fields.push(KeyedField { position, buckets: 1 }),
        }
    }

    pub(super) fn remove_bucket(&mut self, position: u16) {
        if let Some(at) = self.keyed_fields.iter().position(|field| field.position == position) {
            self.keyed_fields[at].buckets -= 1;
            if self.keyed_fields[at].buckets == 0 {
                self.keyed_fields.swap_remove(at);
            }
        }
    }
}
