//! How a client comes back: its cursor is translated, and its events are asked for where they are.

use std::sync::Arc;

use super::Shard;
use super::connection::{Address, Connection};
use super::own_events;
use super::replay::{Client, PARKED_MS, Stage};
use super::snapshot::Pending;
use super::subscribe::SetReply;
use crate::clock;
use crate::cursor::{Layout, Loss, Reason, Resolved, ResumeFrom, is_beyond, resolve};
use crate::mailbox::{Kept, SetOutcome};
use crate::replay::ReplayRequest;
use crate::subscription::{CompiledSubscription, Subscription, echo};

/// How long a client whose cursor knows more of the topics than this node waits for the node to find it too, in milliseconds.
const BEYOND_MS: u64 = 5_000;

/// Where a client begins.
#[derive(Debug)]
pub(super) enum Beginning {
    /// Where the node is.
    Now,
    /// Where it says it was.
    Presented(ResumeFrom),
}

/// A client whose subscriptions aren't in force yet.
#[derive(Debug)]
pub(super) struct First {
    echo: Option<String>,
    /// The ticket that ingress was asked with last.
    asked: u64,
    /// The request that it is for, where its client is live until then.
    request: Option<u64>,
    pub(super) from: Beginning,
    /// Where it wants to begin, in microseconds of [`crate::clock`], if it named a time.
    since_us: u64,
    reply: Option<SetReply>,
    pub(super) client: Client,
    /// When it came, in milliseconds.
    pub(super) came_ms: u64,
}

impl First {
    /// Does its cursor know more than the node? A partition that the node doesn't know would begin where it finds it, and the
    /// cursor's place in it be forgotten.
    fn is_beyond(&self, layout: &Layout, now_ms: u64) -> bool {
        now_ms < self.came_ms + BEYOND_MS
            && matches!(&self.from, Beginning::Presented(ResumeFrom::Cursor(cursor)) if is_beyond(cursor, layout))
    }
}

impl Shard {
    /// Gives a connection its first subscriptions and what it has missed of them since `from`. The list must compile.
    /// `reply` resolves once they are in force.
    pub fn resume(
        &mut self,
        address: Address,
        subscriptions: &[Subscription],
        from: ResumeFrom,
        reply: Option<SetReply>,
    ) {
        let Ok(compiled) = self.compile(subscriptions) else { return };
        let Some(connection) = self.connections.get_mut(address) else { return };
        connection.replaying = true;
        self.requests.last_ticket += 1;
        connection.ticket = self.requests.last_ticket;
        self.metrics.replays.add(1);
        self.metrics.replaying.add(1);
        let types = types_of(&compiled);
        self.requests.hold(&types);
        let since_us = match &from {
            ResumeFrom::Time(time_ms) => clock::us_at_unix_ms(*time_ms),
            _ => 0,
        };
        let mut client = Client::new(address, compiled, types);
        client.resumes = true;
        let (echo, from) = (Some(echo(subscriptions)), Beginning::Presented(from));
        let first = First { echo, asked: 0, request: None, from, since_us, reply, client, came_ms: self.now_ms };
        self.replays.first.insert(address.slot, Box::new(first));
        self.ask(address);
    }

    /// Gives a connection subscriptions of which some ask for a snapshot. A live client stays so until ingress says where it is.
    pub(super) fn begin_with_snapshot(
        &mut self,
        address: Address,
        subscriptions: Vec<CompiledSubscription>,
        echo: String,
        reply: Option<SetReply>,
    ) {
        let Some(connection) = self.connections.get_mut(address) else { return };
        let is_new = connection.ticket == 0;
        self.requests.last_ticket += 1;
        connection.ticket = self.requests.last_ticket;
        let request = (!is_new).then_some(connection.ticket);
        if is_new {
            connection.replaying = true;
            self.metrics.replaying.add(1);
        }
        let types = types_of(&subscriptions);
        self.requests.hold(&types);
        let mut client = Client::new(address, subscriptions, types);
        client.snapshot = Pending::of(&client.subscriptions);
        client.hides_cursor = is_new;
        self.metrics.snapshotting.add(1);
        let first = First {
            echo: Some(echo),
            asked: 0,
            request,
            from: Beginning::Now,
            since_us: 0,
            reply,
            client,
            came_ms: self.now_ms,
        };
        if let Some(before) = self.replays.first.insert(address.slot, Box::new(first)) {
            self.give_up_first(*before);
        }
        self.ask(address);
    }

