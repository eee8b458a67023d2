//! How subscriptions come into force: compiled, announced to ingress where a type is new on this
//! shard, and put into the index when ingress knows it. From then on no event is missing.

use std::collections::HashMap;

use ahash::RandomState;
use futures_channel::oneshot;

use super::Shard;
use super::connection::{Address, Closing};
use super::own_events;
use crate::bell::Bell;
use crate::interest::{InterestChange, Transports};
use crate::mailbox::SetOutcome;
use crate::publisher::InterestLane;
use crate::subscription::{CompiledSubscription, Subscription, compile, echo};

/// Who waits for a set of subscriptions to come into force.
pub(super) type SetReply = oneshot::Sender<SetOutcome>;

/// A set of subscriptions that waits for ingress.
#[derive(Debug)]
struct Request {
    address: Address,
    subscriptions: Vec<CompiledSubscription>,
    echo: String,
    types: Vec<Box<str>>,
    unknown: u32,
    reply: Option<SetReply>,
}

/// What ingress knows of a type.
#[derive(Debug, Default)]
struct TypeInterest {
    known: Transports,
    /// Requests that name the type and aren't in force yet.
    requested: u32,
}

/// Requests under way, and what ingress knows of this shard's interest.
#[derive(Debug)]
pub(super) struct Requests {
    lane: InterestLane,
    ingress_bell: Bell,
    interest: HashMap<Box<str>, TypeInterest, RandomState>,
    waiting: HashMap<u64, Request, RandomState>,
    pub(super) last_ticket: u64,
}

impl Requests {
    pub(super) fn new(lane: InterestLane, ingress_bell: Bell) -> Self {
        Self { lane, ingress_bell, interest: HashMap::default(), waiting: HashMap::default(), last_ticket: 0 }
    }

    fn tell(&self, change: InterestChange) {
        self.lane.push(change);
    }

    /// Asks ingress for these types and for what is kept of them.
    pub(super) fn ask(&self, shard: usize, event_types: Box<[Box<str>]>, transports: Transports, ticket: u64) {
        self.tell(InterestChange::Resume { shard, event_types, transports, ticket });
        self.ingress_bell.ring();
    }

    /// Keeps ingress from being told that nobody wants these types, until [`Self::release`].
    pub(super) fn hold(&mut self, event_types: &[Box<str>]) {
        for event_type in event_types {
            match self.interest.get_mut(event_type) {
                Some(entry) => entry.requested += 1,
                None => self.interest.entry(event_type.clone()).or_default().requested = 1,
            }
        }
    }

    /// Ends [`Self::hold`].
    pub(super) fn release(&mut self, event_types: &[Box<str>]) {
        for event_type in event_types {
            if let Some(entry) = self.interest.get_mut(event_type) {
                entry.requested = entry.requested.saturating_sub(1);
            }
        }
    }

    /// Ingress knows these types on these transports.
    pub(super) fn known(&mut self, event_types: &[Box<str>], transports: Transports) {
        for event_type in event_types {
            if let Some(entry) = self.interest.get_mut(event_type) {
                entry.known = entry.known.union(transports);
            }
        }
    }
}

impl Shard {
    /// Replaces the subscriptions of a connection. They are in force, and `reply` resolves, when
    /// `rig.subscriptions_set` has been sent: at once if ingress knows all types, else a little later.
    pub fn set_subscriptions(&mut self, address: Address, subscriptions: &[Subscription], reply: Option<SetReply>) {
        let outcome = match self.compile(subscriptions) {
            Err(reason) => SetOutcome::Refused(reason),
            Ok(_) if !self.lives(address) => SetOutcome::Gone,
            Ok(compiled) if self.needs_snapshot(address, &compiled) => {
                return self.begin_with_snapshot(address, compiled, echo(subscriptions), reply);
            }
            Ok(compiled) => return self.request(address, compiled, echo(subscriptions), reply),
        };
        if let Some(reply) = reply {
            let _nobody_waits_any_more = reply.send(outcome);
        }
    }

    /// Must it be filed as one that catches up? One that does so already is given its snapshot where it is.
    fn needs_snapshot(&self, address: Address, subscriptions: &[CompiledSubscription]) -> bool {
        subscriptions.iter().any(|one| one.snapshot)
            && self.connections.get(address).is_some_and(|connection| !connection.replaying)
    }

    fn lives(&self, address: Address) -> bool {
        self.connections.get(address).is_some_and(|connection| connection.closing == Closing::No)
    }

