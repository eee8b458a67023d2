//! What a client presents when it comes back, and what that means on this node.

use jiff::Timestamp;

use super::{CheckpointedCursor, Cursor, Layout, Source, TopicOffsets};

/// Where a client wants to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResumeFrom {
    /// Where its cursor says.
    Cursor(Cursor),
    /// Where its cursor says, once the checkpoints are found that it refers to.
    Checkpointed(Box<CheckpointedCursor>),
    /// Its cursor refers to a checkpoint that is kept no more.
    Gone,
    /// At the oldest event there is.
    Earliest,
    /// At the first event since this time, in milliseconds since 1970 (UTC).
    Time(i64),
    /// It presented something else.
    Unknown,
}

impl ResumeFrom {
    /// Reads a `Last-Event-ID` or `lastEventId`: a cursor, `earliest`, or a time (RFC 3339 section 5.6).
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        if text == "earliest" {
            return Self::Earliest;
        }
        if let Ok(cursor) = Cursor::parse(text) {
            return Self::Cursor(cursor);
        }
        if let Ok(cursor) = CheckpointedCursor::parse(text) {
            return Self::Checkpointed(Box::new(cursor));
        }
        text.parse::<Timestamp>().map_or(Self::Unknown, |time| Self::Time(time.as_millisecond()))
    }
}

/// Why events between two positions can't be proven to have been delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// What the client presented is no cursor of this gateway.
    CursorUnknown,
    /// The cursor refers to a checkpoint that is kept no more, so nobody knows the position that it stood for.
    CursorExpired,
    /// The client asked for more than a cursor, and `REPLAY_EARLIEST` is off.
    NotAllowed,
    /// The local hub keeps its events in memory, and its process was started anew.
    HubRestarted,
    /// The topic was deleted and made anew.
    TopicRecreated,
    /// This node doesn't read a topic of the cursor.
    TopicNotRead,
    /// This node reads the topic, but not a partition that the cursor names.
    PartitionNotRead,
    /// The events were deleted before the client came back (retention, or `HISTORY_BYTES` on the local hub).
    Expired,
    /// The partition is shorter than the cursor says: it was truncated.
    Truncated,
}

impl Reason {
    /// The word in `tidegate.history_lost`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::CursorUnknown => "cursor_unknown",
            Self::CursorExpired => "cursor_expired",
            Self::NotAllowed => "not_allowed",
            Self::HubRestarted => "hub_restarted",
            Self::TopicRecreated => "topic_recreated",
            Self::TopicNotRead => "topic_not_read",
            Self::PartitionNotRead => "partition_not_read",
            Self::Expired => "expired",
            Self::Truncated => "truncated",
        }
    }
}

/// Events that are lost to a client, or may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Why.
    pub reason: Reason,
    /// The slot, where the loss is one of a partition that is read.
    pub slot: Option<usize>,
    /// First offset that the client has not seen.
    pub from: u64,
    /// The offset at which it goes on.
    pub to: u64,
}

/// What a cursor means on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Next offset by slot that the client has not seen.
    pub next: Vec<u64>,
    /// What can't be proven.
    pub losses: Vec<Loss>,
}

/// Translates a cursor. Partitions that it doesn't name, of a topic that it does, appeared since and are read from their
/// beginning; topics that it doesn't name start `now`. A topic that was made anew is read from its beginning.
#[must_use]
pub fn resolve(cursor: &Cursor, layout: &Layout, now: &[u64], local: bool) -> Resolved {
    let mut resolved = Resolved { next: now.to_vec(), losses: Vec::new() };
    for source in layout.sources() {
        let Some(topic) = cursor.topics.iter().find(|topic| topic.name == source.name_print()) else { continue };
        let same = same_incarnation(topic, source);
        for (partition, slot) in source.slots.iter().enumerate() {
            let Some(slot) = slot.map(|slot| slot as usize).filter(|slot| *slot < now.len()) else { continue };
            let seen = topic.next.get(partition).copied().flatten();
            resolved.next[slot] = if same { seen.unwrap_or(0) } else { 0 };
            if let (false, Some(from)) = (same, seen) {
                let reason = if local { Reason::HubRestarted } else { Reason::TopicRecreated };
                resolved.losses.push(Loss { reason, slot: Some(slot), from, to: 0 });
            }
        }
    }
    let unread = unread_partitions(cursor, layout);
    resolved.losses.extend(unread.map(|from| Loss { reason: Reason::PartitionNotRead, slot: None, from, to: from }));
    let unknown =
        cursor.topics.iter().filter(|topic| layout.sources().iter().all(|own| own.name_print() != topic.name));
    resolved.losses.extend(unknown.map(|_| Loss { reason: Reason::TopicNotRead, slot: None, from: 0, to: 0 }));
    resolved
}

/// Does the cursor know more of these topics than this node: a partition that it doesn't read yet, or another incarnation? A node
/// looks at its topics every few seconds, so another one may have found it earlier. Until then nobody can say which of its events
/// the client has.
#[must_use]
pub fn is_beyond(cursor: &Cursor, layout: &Layout) -> bool {
    let remade = |source: &Source| {
        let topic = cursor.topics.iter().find(|topic| topic.name == source.name_print());
        topic.is_some_and(|topic| !same_incarnation(topic, source))
    };
    unread_partitions(cursor, layout).next().is_some() || layout.sources().iter().any(remade)
}

/// The positions in partitions, of topics that are read, which are not.
fn unread_partitions(cursor: &Cursor, layout: &Layout) -> impl Iterator<Item = u64> {
    let of_source = |source: &Source| {
        let topic = cursor.topics.iter().find(|topic| topic.name == source.name_print());
        let topic = topic.filter(|topic| same_incarnation(topic, source));
        let positions = topic.map(|topic| topic.next.iter().enumerate()).into_iter().flatten();
        // Whoever has seen nothing of a partition gets all of it once it is read.
        let seen = positions.filter_map(|(partition, next)| Some((partition, next.filter(|next| *next > 0)?)));
        let unread = seen.filter(|(partition, _)| source.slots.get(*partition).copied().flatten().is_none());
        unread.map(|(_, next)| next).collect::<Vec<_>>()
    };
    layout.sources().iter().flat_map(of_source)
}

fn same_incarnation(topic: &TopicOffsets, source: &Source) -> bool {
    let ours = source.incarnation_print();
    topic.incarnation == ours || topic.incarnation == 0 || ours == 0
}
