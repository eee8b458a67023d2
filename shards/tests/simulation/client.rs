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
    /// What a notice of lost history allows the next event of each partition to be.
    lost: Vec<Told>,
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

/// What a client was told of its history.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Told {
    #[default]
    Nothing,
    /// Events are gone: it may go on later.
    Lost,
    /// The node doesn't know how far the client is.
    Unknown,
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
            lost: vec![Told::Nothing; partitions],
            deliveries: 0,
            history_lost: 0,
        }
    }

    /// A partition has appeared: whoever is to go on somewhere gets all of it.
    pub(crate) fn one_more_partition(&mut self) {
        let goes_on = self.next.iter().any(|next| *next != Next::Any);
        self.next.push(if goes_on { Next::Exactly(0) } else { Next::Any });
        self.lost.push(Told::Nothing);
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
            self.lost.fill(Told::Nothing);
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
                    _ if told == Told::Unknown => true,
                    Next::AtMost(most) => sequence <= most || told == Told::Lost,
                    Next::Exactly(expected) => sequence == expected || (told == Told::Lost && sequence > expected),
                };
                assert!(right, "partition {partition}: expected {next:?}, saw {sequence}, told: {told:?}");
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
                let unknown = text.contains("partition_not_read");
                self.lost.fill(if unknown { Told::Unknown } else { Told::Lost });
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
            Next::AtMost(number) | Next::Exactly(number) => number != *published && **lost == Told::Nothing,
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
