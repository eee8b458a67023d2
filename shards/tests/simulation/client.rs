//! One client: what it has seen, and what it must see next.

use tidegate_shards::shard::connection::Address;

/// Seats of each key: events come for one after the other, and a snapshot has the newest of each.
pub(crate) const SEATS: u64 = 4;

/// Where a client is connected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) node: usize,
    pub(crate) shard: usize,
    pub(crate) address: Address,
}

/// A client and its auditor. Sequence numbers count the events of one key in one partition.
#[derive(Debug)]
pub(crate) struct Client {
    /// Which events it wants: all of this key.
    pub(crate) key: usize,
    pub(crate) seat: Option<Place>,
    /// When it comes back, in milliseconds.
    pub(crate) back_ms: u64,
    /// Frames that it pulls at once; a slow client pulls few.
    pub(crate) pace: usize,
    pub(crate) cursor: Option<String>,
    /// It asks for the newest event of each seat first.
    snapshot: bool,
    /// The snapshot that is coming in: numbers by partition.
    initial: Option<Vec<Vec<u64>>>,
    /// What snapshots showed of partitions of which nothing else has come since.
    shown: Vec<Option<Shown>>,
    next: Vec<Next>,
    /// What a notice of lost history allows the next event of each partition to be.
    lost: Vec<Told>,
    pub(crate) deliveries: u64,
    pub(crate) history_lost: u64,
    pub(crate) snapshots: u64,
}

/// What a snapshot showed of a partition.
#[derive(Debug)]
struct Shown {
    numbers: Vec<u64>,
    /// Events of the key that there were when the snapshot ended.
    published: u64,
}

impl Shown {
    /// The stream goes on with `next`. Before it, the snapshot has the newest event of each seat, save for seats whose newest
    /// event was written while the snapshot was read: that one is yet to come.
    fn check(&self, next: u64) {
        assert!(self.numbers.is_sorted_by(|a, b| a < b), "a snapshot is in the order of the log: {self:?}");
        assert!(
            self.numbers.iter().all(|number| (next.saturating_sub(SEATS)..next).contains(number)),
            "{next}: {self:?}"
        );
        for number in next.saturating_sub(SEATS)..next {
            let is_stale = number + SEATS < self.published;
            assert!(is_stale || self.numbers.contains(&number), "{number} is missing before {next}: {self:?}");
        }
    }
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
    Event {
        partition: usize,
        sequence: u64,
    },
    SubscriptionsSet,
    HistoryLost,
    /// The end of a snapshot, and whether it says that it is complete.
    Snapshot {
        complete: bool,
    },
    Other,
}

impl Client {
    pub(crate) fn new(key: usize, partitions: usize, pace: usize, snapshot: bool) -> Self {
        Self {
            key,
            seat: None,
            back_ms: 0,
            pace,
            cursor: None,
            snapshot,
            initial: None,
            shown: (0..partitions).map(|_| None).collect(),
            next: vec![Next::Any; partitions],
            lost: vec![Told::Nothing; partitions],
            deliveries: 0,
            history_lost: 0,
            snapshots: 0,
        }
    }

    /// A partition has appeared: whoever is to go on somewhere gets all of it.
    pub(crate) fn one_more_partition(&mut self) {
        let goes_on = self.next.iter().any(|next| *next != Next::Any);
        self.next.push(if goes_on { Next::Exactly(0) } else { Next::Any });
        self.lost.push(Told::Nothing);
        self.shown.push(None);
        self.initial.iter_mut().for_each(|initial| initial.push(Vec::new()));
    }

    pub(crate) fn subscriptions(&self) -> String {
        format!(r#"[{{"eventType":"sold","oneOf":[{{"key":"k{}"}}],"snapshot":{}}}]"#, self.key, self.snapshot)
    }

    /// The connection is gone. Without a cursor there is nothing to go on from: the next one begins anew.
    pub(crate) fn cut(&mut self, back_ms: u64) {
        self.seat = None;
        self.back_ms = back_ms;
        if self.cursor.is_none() {
            self.next.fill(Next::Any);
            self.lost.fill(Told::Nothing);
            self.shown.fill_with(|| None);
        }
        self.initial = None;
    }

    /// Takes what was pulled at once: whole events of the stream, one or many (a client that catches up gets what a turn has
    /// gathered in one piece). `unread_from`: by partition, the number of the first event of its key that the node had not
    /// read by then. `published`: by partition, how many of its key there are.
    pub(crate) fn take(&mut self, frame: &[u8], unread_from: &[u64], published: &[u64], mut seen: impl FnMut(Seen)) {
        let text = std::str::from_utf8(frame).unwrap();
        assert!(text.ends_with("\n\n"), "a piece of an event: {text}");
        text.split_inclusive("\n\n").for_each(|event| seen(self.take_event(event, unread_from, published)));
    }

    fn take_event(&mut self, text: &str, unread_from: &[u64], published: &[u64]) -> Seen {
        let seen = read(text);
        match seen {
            Seen::Event { partition, sequence } if self.initial.is_some() => {
                self.initial.as_mut().unwrap()[partition].push(sequence);
                self.deliveries += 1;
            }
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
                if let Some(shown) = self.shown[partition].take()
                    && told == Told::Nothing
                {
                    shown.check(sequence);
                }
                *next = Next::Exactly(sequence + 1);
                self.deliveries += 1;
            }
            Seen::SubscriptionsSet if self.snapshot && self.cursor.is_none() => {
                self.initial = Some(vec![Vec::new(); self.next.len()]);
            }
            Seen::Snapshot { complete } => {
                let initial = self.initial.take().expect("only who has asked for a snapshot gets one");
                let count: usize = initial.iter().map(Vec::len).sum();
                assert!(text.contains(&format!("\"events\":{count}}}")), "{count} came: {text}");
                for (partition, numbers) in initial.into_iter().enumerate() {
                    assert_ne!(unread_from[partition], u64::MAX, "a snapshot before the node knows where it reads");
                    self.next[partition] = Next::AtMost(unread_from[partition]);
                    self.shown[partition] = complete.then(|| Shown { numbers, published: published[partition] });
                }
                self.snapshots += 1;
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

    /// At the end: of what nothing came after the snapshot, that must be all there is.
    pub(crate) fn check_snapshot_alone(&mut self, published: &[u64]) {
        for (partition, published) in published.iter().enumerate() {
            if let Some(shown) = self.shown[partition].take()
                && self.lost[partition] == Told::Nothing
            {
                shown.check(*published);
            }
        }
    }

    /// The partitions of which it has not seen all.
    pub(crate) fn short_of(&self, published: &[u64]) -> Vec<(usize, Next, u64)> {
        let places = self.next.iter().zip(published).zip(&self.lost).enumerate();
        let short = places.filter(|(partition, ((next, published), lost))| match next {
            Next::Any => true,
            // Of a snapshot alone it is known that it had everything if it had the newest.
            Next::AtMost(_) if self.shown[*partition].is_some() && **lost == Told::Nothing => {
                self.shown[*partition].as_ref().and_then(|shown| shown.numbers.last()).map_or(0, |last| last + 1)
                    != **published
            }
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
    if text.contains("tidegate.snapshot") {
        return Seen::Snapshot { complete: text.contains("\"complete\":true") };
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
