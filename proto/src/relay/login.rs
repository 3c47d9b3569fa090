//! The proof with which a peer logs in at a relay.
//!
//! The signature is over the relay's identity ‖ the peer's ‖ its instance ‖ the relay's challenge, under a
//! label of its own. It names whom it is for: a relay that passes another one's challenge on gets a
//! signature that is worth nothing there, and a peer that knows whom it dials signs for nobody else.

use crate::id::{Instance, PeerId};
use crate::key::{SecretKey, verify};
use crate::wire::relay::{Address, Challenge, Login};

/// The label of the signature.
const LABEL: &str = "culvert/1 relay login";

/// An address whose login was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven(Address);

impl Proven {
    /// The address.
    pub const fn address(&self) -> Address {
        self.0
    }

    /// What this process says of itself.
    pub(super) const fn own(address: Address) -> Self {
        Self(address)
    }
}

/// Answers a relay's challenge.
pub fn answer(challenge: &Challenge, key: &SecretKey, instance: Instance) -> Login {
    let from = Address { peer: key.peer_id(), instance };
    Login { from, signature: key.sign(LABEL, &message(challenge, &from)) }
}

/// Checks the answer to a challenge; `None` when it proves nothing, or claims an instance that is reserved.
pub fn check(challenge: &Challenge, login: &Login) -> Option<Proven> {
    let signed = verify(&login.from.peer, LABEL, &message(challenge, &login.from), &login.signature);
    (signed && login.from.instance != Instance::SERVICE).then_some(Proven(login.from))
}

fn message(challenge: &Challenge, from: &Address) -> Vec<u8> {
    let Challenge { relay, challenge } = challenge;
    let peer: &PeerId = &from.peer;
    [&relay.as_bytes()[..], peer.as_bytes(), &from.instance.0, challenge].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::key;

    const RELAY: PeerId = PeerId::from_bytes([3; 32]);
    const CHALLENGE: Challenge = Challenge { relay: RELAY, challenge: [5; 32] };
    const INSTANCE: Instance = Instance([7; 8]);

    #[test]
    fn the_answer_to_a_challenge_proves_the_address() {
        let proven = check(&CHALLENGE, &answer(&CHALLENGE, &key(), INSTANCE)).unwrap();
        assert_eq!(proven.address(), Address { peer: key().peer_id(), instance: INSTANCE });
    }

    #[test]
    fn another_relays_challenge_fails() {
        // A relay in the middle shows its own identity with our challenge, and passes the answer on.
        let middle = Challenge { relay: PeerId::from_bytes([4; 32]), ..CHALLENGE };
        assert_eq!(check(&CHALLENGE, &answer(&middle, &key(), INSTANCE)), None);
    }

    #[test]
    fn an_old_answer_fails() {
        let old = Challenge { challenge: [6; 32], ..CHALLENGE };
        assert_eq!(check(&CHALLENGE, &answer(&old, &key(), INSTANCE)), None);
    }

    #[test]
    fn another_identity_or_instance_fails() {
        let login = answer(&CHALLENGE, &key(), INSTANCE);
        let with = |from| Login { from, ..login };
        assert_eq!(check(&CHALLENGE, &with(Address { peer: RELAY, ..login.from })), None);
        assert_eq!(check(&CHALLENGE, &with(Address { instance: Instance([8; 8]), ..login.from })), None);
    }

    #[test]
    fn a_signature_under_another_label_fails() {
        let login = answer(&CHALLENGE, &key(), INSTANCE);
        let signature = key().sign("culvert/1 something else", &message(&CHALLENGE, &login.from));
        assert_eq!(check(&CHALLENGE, &Login { signature, ..login }), None);
    }

    #[test]
    fn nobody_logs_in_as_a_service() {
        assert_eq!(check(&CHALLENGE, &answer(&CHALLENGE, &key(), Instance::SERVICE)), None);
    }
}
