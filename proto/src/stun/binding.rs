//! Plain Binding requests and their answers (RFC 8489 §3), with what RFC 5780 adds to find out what a NAT does.

use std::net::SocketAddr;

use data_encoding::BASE32_NOPAD;
use stun_rs::attributes::discovery::ChangeRequestFlags::{ChangeIp, ChangePort};
use stun_rs::attributes::discovery::{ChangeRequest, OtherAddress, ResponseOrigin};
use stun_rs::attributes::stun::{Fingerprint, Software, XorMappedAddress};
use stun_rs::methods::BINDING;
use stun_rs::{MessageClass, StunMessage, StunMessageBuilder};

use super::{Transaction, decode, encode, mapped};
use crate::candidate::canonical;
use crate::sighting::Proof;

/// Fills a request up to the size of the largest answer, so that nobody can have a server send more than was
/// sent to it.
const FILLING: &str = "Culvert asks what NAT there is, and pays for the answer, byte by byte";

/// What asks for a [`Proof`] in the answer, which has it in the same attribute (SOFTWARE: a text that others ignore, RFC
/// 8489 §14.14). It is as long as the answer makes it, for the same reason as [`FILLING`].
const WANTS_PROOF: &str =
    "Culvert asks where it is seen, and pays for the answer to that byte by byte, and more";
const PROOF: &str = "Culvert ";

/// From where the server is asked to answer (RFC 5780 §7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Change {
    /// From its other IP address.
    pub ip: bool,
    /// From its other port.
    pub port: bool,
}

impl Change {
    /// From the very address that was asked.
    pub const NONE: Self = Self { ip: false, port: false };
    /// From the other port of the same IP address.
    pub const PORT: Self = Self { ip: false, port: true };
    /// From the other port of the other IP address.
    pub const BOTH: Self = Self { ip: true, port: true };

    /// Whether it is another address than the one that was asked.
    pub const fn is_any(self) -> bool {
        self.ip || self.port
    }
}

/// A plain Binding request.
pub fn binding_request(transaction: Transaction) -> Vec<u8> {
    encode(
        StunMessageBuilder::new(BINDING, MessageClass::Request)
            .with_transaction_id(transaction.into())
            .build(),
    )
}

/// A Binding request to be answered from elsewhere, no smaller than any answer to it.
pub fn change_request(transaction: Transaction, change: Change) -> Vec<u8> {
    let flags = match change {
        Change { ip: false, port: false } => None,
        Change { ip: false, port: true } => Some(ChangePort.into()),
        Change { ip: true, port: false } => Some(ChangeIp.into()),
        Change { ip: true, port: true } => Some(ChangeIp | ChangePort),
    };
    encode(
        StunMessageBuilder::new(BINDING, MessageClass::Request)
            .with_transaction_id(transaction.into())
            .with_attribute(ChangeRequest::new(flags))
            .with_attribute(Software::new(FILLING).expect("a short text"))
            .build(),
    )
}

/// A Binding request whose answer is to bring a [`Proof`], no smaller than that answer.
pub fn sighting_request(transaction: Transaction) -> Vec<u8> {
    encode(
        StunMessageBuilder::new(BINDING, MessageClass::Request)
            .with_transaction_id(transaction.into())
            .with_attribute(Software::new(WANTS_PROOF).expect("a short text"))
            .build(),
    )
}

/// What a server reads of a plain Binding request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindingRequest {
    transaction: Transaction,
    change: Change,
    wants_proof: bool,
    has_fingerprint: bool,
    size: usize,
}

impl BindingRequest {
    /// The request in a datagram, if it is one and nothing else.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let request = decode(datagram, None)?;
        if request.class() != MessageClass::Request || request.method() != BINDING {
            return None;
        }
        let flags = request.get::<ChangeRequest>().and_then(|attribute| attribute.as_change_request().ok());
        let has = |flag| flags.is_some_and(|flags| flags.flags().contains(flag));
        Some(Self {
            transaction: *request.transaction_id().as_bytes(),
            change: Change { ip: has(ChangeIp), port: has(ChangePort) },
            wants_proof: software(&request).is_some_and(|text| text == WANTS_PROOF),
            has_fingerprint: request.get::<Fingerprint>().is_some(),
            size: datagram.len(),
        })
    }

    /// Its transaction.
    pub const fn transaction(&self) -> Transaction {
        self.transaction
    }

    /// From where it is to be answered.
    pub const fn change(&self) -> Change {
        self.change
    }

    /// Whether the answer is to bring a [`Proof`].
    pub const fn wants_proof(&self) -> bool {
        self.wants_proof && !self.change.ip && !self.change.port
    }

    /// The answer to `source` with a proof for that, never larger than a [`sighting_request`].
    pub fn answer_with_proof(&self, source: SocketAddr, proof: &Proof) -> Vec<u8> {
        let text = format!("{PROOF}{}", BASE32_NOPAD.encode(&proof.0));
        encode(
            StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
                .with_transaction_id(self.transaction.into())
                .with_attribute(XorMappedAddress::from(canonical(source)))
                .with_attribute(Software::new(&text).expect("a short text"))
                .build(),
        )
    }

    /// The answer to `source`. `origin` is the address that answers; `other` the one at another IP address and
    /// port that answers too, where there is one (RFC 5780 §7.4).
    ///
    /// To a request that wants it from elsewhere, the two are only told as far as the request is as large.
    pub fn answer(
        &self,
        source: SocketAddr,
        origin: Option<SocketAddr>,
        other: Option<SocketAddr>,
    ) -> Vec<u8> {
        let whole = self.encode_answer(source, origin, other);
        if self.change.is_any() && whole.len() > self.size {
            return self.encode_answer(source, None, None);
        }
        whole
    }

    fn encode_answer(
        &self,
        source: SocketAddr,
        origin: Option<SocketAddr>,
        other: Option<SocketAddr>,
    ) -> Vec<u8> {
        let mut answer = StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
            .with_transaction_id(self.transaction.into())
            .with_attribute(XorMappedAddress::from(canonical(source)));
        if let Some(origin) = origin {
            answer = answer.with_attribute(ResponseOrigin::from(canonical(origin)));
        }
        if let Some(other) = other {
            answer = answer.with_attribute(OtherAddress::from(canonical(other)));
        }
        if self.has_fingerprint {
            answer = answer.with_attribute(Fingerprint::default());
        }
        encode(answer.build())
    }
}

