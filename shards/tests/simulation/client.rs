//! One client: what it has seen, and what it must see next.

use tidegate_shards::shard::connection::Address;

/// Where a client is connected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) node: usize,
    pub(crate) shard: usize,
    pub(crate) address: Address,
}

/// A client and its auditor. Sequence numbers count the events of one key in one partition.
#[derive(Debug)]
pub(crate) struct Client {
    /// Which events it wants: all of this key.
    pub(crate) key: usize,
    pub(crate) seat: Option<Seat>,
    /// When it comes back, in milliseconds.
    pub(crate) back_ms: u64,
    /// Frames that it pulls at once; a slow client pulls few.
    pub(crate) pace: usize,
    pub(crate) cursor: Option<String>,
    next: Vec<Next>,
    /// After a notice of lost history, a partition may go on at a later number.
    lost: Vec<bool>,
    pub(crate) deliveries: u64,
    pub(crate) history_lost: u64,
}

/// What the next number of a partition must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Next {
    /// Anything: the subscription is not in force yet.
    Any,
    /// This or an earlier one: the subscription came into force somewhere before.
    AtMost(u64),
    /// This.
    Exactly(u64),
}

/// What a frame was.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    Event { partition: usize, sequence: u64 },
    SubscriptionsSet,
    HistoryLost,
    Other,
}

impl Client {
    pub(crate) fn new(key: usize, partitions: usize, pace: usize) -> Self {
        Self {
            key,
            seat: None,
            back_ms: 0,
            pace,
            cursor: None,
            next: vec![Next::Any; partitions],
            lost: vec![false; partitions],
            deliveries: 0,
            history_lost: 0,
        }
    }

    pub(crate) fn subscriptions(&self) -> String {
        format!(r#"[{{"eventType":"sold","oneOf":[{{"key":"k{}"}}]}}]"#, self.key)
    }

    /// The connection is gone. Without a cursor there is nothing to go on from: the next one begins anew.
    pub(crate) fn cut(&mut self, back_ms: u64) {
        self.seat = None;
        self.back_ms = back_ms;
        if self.cursor.is_none() {
            self.next.fill(Next::Any);
            self.lost.fill(false);
        }
    }

    /// Takes what was pulled at once: whole events of the stream, one or many (a client that catches up gets what a turn has
    /// gathered in one piece). `unread_from`: by partition, the number of the first event of its key that the node had not
    /// read by then.
    pub(crate) fn take(&mut self, frame: &[u8], unread_from: &[u64], mut seen: impl FnMut(Seen)) {
        let text = std::str::from_utf8(frame).unwrap();
        assert!(text.ends_with("\n\n"), "a piece of an event: {text}");
        text.split_inclusive("\n\n").for_each(|event| seen(self.take_event(event, unread_from)));
    }

    fn take_event(&mut self, text: &str, unread_from: &[u64]) -> Seen {
        let seen = read(text);
        match seen {
            Seen::Event { partition, sequence } => {
                let next = &mut self.next[partition];
                let told = std::mem::take(&mut self.lost[partition]);
                let right = match *next {
                    Next::Any => true,
                    Next::AtMost(most) => sequence <= most || told,
                    Next::Exactly(expected) => sequence == expected || (told && sequence > expected),
                };
                assert!(right, "partition {partition}: expected {next:?}, saw {sequence}, told of loss: {told}");
                *next = Next::Exactly(sequence + 1);
                self.deliveries += 1;
            }
            // From here on everything comes; what the node has not read yet is the least of it.
            Seen::SubscriptionsSet => {
                for (next, unread) in self.next.iter_mut().zip(unread_from) {
                    if *next == Next::Any {
                        assert_ne!(*unread, u64::MAX, "in force before the node knows where it reads");
                        *next = Next::AtMost(*unread);
                    }
                }
            }
            Seen::HistoryLost => {
                self.lost.fill(true);
                self.history_lost += 1;
            }
            Seen::Other => {}
        }
        if let Some(id) = text.lines().find_map(|line| line.strip_prefix("id: ").or_else(|| line.strip_prefix("id:"))) {
            self.cursor = Some(id.to_owned());
        }
        seen
    }

    /// The partitions of which it has not seen all.
    pub(crate) fn short_of(&self, published: &[u64]) -> Vec<(usize, Next, u64)> {
        let places = self.next.iter().zip(published).zip(&self.lost).enumerate();
        let short = places.filter(|(_, ((next, published), lost))| match next {
            Next::Any => true,
            Next::AtMost(number) | Next::Exactly(number) => number != *published && !**lost,
        });
        short.map(|(partition, ((next, published), _))| (partition, *next, *published)).collect()
    }
}

fn read(text: &str) -> Seen {
    if text.contains("tidegate.history_lost") {
        return Seen::HistoryLost;
    }
    if text.contains("rig.subscriptions_set") {
        return Seen::SubscriptionsSet;
    }
    let number = |name: &str| {
        let rest = &text[text.find(name)? + name.len()..];
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse::<u64>().ok()
    };
    match (number("\"partition\":"), number("\"sequence\":")) {
        (Some(partition), Some(sequence)) => Seen::Event { partition: partition as usize, sequence },
        _ => Seen::Other,
    }
}
