//! The subscription index: which connections an event is for.
//!
//! Per event type there are the connections that want all of it, and, for the others, **buckets**: one for each value
//! that a constrained field is asked to have. A conjunction is registered in one bucket only, under the field that keeps
//! buckets small, and its other conditions are checked when an event hits that bucket. An event therefore costs one
//! hash look-up for its type and one per constrained field, whatever the number of subscriptions.
//!
//! Each registration knows its place in the list that holds it, and each connection its registrations, so that
//! replacing and removing cost what the connection's own subscriptions cost.
//!
//! Read on in `types` (event types), `buckets` (fields and values), and back here (connections, matching).

mod buckets;
mod types;

#[cfg(test)]
mod tests;

use crate::subscription::{Clause, CompiledSubscription};
use buckets::{Buckets, Entry};
use slab::Slab;
use types::Types;

/// The subscriptions of all connections of one shard. Connections are named by dense slot numbers: memory grows with
/// the largest one seen.
#[derive(Debug, Default)]
pub struct Index {
    types: Types,
    buckets: Buckets,
    registrations: Slab<Registration>,
    connections: Vec<Connection>,
    subscriptions: usize,
    /// Counts the events that looked into buckets; what carries its number has been seen by this event.
    event_stamp: u32,
    /// Counts calls of `set`.
    set_stamp: u64,
    /// Indices of an event's fields, sorted by position and value; kept for its memory.
    field_order: Vec<u32>,
}

/// Event types that went from no subscriber to some on this shard, and back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeChanges {
    /// Types that have subscribers now and had none.
    pub added: Vec<Box<str>>,
    /// Types that had subscribers and have none now.
    pub removed: Vec<Box<str>>,
}

/// The values that extractors found in an event.
pub trait Fields {
    /// How many there are.
    fn len(&self) -> usize;

    /// The position of the field and the canonical encoding of a value it has. A field with several entries is a list.
    /// `at` is less than `len`.
    fn get(&self, at: usize) -> (u16, &[u8]);

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One reason for a connection to get events: everything of a type, or one clause.
#[derive(Debug)]
struct Registration {
    place: Place,
    /// Where in the list of that place.
    slot: u32,
    /// The next registration of the same connection, or `NONE`.
    next: u32,
    /// Conditions beside the one that the bucket stands for.
    rest: Clause,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Type(u32),
    Bucket(u32),
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    /// The head of its list of registrations, or `NONE`.
    first: u32,
    subscriptions: u32,
    stamp: u32,
}

const NONE: u32 = u32::MAX;

impl Connection {
    const UNUSED: Connection = Connection { first: NONE, subscriptions: 0, stamp: 0 };
}

/// An event with more values than this gets them sorted before conditions are checked.
const LINEAR_SEARCH_MAX: usize = 16;

impl Index {
    /// An index without subscriptions.
    pub fn new() -> Self {
        Index::default()
    }

    /// Gives `connection` these subscriptions in place of all it had.
    pub fn set(&mut self, connection: u32, subscriptions: Vec<CompiledSubscription>) -> TypeChanges {
        let mut changes = TypeChanges::default();
        let slot = connection as usize;
        if slot >= self.connections.len() {
            self.connections.resize(slot + 1, Connection::UNUSED);
        }
        let before = std::mem::replace(&mut self.connections[slot], Connection::UNUSED);
        self.connections[slot].subscriptions = narrow(subscriptions.len());
        self.connections[slot].stamp = before.stamp;
        self.subscriptions += subscriptions.len();

        self.set_stamp += 1;
        let (unconstrained, constrained): (Vec<_>, Vec<_>) =
            subscriptions.into_iter().partition(|subscription| subscription.matches_all());
        for subscription in unconstrained {
            let type_id = self.types.get_or_insert(&subscription.event_type, &mut changes);
            if std::mem::replace(&mut self.types[type_id].unconstrained_stamp, self.set_stamp) != self.set_stamp {
                self.register_unconstrained(connection, type_id);
            }
        }
        for subscription in constrained {
            let type_id = self.types.get_or_insert(&subscription.event_type, &mut changes);
            if self.types[type_id].unconstrained_stamp != self.set_stamp {
                for clause in subscription.clauses {
                    self.register_clause(connection, type_id, clause);
                }
            }
        }
        self.unregister_all(before, &mut changes);
        changes
    }

    /// Takes all subscriptions from `connection`.
    pub fn remove(&mut self, connection: u32) -> TypeChanges {
        let mut changes = TypeChanges::default();
        if let Some(found) = self.connections.get_mut(connection as usize) {
            let before = std::mem::replace(found, Connection { stamp: found.stamp, ..Connection::UNUSED });
            self.unregister_all(before, &mut changes);
        }
        changes
    }

    /// Appends every connection that gets an event of this type with these fields, each once, in no particular order.
    pub fn matches<F: Fields>(&mut self, event_type: &str, fields: &F, out: &mut Vec<u32>) {
        let Some(type_id) = self.types.find(event_type) else { return };
        let found = &self.types[type_id];
        // No connection is both here and in a bucket of the type, so these need no stamp.
        out.extend_from_slice(&found.unconstrained);
        if found.keyed_fields.is_empty() || fields.is_empty() {
            return;
        }
        let stamp = self.next_event_stamp();
        self.field_order.clear();
        let found = &self.types[type_id];
        for at in 0..fields.len() {
            let (position, value) = fields.get(at);
            if !found.keyed_fields.iter().any(|field| field.position == position) {
                continue;
            }
            let Some(bucket_id) = self.buckets.find(type_id, position, value) else { continue };
            let bucket = &mut self.buckets[bucket_id];
            if std::mem::replace(&mut bucket.stamp, stamp) == stamp {
                continue;
            }
            for entry in bucket.entries() {
                let connection = &mut self.connections[entry.connection as usize];
                if connection.stamp == stamp {
                    continue;
                }
                if entry.has_rest {
                    let rest = &self.registrations[entry.registration as usize].rest;
                    if !all_hold(rest, fields, &mut self.field_order) {
                        continue;
                    }
                }
                connection.stamp = stamp;
                out.push(entry.connection);
            }
        }
    }

