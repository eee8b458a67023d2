//! A production shard and the publisher that feeds it, driven by hand: no event loop, real sockets.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use tidegate_shards::bell::Bell;
use tidegate_shards::clock;
use tidegate_shards::event::Event;
use tidegate_shards::mailbox::{Inbox, lanes};
use tidegate_shards::metrics::ShardMetrics;
use tidegate_shards::publisher::{InterestLane, Position, Publisher};
use tidegate_shards::settings::ShardSettings;
use tidegate_shards::shard::Shard;
use tidegate_shards::shard::connection::{Address, Output};
use tidegate_shards::subscription::parse_list;

use crate::floor::sockets::Sockets;
use crate::samples::EVENT_TYPE;

const MAILBOX_EVENTS: usize = 4_096;
const SEGMENT_BYTES: usize = 4 << 20;
const HISTORY_BYTES: usize = 16 << 20;

/// One shard whose connections are WebSockets that all want [`EVENT_TYPE`].
#[derive(Debug)]
pub struct FanOut {
    shard: Shard,
    publisher: Publisher,
    inbox: Inbox,
    addresses: Vec<Address>,
    offset: u64,
}

impl FanOut {
    /// Opens a connection on every socket and waits until all subscriptions are in force. `sockets` must outlive it.
    ///
    /// # Errors
    /// The system refused an eventfd.
    ///
    /// # Panics
    /// Never: the subscription is valid.
    pub fn new(sockets: &Sockets) -> io::Result<Self> {
        let (events, _control, inbox) = lanes(MAILBOX_EVENTS);
        let interest = InterestLane::default();
        let publisher = Publisher::new(vec![events], Arc::clone(&interest), SEGMENT_BYTES, HISTORY_BYTES);
        let metrics = Arc::<ShardMetrics>::default();
        let shard = Shard::new(0, Arc::new(settings()), metrics, interest, Bell::new()?, 0);
        let mut fan_out = Self { shard, publisher, inbox, addresses: Vec::new(), offset: 0 };
        let subscriptions =
            parse_list(&format!(r#"[{{"eventType":"{EVENT_TYPE}"}}]"#)).expect("invariant: the subscription is valid");
        for socket in sockets.senders() {
            let address = fan_out.shard.accepted(u64::MAX - 1, 0);
            fan_out.shard.open(address, Output::WebSocket(socket.as_raw_fd()), Vec::new(), "token", 0);
            fan_out.shard.set_subscriptions(address, &subscriptions, None);
            fan_out.shard.opened(address);
            fan_out.addresses.push(address);
        }
        fan_out.turn();
        Ok(fan_out)
    }

    /// Publishes a batch and lets the shard deliver it: archived, matched, and sent once per connection.
    ///
    /// # Panics
    /// With more events than the mailbox holds.
    pub fn deliver(&mut self, events: &[Event<'_>]) {
        let now_us = clock::now_us();
        for event in events {
            let position = Position { partition: 0, offset: self.offset };
            self.publisher.publish(event, position, now_us).expect("the batch fits into the mailbox");
            self.offset += 1;
        }
        self.turn();
    }

    /// Events that went to connections, over all of them.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.shard.metrics().deliveries.get()
    }

    /// Bytes that the sockets have taken.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.shard.metrics().sent_bytes.get()
    }

    fn turn(&mut self) {
        self.publisher.apply_interest();
        while let Ok(mail) = self.inbox.events.pop() {
            self.shard.take_mail(mail);
        }
        self.shard.flush_batch();
        // What a full socket did not take; in production its task does this.
        while self.shard.metrics().queue_bytes.get() > 0 {
            for &address in &self.addresses {
                self.shard.flush_queue(address);
            }
        }
    }
}

fn settings() -> ShardSettings {
    ShardSettings { max_connections_per_minute: u32::MAX, max_queue_bytes: 64 << 20, ..ShardSettings::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn every_connection_gets_every_event_and_the_bytes_arrive() {
        let sockets = Sockets::connect(3).unwrap();
        let mut fan_out = FanOut::new(&sockets).unwrap();
        fan_out.deliver(&[samples::event(EVENT_TYPE, 1, 200), samples::event(EVENT_TYPE, 2, 200)]);
        assert_eq!(fan_out.deliveries(), 6);
        while sockets.received_bytes() < fan_out.sent_bytes() {
            std::thread::yield_now();
        }
        assert!(fan_out.sent_bytes() > 6 * 200);
    }
}
