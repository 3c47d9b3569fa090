//! **Signals**: the authenticated messages of one exchange beside its offer and answer.

use crate::id::{Instance, PeerId};
use crate::nat::NatProfile;
use crate::proof::{Exchange, TicketSecret};
use crate::wire::VERSION;
use crate::wire::signal::{Claims, Nonce, Trickle};

/// What it takes to write and to believe the trickles of one exchange.
#[derive(Debug)]
pub struct Signals {
    exchange: Exchange,
    secret: TicketSecret,
    offer: Nonce,
    sent: u32,
    received: u32,
}

impl Signals {
    /// Of the exchange that `offer` opened.
    pub const fn new(exchange: Exchange, secret: TicketSecret, offer: Nonce) -> Self {
        Self { exchange, secret, offer, sent: 0, received: 0 }
    }

    /// The exchange.
    pub const fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Our further claims.
    pub fn trickle(&mut self, me: (PeerId, Instance), claims: Claims) -> Trickle {
        self.sent += 1;
        let mac = self.secret.trickle_mac(&self.exchange, me, self.offer, self.sent, &claims);
        Trickle { version: VERSION, offer: self.offer, counter: self.sent, claims, mac, nat: None }
    }

    /// What we say of our NAT, and for which round.
    pub fn tell(&mut self, me: (PeerId, Instance), profile: NatProfile, round: u8) -> Trickle {
        let trickle = self.trickle(me, Claims::default());
        let place = (self.offer, self.sent);
        let hint = self.secret.nat_hint(&self.exchange, me, place, (profile, round));
        Trickle { nat: Some(hint), ..trickle }
    }

    /// What an accepted trickle says of its sender's NAT, and for which round.
    pub fn told(&self, from: (PeerId, Instance), trickle: &Trickle) -> Option<(NatProfile, u8)> {
        let place = (trickle.offer, trickle.counter);
        let hint = trickle.nat.filter(|hint| self.secret.proves_nat(&self.exchange, from, place, hint))?;
        Some((hint.profile, hint.round))
    }

    /// Whether a trickle is the remote's, and newer than the last.
    pub fn accepts(&mut self, from: (PeerId, Instance), trickle: &Trickle) -> bool {
        let is_new = trickle.counter > self.received && trickle.offer == self.offer;
        let is_proven = is_new && self.secret.proves_trickle(&self.exchange, from, trickle);
        if is_proven {
            self.received = trickle.counter;
        }
        is_proven
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ShareId, TicketId};
    use crate::nat::{Allocation, Dependence};
    use crate::wire::signal::NatHint;

    const CONNECTOR: (PeerId, Instance) = (PeerId::from_bytes([1; 32]), Instance([1; 8]));
    const SHARER: (PeerId, Instance) = (PeerId::from_bytes([2; 32]), Instance([2; 8]));

    fn signals(offer: u8) -> Signals {
        let exchange = Exchange {
            connector: CONNECTOR.0,
            connector_instance: CONNECTOR.1,
            sharer: SHARER.0,
            server: PeerId::from_bytes([3; 32]),
            share: ShareId([4; 8]),
            ticket: TicketId([5; 8]),
        };
        Signals::new(exchange, TicketSecret::from_bytes([6; 16]), Nonce([offer; 16]))
    }

    #[test]
    fn what_is_said_of_a_nat_counts_with_its_own_trickle_alone() {
        let (mut ours, theirs) = (signals(1), signals(1));
        let mapping = Dependence::AddressAndPortDependent;
        let nat = NatProfile { mapping, allocation: Some(Allocation::Sequential { step: 2 }), latest: 7 };
        let trickle = ours.tell(CONNECTOR, nat, 3);
        assert_eq!(theirs.told(CONNECTOR, &trickle), Some((nat, 3)));
        assert_eq!(theirs.told(SHARER, &trickle), None);
        let moved = Trickle { counter: trickle.counter + 1, ..trickle.clone() };
        assert_eq!(theirs.told(CONNECTOR, &moved), None);
        let hint = trickle.nat.map(|hint| NatHint { round: 4, ..hint });
        assert_eq!(theirs.told(CONNECTOR, &Trickle { nat: hint, ..trickle }), None);
        assert_eq!(theirs.told(CONNECTOR, &ours.trickle(CONNECTOR, Claims::default())), None);
    }

    #[test]
    fn a_trickle_is_taken_once_from_its_sender_and_in_its_exchange_alone() {
        let (mut ours, mut theirs) = (signals(1), signals(1));
        let trickle = ours.trickle(CONNECTOR, Claims::default());
        assert!(!theirs.accepts(SHARER, &trickle));
        assert!(!signals(2).accepts(CONNECTOR, &trickle));
        assert!(theirs.accepts(CONNECTOR, &trickle));
        assert!(!theirs.accepts(CONNECTOR, &trickle));
        assert!(theirs.accepts(CONNECTOR, &ours.trickle(CONNECTOR, Claims::default())));
    }
}
