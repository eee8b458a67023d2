//! Drains the mailbox in batches, and turns the wheel when the node's clock ticks.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use glommio::timer::sleep;

use super::SharedWorld;
use crate::bell::Bell;
use crate::clock;
use crate::listener;
use crate::mailbox::{Control, Inbox, Mail, Ticker};
use crate::shard::connection::Address;

/// Events taken from the mailbox before their sends go out.
const BATCH_EVENTS: usize = 1024;
/// Bytes of events after which the sends go out, so that the first of a batch doesn't wait for all.
const BATCH_BYTES: usize = 256 * 1024;
/// How long a stopping shard waits before it looks again whether its connections' tasks have ended.
const CLOSE_PAUSE: Duration = Duration::from_millis(20);
/// Looks before connections whose clients don't close in return are cut.
const POLITE_LOOKS: usize = 25;
/// How often it looks.
const CLOSE_LOOKS: usize = 150;

/// Takes what both lanes hold, batch by batch, until the node shuts down.
pub(super) async fn drain(world: SharedWorld, mut inbox: Inbox, ingress_bell: Bell) {
    loop {
        poll_fn(|cx| {
            inbox.waker.register(cx.waker());
            let idle = inbox.events.is_empty()
                && inbox.control.is_empty()
                && inbox.replay.as_ref().is_none_or(rtrb::Consumer::is_empty)
                && inbox.snapshots.as_ref().is_none_or(rtrb::Consumer::is_empty)
                && !world.shard.borrow().has_replay_work();
            if idle { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        while let Some(message) = inbox.control.pop() {
            control(&world, message);
        }
        if world.stopping.get() {
            return;
        }
        batch(&world, &mut inbox);
        ingress_bell.ring();
        if catch_up(&world, &mut inbox) {
            glommio::executor().yield_now().await;
        }
        if glommio::executor().need_preempt() {
            glommio::executor().yield_if_needed().await;
        }
    }
}

fn batch(world: &SharedWorld, inbox: &mut Inbox) {
    let mut shard = world.shard.borrow_mut();
    shard.metrics().mailbox_depth.set(inbox.events.slots() as u64);
    let (mut events, mut bytes) = (0, 0);
    while events < BATCH_EVENTS && bytes < BATCH_BYTES {
        let Ok(mail) = inbox.events.pop() else { break };
        if let Mail::Event(range) = &mail {
            events += 1;
            bytes += range.len as usize;
        }
        shard.take_mail(mail);
    }
    shard.flush_batch();
}

/// One turn for clients that catch up, between batches of live events; true if there is more to do.
fn catch_up(world: &SharedWorld, inbox: &mut Inbox) -> bool {
    let mut shard = world.shard.borrow_mut();
    let mut more =
        inbox.replay.as_mut().is_some_and(|lane| !lane.is_empty() && shard.take_replayed(lane, clock::now_us));
    more |= inbox.snapshots.as_mut().is_some_and(|lane| !lane.is_empty() && shard.take_snapshots(lane, clock::now_us));
    if !shard.has_replay_work() {
        return more;
    }
    shard.walk_on(clock::now_us);
    more || shard.has_replay_work()
}

fn control(world: &SharedWorld, message: Control) {
    match message {
        Control::Ping(reply) => {
            let _nobody_waits_any_more = reply.send(());
        }
        Control::SetSubscriptions { slot, generation, subscriptions, identity, reply } => {
            let address = Address { slot, generation };
            let mut shard = world.shard.borrow_mut();
            shard.identify(address, &identity, clock::now_ms());
            shard.set_subscriptions(address, &subscriptions, Some(reply));
        }
        Control::Poll { slot, generation, last_event_id, reply } => {
            let address = Address { slot, generation };
            world.shard.borrow_mut().poll(address, last_event_id, reply, clock::now_ms());
        }
        Control::SetApis { table, reply } => {
            world.proxy.set_apis(&table);
            let _nobody_waits_any_more = reply.send(());
        }
        Control::SetTls { config } => {
            world.tls.replace(Some(config));
        }
        Control::Answer { id, answer, reply } => {
            let waited = world.proxy.settle(id, answer);
            let shard = world.shard.borrow();
            let counter = if waited { &shard.metrics().answers_delivered } else { &shard.metrics().answers_late };
            counter.add(1);
            drop(shard);
            if let Some(reply) = reply {
                let _nobody_waits_any_more = reply.send(waited);
            }
        }
        Control::SetKeys { issuer, keys } => world.verifier.set_keys(issuer, keys),
        Control::Checkpoint(found) => world.shard.borrow_mut().checkpoint_found(&found),
        Control::Store(call) => world.proxy.stored.borrow_mut().call(call, clock::now_ms()),
        Control::Drain { drain_ms } => drain_away(world, drain_ms),
        Control::Shutdown => world.stopping.set(true),
    }
}

/// Leaves new connections to whoever else listens, and begins to move the others away.
fn drain_away(world: &SharedWorld, drain_ms: u64) {
    if world.draining.replace(true) {
        return;
    }
    let now_ms = clock::now_ms();
    for &fd in world.listeners.borrow().iter() {
        if let Err(error) = listener::ignore_new_connections(fd) {
            tracing::warn!(shard = world.number, %error, "new connections may be reset until the listeners are closed");
        }
    }
    world.listen_until_ms.set(now_ms + listener::HANDSHAKE_MS);
    world.shard.borrow_mut().start_drain(drain_ms, now_ms);
}

/// Closes the listeners once every handshake that had begun is over, and its connection accepted.
fn stop_listening(world: &SharedWorld, now_ms: u64) {
    if now_ms >= world.listen_until_ms.get() {
        for fd in world.listeners.take() {
            listener::stop_listening(fd);
        }
    }
}

/// Turns the wheel whenever the node's clock ticks, until the shard stops.
pub(super) async fn wheel(world: SharedWorld, ticker: Ticker) {
    poll_fn(|cx| {
        ticker.get_or_init(|| cx.waker().clone());
        let now_ms = clock::now_ms();
        world.shard.borrow_mut().tick(now_ms);
        world.proxy.tick(now_ms);
        stop_listening(&world, now_ms);
        let shard = world.shard.borrow();
        shard.metrics().pending_requests.set(world.proxy.pending.borrow().len() as u64);
        shard.metrics().stored_bytes.set(world.proxy.stored.borrow().bytes() as u64);
        drop(shard);
        if world.stopping.get() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Ends every connection and waits until their tasks are gone: a task that is pending when the
/// executor ends would leak.
pub(super) async fn close_all(world: &SharedWorld) {
    world.proxy.end_waits();
    world.draining.set(true);
    world.shard.borrow_mut().finish_all(clock::now_ms());
    for look in 0..CLOSE_LOOKS {
        if look >= POLITE_LOOKS {
            world.shard.borrow_mut().close_all();
        }
        if world.tasks.get() == 0 {
            return;
        }
        sleep(CLOSE_PAUSE).await;
    }
    let left = world.tasks.get();
    if left > 0 {
        tracing::warn!(shard = world.number, connections = left, "connections did not end in time and were cut");
    }
}