    /// Checks a list against the extractors and translates it for the index.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub fn compile(&self, subscriptions: &[Subscription]) -> Result<Vec<CompiledSubscription>, String> {
        let mut compiled = Vec::with_capacity(subscriptions.len());
        for subscription in subscriptions {
            let one = compile(subscription, &self.settings.extractors, self.settings.strict_constraints)
                .map_err(|error| error.to_string())?;
            self.metrics.constraints_ignored.add(one.ignored_fields.len() as u64);
            compiled.push(one);
        }
        Ok(compiled)
    }

    fn request(
        &mut self,
        address: Address,
        subscriptions: Vec<CompiledSubscription>,
        echo: String,
        reply: Option<SetReply>,
    ) {
        let Some(connection) = self.connections.get_mut(address) else { return };
        let transport = connection.transport();
        self.requests.last_ticket += 1;
        let ticket = self.requests.last_ticket;
        connection.ticket = ticket;
        let mut types: Vec<Box<str>> = subscriptions.iter().map(|one| one.event_type.clone()).collect();
        types.sort_unstable();
        types.dedup();
        let mut unknown = 0;
        for event_type in &types {
            let entry = match self.requests.interest.get_mut(event_type) {
                Some(entry) => entry,
                None => self.requests.interest.entry(event_type.clone()).or_default(),
            };
            entry.requested += 1;
            if !entry.known.contains(transport) {
                unknown += 1;
                let (shard, event_type) = (self.number, event_type.clone());
                self.requests.tell(InterestChange::Add { shard, event_type, transports: transport, ticket });
            }
        }
        let request = Request { address, subscriptions, echo, types, unknown, reply };
        if unknown == 0 {
            self.put_in_force(ticket, request);
        } else {
            self.requests.waiting.insert(ticket, request);
            self.requests.ingress_bell.ring();
        }
    }

    /// Ingress knows one more type of the request with this ticket.
    pub fn interest_known(&mut self, ticket: u64) {
        let Some(request) = self.requests.waiting.get_mut(&ticket) else { return };
        request.unknown -= 1;
        if request.unknown == 0
            && let Some(request) = self.requests.waiting.remove(&ticket)
        {
            let transport = self.connections.get(request.address).map(|connection| connection.transport());
            for event_type in &request.types {
                if let (Some(transport), Some(entry)) = (transport, self.requests.interest.get_mut(event_type)) {
                    entry.known = entry.known.union(transport);
                }
            }
            self.put_in_force(ticket, request);
        }
    }

    fn put_in_force(&mut self, ticket: u64, request: Request) {
        let Request { address, subscriptions, echo, types, reply, .. } = request;
        let mut outcome = SetOutcome::Gone;
        let mut vacated = Vec::new();
        if let Some(connection) = self.connections.get_mut(address) {
            outcome = SetOutcome::InForce;
            if connection.ticket == ticket {
                self.metrics.subscriptions.subtract(u64::from(connection.subscriptions));
                connection.subscriptions = u32::try_from(subscriptions.len()).unwrap_or(u32::MAX);
                self.metrics.subscriptions.add(u64::from(connection.subscriptions));
                if connection.replaying {
                    self.replace_replaying(address, subscriptions, &types);
                    self.send_own_event(address, own_events::SUBSCRIPTIONS_SET, &echo);
                    self.go_on_with_snapshot(address.slot);
                } else {
                    vacated = self.index.set(address.slot, subscriptions).removed;
                    let cursor = self.current_cursor().unwrap_or_default().to_owned();
                    self.send_own_event_at(address, own_events::SUBSCRIPTIONS_SET, &echo, &cursor);
                }
            }
        }
        for event_type in &types {
            if let Some(entry) = self.requests.interest.get_mut(event_type) {
                entry.requested -= 1;
            }
        }
        self.give_up(types.iter().chain(&vacated));
        if let Some(reply) = reply {
            let _nobody_waits_any_more = reply.send(outcome);
        }
    }

    /// Takes the connection's subscriptions out of the index. Requests under way find it gone later.
    pub(super) fn forget_subscriptions(&mut self, address: Address) {
        let vacated = self.index.remove(address.slot).removed;
        self.give_up(vacated.iter());
    }

    /// Tells ingress of the types that nobody here wants any more.
    pub(super) fn give_up<'a>(&mut self, types: impl Iterator<Item = &'a Box<str>>) {
        for event_type in types {
            let unused = self.requests.interest.get(event_type).is_some_and(|entry| entry.requested == 0);
            if unused && !self.index.has_type(event_type) {
                self.requests.interest.remove(event_type);
                let (shard, event_type) = (self.number, event_type.clone());
                self.requests.tell(InterestChange::Remove { shard, event_type });
            }
        }
    }
}