    /// Another request counts.
    fn give_up_first(&mut self, first: First) {
        let First { client, reply, .. } = first;
        self.forget_client(&client);
        if let Some(reply) = reply {
            let _nobody_waits_any_more = reply.send(SetOutcome::InForce);
        }
    }

    fn ask(&mut self, address: Address) {
        let Some(connection) = self.connections.get(address) else { return };
        let transports = connection.transport();
        let first = self.replays.first.get(&address.slot).map(|first| &first.client);
        let Some(client) = first.or_else(|| self.replays.clients.get(&address.slot).map(|client| &**client)) else {
            return;
        };
        self.requests.last_ticket += 1;
        let ticket = self.requests.last_ticket;
        self.requests.ask(self.number, client.types.clone(), transports, ticket);
        if let Some(first) = self.replays.first.get_mut(&address.slot) {
            first.asked = ticket;
        }
        self.replays.asked.insert(ticket, address);
    }

    /// Asks ingress anew what there is for a client that catches up.
    pub(super) fn ask_again(&mut self, slot: u32) {
        let Some(client) = self.replays.clients.get_mut(&slot) else { return };
        client.stage = Stage::Asked;
        let address = client.address;
        self.ask(address);
    }

    /// Ingress's answer.
    pub(super) fn kept(&mut self, kept: Kept) {
        self.replays.layout = kept.layout.clone();
        self.replays.checkpoints.recent = Arc::clone(&kept.checkpoints);
        self.replays.floor = self.replays.floor.max(kept.last);
        let Some(address) = self.replays.asked.remove(&kept.ticket) else { return };
        let Some(connection) = self.connections.get(address) else { return };
        let transports = connection.transport();
        let ticket = connection.ticket;
        let answered = |first: &First| first.client.address == address && first.asked == kept.ticket;
        if self.replays.first.get(&address.slot).is_some_and(|first| answered(first))
            && let Some(mut first) = self.replays.first.remove(&address.slot)
        {
            if first.request.is_some_and(|request| request != ticket) {
                return self.give_up_first(*first);
            }
            let waits_until_ms = if kept.layout.is_opening() {
                Some(self.now_ms + PARKED_MS)
            } else if !self.replays.checkpoints.translate(&mut first, self.number) {
                Some(u64::MAX)
            } else if self.replays.source.is_some() && first.is_beyond(&kept.layout, self.now_ms) {
                Some(self.now_ms + PARKED_MS)
            } else {
                None
            };
            if let Some(until_ms) = waits_until_ms {
                first.client.stage = Stage::Parked(until_ms);
                self.replays.parked += 1;
                self.replays.first.insert(address.slot, first);
                return;
            }
            self.requests.known(&first.client.types, transports);
            self.begin(*first, &kept);
        }
        self.decide(address.slot, &kept);
    }

    /// Asks anew for clients that came before the node knew what it reads.
    pub(super) fn ask_first_again(&mut self, now_ms: u64) {
        let ready = |first: &First| matches!(first.client.stage, Stage::Parked(until_ms) if until_ms <= now_ms);
        let firsts = self.replays.first.values();
        let mut addresses: Vec<_> = firsts.filter(|first| ready(first)).map(|first| first.client.address).collect();
        addresses.sort_unstable_by_key(|address| address.slot);
        for address in addresses {
            self.replays.parked -= 1;
            if let Some(first) = self.replays.first.get_mut(&address.slot) {
                first.client.stage = Stage::Asked;
            }
            self.ask(address);
        }
    }

