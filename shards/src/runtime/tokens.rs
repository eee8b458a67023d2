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

/// Opens a token, if it was issued by this node.
pub(super) fn open(world: &World, token: &str) -> Option<(TokenKind, usize, Address)> {
    let (kind, at) = world.settings.token_key.open(token).ok()?;
    let shard = usize::from(at.shard);
    let known = at.node == world.settings.node_id && shard < world.lanes.len();
    known.then_some((kind, shard, Address { slot: at.slot, generation: at.generation }))
}
