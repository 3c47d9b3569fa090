//! One way out: sending by one link to one address.

use std::io;
use std::sync::Arc;

use proto::path::PathId;
use quinn::udp::Transmit;
use relay::net::Link;

use super::stats::{Counters, DropReason, Drops};

/// A path that is up, and the link that it goes by.
#[derive(Debug, Clone)]
pub(super) struct Hop {
    pub(super) path: PathId,
    pub(super) link: Arc<dyn Link>,
    pub(super) counters: Arc<Counters>,
    /// What passes here says nothing of the ways to come, and none that does has been taken yet.
    pub(super) is_blind: bool,
}

/// The longest packet for which every way must have room (RFC 8200 §5: 1280 bytes with the headers).
const EVERYWHERE: usize = 1232;

/// What became of a packet, or a batch, on one hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// At least its beginning left.
    Yes,
    /// Nothing left: the link's queue is full.
    Full,
    /// The link will never take it.
    Refused,
}

impl Hop {
    /// Sends by this hop, in as many batches as its link wants.
    pub(super) fn send(&self, transmit: &Transmit<'_>, drops: &Drops) -> Sent {
        let packet = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        if self.is_blind && packet > EVERYWHERE {
            // QUIC asks whether so long a packet passes. It does, and would not on a narrow path that comes next.
            drops.add(DropReason::LinkRefused, 1);
            return Sent::Refused;
        }
        let batch = packet * self.link.max_transmit_segments().max(1);
        let mut left = transmit.contents;
        loop {
            let (contents, rest) = left.split_at(batch.min(left.len()));
            let part = Transmit {
                destination: self.path.remote,
                ecn: transmit.ecn,
                contents,
                segment_size: Some(packet).filter(|&packet| packet < contents.len()),
                src_ip: None,
            };
            match self.link.try_send(&part) {
                Ok(()) => self.counters.sent(contents.len().div_ceil(packet), contents.len()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if left.len() == transmit.contents.len() {
                        return Sent::Full;
                    }
                    // To send it all again would send twice what has left.
                    drops.add(DropReason::LinkFull, left.len().div_ceil(packet));
                    return Sent::Yes;
                }
                Err(_) => {
                    drops.add(DropReason::LinkRefused, left.len().div_ceil(packet));
                    return Sent::Refused;
                }
            }
            if rest.is_empty() {
                return Sent::Yes;
            }
            left = rest;
        }
    }
}