/// What a client reads of an answer to a plain Binding request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindingAnswer {
    /// Where the request came from, as the server saw it.
    pub mapped: SocketAddr,
    /// The server's address at its other IP address and other port, where it has one.
    pub other: Option<SocketAddr>,
    /// By which the server knows this answer again, where that was asked for.
    pub proof: Option<Proof>,
}

impl BindingAnswer {
    /// The answer to `transaction` in a datagram, if it is one.
    pub fn read(datagram: &[u8], transaction: Transaction) -> Option<Self> {
        let answer = decode(datagram, None)?;
        let is_ours = answer.transaction_id().as_bytes() == &transaction;
        if answer.class() != MessageClass::SuccessResponse || !is_ours {
            return None;
        }
        let other = answer.get::<OtherAddress>().and_then(|attribute| attribute.as_other_address().ok());
        let other = other.map(|other| canonical(*other.socket_address()));
        let proof = software(&answer).and_then(|text| read_proof(&text));
        Some(Self { mapped: mapped(&answer)?, other, proof })
    }
}

/// The text of a message's SOFTWARE.
fn software(message: &StunMessage) -> Option<String> {
    let attribute = message.get::<Software>()?.as_software().ok()?;
    Some(attribute.as_str().to_owned())
}

fn read_proof(text: &str) -> Option<Proof> {
    let bytes = BASE32_NOPAD.decode(text.strip_prefix(PROOF)?.as_bytes()).ok()?;
    bytes.try_into().ok().map(Proof)
}

/// The address that a plain answer to `transaction` reports.
pub fn mapped_address(datagram: &[u8], transaction: Transaction) -> Option<SocketAddr> {
    BindingAnswer::read(datagram, transaction).map(|answer| answer.mapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "203.0.113.7:40001";

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn request(transaction: Transaction) -> BindingRequest {
        BindingRequest::read(&binding_request(transaction)).unwrap()
    }

    #[test]
    fn a_binding_request_is_answered_with_its_source() {
        let answer = request([1; 12]).answer(addr(SOURCE), None, None);
        assert_eq!(answer.len(), 32);
        assert_eq!(mapped_address(&answer, [1; 12]), Some(addr(SOURCE)));
        assert_eq!(mapped_address(&answer, [2; 12]), None);
    }

    #[test]
    fn an_answer_is_never_answered() {
        let answer = request([1; 12]).answer(addr(SOURCE), None, None);
        assert_eq!(BindingRequest::read(&answer), None);
    }

    #[test]
    fn every_change_is_read_as_it_was_asked_for() {
        for (ip, port) in [(false, false), (false, true), (true, false), (true, true)] {
            let change = Change { ip, port };
            let read = BindingRequest::read(&change_request([1; 12], change)).unwrap();
            assert_eq!((read.change(), read.transaction), (change, [1; 12]));
        }
        assert!(!request([1; 12]).change().is_any());
    }

    #[test]
    fn an_answer_names_the_other_address() {
        let answer =
            request([1; 12]).answer(addr(SOURCE), Some(addr("192.0.2.1:1")), Some(addr("192.0.2.2:2")));
        let read = BindingAnswer::read(&answer, [1; 12]).unwrap();
        assert_eq!(
            read,
            BindingAnswer { mapped: addr(SOURCE), other: Some(addr("192.0.2.2:2")), proof: None }
        );
    }

    #[test]
    fn what_goes_elsewhere_is_no_larger_than_our_own_request_for_it() {
        for (source, origin, other) in [
            (SOURCE, "192.0.2.1:1", "192.0.2.2:2"),
            ("[2001:db8::1]:9", "[2001:db8::2]:1", "[2001:db8::3]:2"),
        ] {
            let asked = change_request([1; 12], Change::BOTH);
            let read = BindingRequest::read(&asked).unwrap();
            let answer = read.answer(addr(source), Some(addr(origin)), Some(addr(other)));
            assert!(answer.len() <= asked.len(), "{} for {}", answer.len(), asked.len());
            assert_eq!(BindingAnswer::read(&answer, [1; 12]).unwrap().other, Some(addr(other)));
        }
    }

    #[test]
    fn others_short_requests_for_a_change_get_the_bare_address() {
        let bare = encode(
            StunMessageBuilder::new(BINDING, MessageClass::Request)
                .with_transaction_id([1; 12].into())
                .with_attribute(ChangeRequest::new(Some(ChangePort.into())))
                .build(),
        );
        let answer = BindingRequest::read(&bare).unwrap().answer(addr(SOURCE), Some(addr(SOURCE)), None);
        assert_eq!((bare.len(), answer.len()), (28, 32));
    }
}
