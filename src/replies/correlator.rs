//! From the text of a correlation id to the shard that waits.

use tidegate_reactive::correlation::{CorrelationId, CorrelationKey};

/// Characters at the start of an id that name the node: six bytes of the instance in Base64.
const NODE_CHARS: usize = 8;
/// Low bits of an instance: the number of the shard.
const SHARD_BITS: u64 = 0xffff;

/// Why an id leads to no shard of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// It is another node's, of a former life of this one, or no id at all.
    #[error("the correlation id belongs to no request of this node")]
    Foreign,
    /// It names this node, which has not signed it.
    #[error("the correlation id is not valid")]
    Forged,
}

/// Knows the ids of this node.
#[derive(Clone, Debug)]
pub struct Correlator {
    key: CorrelationKey,
    node: u64,
    prefix: [u8; NODE_CHARS],
    shards: usize,
}

impl Correlator {
    /// For the node whose shards are instances `instance` and up, `shards` of them.
    #[must_use]
    pub fn new(key: CorrelationKey, instance: u64, shards: usize) -> Self {
        let node = instance & !SHARD_BITS;
        let sealed = key.seal(CorrelationId { instance: node, slot: 0, generation: 0 });
        let mut prefix = [0; NODE_CHARS];
        prefix.copy_from_slice(&sealed.as_bytes()[..NODE_CHARS]);
        Self { key, node, prefix, shards }
    }

    /// The request's id and its shard. What is for other nodes costs a comparison of eight bytes.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub fn resolve(&self, text: &[u8]) -> Result<(CorrelationId, usize), Unresolved> {
        if !text.starts_with(&self.prefix) {
            return Err(Unresolved::Foreign);
        }
        let id = self.key.open(text).ok_or(Unresolved::Forged)?;
        let shard = usize::try_from(id.instance & SHARD_BITS).unwrap_or(usize::MAX);
        if id.instance & !SHARD_BITS != self.node || shard >= self.shards {
            return Err(Unresolved::Foreign);
        }
        Ok((id, shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: u64 = 0x0102_0304_0506_0000;

    fn id(instance: u64) -> CorrelationId {
        CorrelationId { instance, slot: 5, generation: 6 }
    }

    fn key() -> CorrelationKey {
        CorrelationKey::derive_from(b"secret")
    }

    #[test]
    fn an_id_leads_to_its_shard() {
        let correlator = Correlator::new(key(), NODE, 3);
        for shard in 0..3 {
            let id = id(NODE + shard);
            assert_eq!(correlator.resolve(key().seal(id).as_bytes()), Ok((id, shard as usize)));
        }
        assert_eq!(correlator.resolve(key().seal(id(NODE + 3)).as_bytes()), Err(Unresolved::Foreign));
    }

    #[test]
    fn what_is_for_other_nodes_is_left_to_them() {
        let correlator = Correlator::new(key(), NODE, 3);
        let other = key().seal(id(NODE + (1 << 16)));
        for text in [other.as_bytes(), b"", b"AQID", b"\xff\xff"] {
            assert_eq!(correlator.resolve(text), Err(Unresolved::Foreign), "{text:?}");
        }
    }

    #[test]
    fn an_id_that_this_node_has_not_signed_is_forged() {
        let correlator = Correlator::new(key(), NODE, 3);
        let forged = CorrelationKey::derive_from(b"guess").seal(id(NODE));
        let signed = key().seal(id(NODE));
        let tampered = format!("{}A{}", &signed[..20], &signed[21..]);
        for text in [forged.as_str(), &signed[..42], &format!("{signed}A"), tampered.as_str()] {
            if text != signed {
                assert_eq!(correlator.resolve(text.as_bytes()), Err(Unresolved::Forged), "{text}");
            }
        }
    }
}