    /// The subscriptions are in force: the client is told so, and what can't be proven.
    fn begin(&mut self, first: First, kept: &Kept) {
        let First { echo, request, from, since_us, reply, mut client, .. } = first;
        let (address, slot) = (client.address, client.address.slot);
        let local = self.replays.source.is_none();
        let allowed = self.settings.replay_earliest;
        let unproven =
            |reason| Resolved { next: kept.now.to_vec(), losses: vec![Loss { reason, slot: None, from: 0, to: 0 }] };
        let resolved = match from {
            Beginning::Now => Resolved { next: kept.now.to_vec(), losses: Vec::new() },
            Beginning::Presented(ResumeFrom::Cursor(cursor)) => resolve(&cursor, &kept.layout, &kept.now, local),
            Beginning::Presented(ResumeFrom::Unknown) => unproven(Reason::CursorUnknown),
            Beginning::Presented(ResumeFrom::Checkpointed(_) | ResumeFrom::Gone) => unproven(Reason::CursorExpired),
            Beginning::Presented(ResumeFrom::Earliest | ResumeFrom::Time(_)) if !allowed => {
                unproven(Reason::NotAllowed)
            }
            Beginning::Presented(ResumeFrom::Earliest) => {
                client.earliest = true;
                Resolved { next: vec![0; kept.now.len()], losses: Vec::new() }
            }
            Beginning::Presented(ResumeFrom::Time(time_ms)) => {
                client.earliest = true;
                client.since_us = if local { since_us } else { 0 };
                client.since_ms = (!local).then_some(time_ms);
                Resolved { next: vec![0; kept.now.len()], losses: Vec::new() }
            }
        };
        client.next = resolved.next;
        self.replays.index.set(slot, client.subscriptions.clone());
        let mut vacated = Vec::new();
        if request.is_some() {
            vacated = self.index.remove(slot).removed;
            self.metrics.replaying.add(1);
        }
        let count = u32::try_from(client.subscriptions.len()).unwrap_or(u32::MAX);
        if let Some(connection) = self.connections.get_mut(address)
            && echo.is_some()
        {
            self.metrics.subscriptions.subtract(u64::from(connection.subscriptions));
            connection.subscriptions = count;
            connection.replaying = true;
            self.metrics.subscriptions.add(u64::from(count));
        }
        self.replays.clients.insert(slot, Box::new(client));
        self.give_up(vacated.iter());
        if let Some(echo) = echo {
            let cursor = self.replays.cursor_of(slot);
            self.send_own_event_at(address, own_events::SUBSCRIPTIONS_SET, &echo, &cursor);
        }
        self.lose(slot, resolved.losses);
        if let Some(reply) = reply {
            let _nobody_waits_any_more = reply.send(SetOutcome::InForce);
        }
    }

    /// Where the client's events are: all in the ring, or some further back.
    fn decide(&mut self, slot: u32, kept: &Kept) {
        let Some(client) = self.replays.clients.get_mut(&slot) else { return };
        if client.stage != Stage::Asked {
            return;
        }
        if client.snapshot.as_mut().is_some_and(|snapshot| snapshot.take_renewal()) {
            client.next = kept.now.to_vec();
        }
        if client.snapshot.is_some() && self.start_snapshot(slot) {
            return;
        }
        let Some(client) = self.replays.clients.get_mut(&slot) else { return };
        // A partition that appeared since the last look: all of it is new.
        if client.next.len() < kept.now.len() {
            client.next.resize(kept.now.len(), 0);
        }
        let reads = |at: usize| kept.layout.slot(at).is_some();
        let behind = |(at, next): (usize, &u64)| reads(at) && *next < kept.complete_from.get(at).copied().unwrap_or(0);
        let ahead = |(at, next): (usize, &u64)| reads(at) && *next > kept.now.get(at).copied().unwrap_or(0);
        let is_ahead = client.next.iter().enumerate().any(ahead);
        client.ahead = is_ahead;
        let is_behind = client.next.iter().enumerate().any(behind);
        match &self.replays.source {
            Some(source) if is_behind || client.since_ms.is_some() || (is_ahead && !client.confirmed) => {
                source.request(ReplayRequest {
                    shard: self.number,
                    address: client.address,
                    from: client.next.clone(),
                    to: kept.now.clone(),
                    layout: kept.layout.clone(),
                    event_types: client.types.clone(),
                    earliest: client.earliest,
                    since_ms: client.since_ms,
                });
                return;
            }
            Some(_) => {}
            None => {
                let losses = local_losses(&client.next, kept);
                self.lose(slot, losses);
                if let Some(client) = self.replays.clients.get_mut(&slot) {
                    (client.earliest, client.ahead) = (false, false);
                }
            }
        }
        self.replays.walk_next(slot, &kept.ring);
    }

