//! What tests of whole machines begin with.
#![allow(dead_code, reason = "each test file uses its own part")]

mod clock;

pub(crate) use clock::start;
use proto::id::{Instance, PeerId, ShareId, TicketId};
use proto::proof::{CheckKeys, Exchange, TicketSecret};
use proto::wire::signal::{Nonce, Username};

/// The keys of one pair's checks.
pub(crate) fn keys() -> CheckKeys {
    let exchange = Exchange {
        connector: PeerId::from_bytes([1; 32]),
        connector_instance: Instance([1; 8]),
        sharer: PeerId::from_bytes([2; 32]),
        server: PeerId::from_bytes([3; 32]),
        share: ShareId([4; 8]),
        ticket: TicketId([5; 8]),
    };
    let secret = TicketSecret::from_bytes([6; 16]);
    secret.check_keys(&exchange, Instance([2; 8]), Username([7; 8]), Nonce([8; 16]), Nonce([9; 16]))
}
