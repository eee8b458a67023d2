//! Connection tokens of this shard.

use std::cell::Cell;

use super::World;
use crate::shard::connection::Address;
use crate::token::{ConnectionAddress, NONCE_BYTES, TokenKind};

thread_local! {
    static ISSUED: Cell<u64> = const { Cell::new(0) };
}

/// Writes a token for a connection of this shard; a different text each time.
pub(super) fn issue(world: &World, kind: TokenKind, address: Address) -> String {
    let issued = ISSUED.get();
    ISSUED.set(issued + 1);
    let mut nonce = [0; NONCE_BYTES];
    nonce[..8].copy_from_slice(&issued.to_be_bytes());
    nonce[8..].copy_from_slice(&address.generation.to_be_bytes());
    let shard = u16::try_from(world.number).expect("invariant: a node has far fewer than 65,536 shards");
    let Address { slot, generation } = address;
    world.settings.token_key.issue(
        kind,
        &ConnectionAddress { node: world.settings.node_id, shard, slot, generation },
        nonce,
    )
}

/// Where a connection lives.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// On this shard of this node.
    Here(usize, Address),
    /// On another node, or nowhere any more.
    Elsewhere(ConnectionAddress),
}

/// Opens a token, if it was issued by this node or one that shares its key.
pub(super) fn open(world: &World, token: &str) -> Option<(TokenKind, Place)> {
    let (kind, at) = world.settings.token_key.open(token).ok()?;
    let shard = usize::from(at.shard);
    let here = at.node == world.settings.node_id && shard < world.lanes.len();
    let place = if here {
        Place::Here(shard, Address { slot: at.slot, generation: at.generation })
    } else {
        Place::Elsewhere(at)
    };
    Some((kind, place))
}