    /// How many subscriptions all connections have, repeated ones included.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    /// Whether any connection has a subscription to this type.
    pub fn has_type(&self, event_type: &str) -> bool {
        self.types.find(event_type).is_some()
    }

    fn register_unconstrained(&mut self, connection: u32, type_id: u32) {
        let slot = narrow(self.types[type_id].unconstrained.len());
        let registration = self.register(connection, Place::Type(type_id), slot, Clause::default());
        let entry = &mut self.types[type_id];
        entry.unconstrained.push(connection);
        entry.unconstrained_registrations.push(registration);
        entry.registrations += 1;
    }

    fn register_clause(&mut self, connection: u32, type_id: u32, clause: Clause) {
        let keyed_fields = &self.types[type_id].keyed_fields;
        let cost = |(position, value): &(u16, Box<[u8]>)| {
            let members = self.buckets.find(type_id, *position, value).map_or(0, |id| self.buckets[id].entries().len());
            let values = keyed_fields.iter().find(|field| field.position == *position).map_or(0, |field| field.buckets);
            (members, std::cmp::Reverse(values))
        };
        let Some(cheapest) = (0..clause.len()).min_by_key(|&at| cost(&clause[at])) else { return };
        let mut rest = clause.into_vec();
        let (position, value) = rest.remove(cheapest);
        let has_rest = !rest.is_empty();

        let bucket_id = match self.buckets.find(type_id, position, &value) {
            Some(bucket_id) => bucket_id,
            None => {
                self.types[type_id].add_bucket(position);
                self.buckets.insert(type_id, position, value)
            }
        };
        let slot = narrow(self.buckets[bucket_id].entries().len());
        let registration = self.register(connection, Place::Bucket(bucket_id), slot, rest.into_boxed_slice());
        self.buckets[bucket_id].push(Entry { connection, registration, has_rest });
        self.types[type_id].registrations += 1;
    }

    fn register(&mut self, connection: u32, place: Place, slot: u32, rest: Clause) -> u32 {
        let head = &mut self.connections[connection as usize].first;
        let id = insert(&mut self.registrations, Registration { place, slot, next: *head, rest });
        *head = id;
        id
    }

    fn unregister_all(&mut self, connection: Connection, changes: &mut TypeChanges) {
        self.subscriptions -= connection.subscriptions as usize;
        let mut next = connection.first;
        while next != NONE {
            let registration = self.registrations.remove(next as usize);
            next = registration.next;
            let (type_id, moved) = match registration.place {
                Place::Type(type_id) => (type_id, self.types[type_id].remove_unconstrained(registration.slot)),
                Place::Bucket(bucket_id) => {
                    let bucket = &mut self.buckets[bucket_id];
                    let (type_id, position) = (bucket.type_id, bucket.position);
                    let moved = bucket.swap_remove(registration.slot);
                    if bucket.entries().is_empty() {
                        self.buckets.remove(bucket_id);
                        self.types[type_id].remove_bucket(position);
                    }
                    (type_id, moved)
                }
            };
            if let Some(moved) = moved {
                self.registrations[moved as usize].slot = registration.slot;
            }
            self.types[type_id].registrations -= 1;
            if self.types[type_id].registrations == 0 {
                changes.removed.push(self.types.remove(type_id));
            }
        }
    }

    /// A stamp that nothing carries.
    fn next_event_stamp(&mut self) -> u32 {
        self.event_stamp = self.event_stamp.wrapping_add(1);
        if self.event_stamp == 0 {
            self.connections.iter_mut().for_each(|connection| connection.stamp = 0);
            self.buckets.clear_stamps();
            self.event_stamp = 1;
        }
        self.event_stamp
    }
}

impl CompiledSubscription {
    fn matches_all(&self) -> bool {
        self.clauses.is_empty() || self.clauses.iter().any(|clause| clause.is_empty())
    }
}

/// Whether each condition is met by one of the event's values.
fn all_hold<F: Fields>(conditions: &[(u16, Box<[u8]>)], fields: &F, order: &mut Vec<u32>) -> bool {
    if fields.len() <= LINEAR_SEARCH_MAX {
        return conditions.iter().all(|(position, value)| {
            (0..fields.len()).any(|at| {
                let (found_position, found_value) = fields.get(at);
                found_position == *position && found_value == &**value
            })
        });
    }
    if order.is_empty() {
        order.extend(0..narrow(fields.len()));
        order.sort_unstable_by(|&a, &b| fields.get(a as usize).cmp(&fields.get(b as usize)));
    }
    conditions.iter().all(|(position, value)| {
        order.binary_search_by(|&at| fields.get(at as usize).cmp(&(*position, &**value))).is_ok()
    })
}

/// Adds to a slab that grows by a quarter: doubling would leave up to half of its memory unused.
fn insert<T>(slab: &mut Slab<T>, value: T) -> u32 {
    if slab.len() == slab.capacity() {
        slab.reserve_exact(slab.len() / 4 + 1);
    }
    narrow(slab.insert(value))
}

/// Lists are named by 32-bit numbers to halve their memory.
fn narrow(length: usize) -> u32 {
    u32::try_from(length).expect("invariant: four billion registrations do not fit into a shard's memory")
}