    /// The source has lost events before this node read them. Whoever is subscribed to anything is told, since nobody knows what
    /// they were.
    pub(super) fn tell_all_of_loss(&mut self, loss: &Loss) {
        let data = own_events::history_lost_data(std::slice::from_ref(loss), &self.replays.layout);
        let live = self.current_cursor().unwrap_or_default().to_owned();
        let subscribed = |connection: &Connection| connection.subscriptions > 0;
        let connections = self.connections.iter_mut().filter(|(_, connection)| subscribed(connection));
        let told: Vec<_> = connections.map(|(address, connection)| (address, connection.replaying)).collect();
        for (address, replaying) in told {
            let cursor = if replaying { self.replays.cursor_of(address.slot) } else { live.clone() };
            self.metrics.history_lost.add(1);
            self.send_own_event_at(address, own_events::HISTORY_LOST, &data, &cursor);
        }
    }

    /// A client that catches up gets other subscriptions, which are held by the caller for the time being.
    pub(super) fn replace_replaying(
        &mut self,
        address: Address,
        subscriptions: Vec<CompiledSubscription>,
        types: &[Box<str>],
    ) {
        self.requests.hold(types);
        self.flush_replays();
        let slot = address.slot;
        let snapshot = Pending::of(&subscriptions);
        let client = if let Some(first) = self.replays.first.get_mut(&slot) {
            first.echo = None;
            self.metrics.snapshotting.add(u64::from(snapshot.is_some()));
            self.metrics.snapshotting.subtract(u64::from(first.client.snapshot.is_some()));
            first.client.hides_cursor &= snapshot.is_some();
            first.client.snapshot = snapshot;
            &mut first.client
        } else if self.replays.clients.contains_key(&slot) {
            self.set_snapshot(slot, snapshot);
            let Some(client) = self.replays.clients.get_mut(&slot) else { return };
            self.replays.index.set(slot, subscriptions.clone());
            &mut **client
        } else {
            return self.requests.release(types);
        };
        client.subscriptions = subscriptions;
        let before = std::mem::replace(&mut client.types, types.into());
        self.requests.release(&before);
        self.give_up(before.iter());
    }

    /// The connection is gone.
    pub(super) fn forget_replay(&mut self, address: Address, replaying: bool) {
        let slot = address.slot;
        self.metrics.replaying.subtract(u64::from(replaying));
        if replaying {
            self.replays.index.remove(slot);
        }
        let first = self.replays.first.remove(&slot).map(|first| first.client);
        let client = self.replays.clients.remove(&slot).map(|client| *client);
        for client in first.iter().chain(&client) {
            self.forget_client(client);
        }
    }

    fn forget_client(&mut self, client: &Client) {
        self.replays.parked -= usize::from(matches!(client.stage, Stage::Parked(_)));
        self.forget_snapshot(client.address, client);
        self.requests.release(&client.types);
        self.give_up(client.types.iter());
    }
}

pub(super) fn types_of(subscriptions: &[CompiledSubscription]) -> Box<[Box<str>]> {
    let mut types: Vec<Box<str>> = subscriptions.iter().map(|one| one.event_type.clone()).collect();
    types.sort_unstable();
    types.dedup();
    types.into()
}

/// What the ring of a local hub no longer has of what the client wants, or never had.
fn local_losses(next: &[u64], kept: &Kept) -> Vec<Loss> {
    let mut losses = Vec::new();
    for (at, _) in kept.layout.slots() {
        let (Some(&from), Some(&now)) = (next.get(at), kept.now.get(at)) else { continue };
        let oldest = kept.complete_from.get(at).copied().unwrap_or(0);
        if from < oldest {
            losses.push(Loss { reason: Reason::Expired, slot: Some(at), from, to: oldest });
        } else if from > now {
            losses.push(Loss { reason: Reason::Truncated, slot: Some(at), from, to: now });
        }
    }
    losses
}
