use super::*;
use crate::nat::Dependence;
use crate::wire::signal::Username;

const SERVER: PeerId = PeerId::from_bytes([1; 32]);
const SHARER: PeerId = PeerId::from_bytes([2; 32]);
const CONNECTOR: (PeerId, Instance) = (PeerId::from_bytes([3; 32]), Instance([3; 8]));
const SHARE: ShareId = ShareId([4; 8]);
const TICKET: TicketId = TicketId([5; 8]);
const SECRET: TicketSecret = TicketSecret::from_bytes([6; 16]);

const NAT: NatProfile =
    NatProfile { mapping: Dependence::AddressAndPortDependent, allocation: None, latest: 40_000 };

fn doorman(fresh: bool, expires: Option<u64>) -> Doorman {
    let mut doorman = Doorman::new(SHARER, Instance([2; 8]), SHARE, [9; 32]);
    doorman.admit(TICKET, Admission { secret: SECRET, expires, fresh });
    doorman
}

fn offer(secret: &TicketSecret, nonce: u64, challenge: Option<Challenge>) -> Offer {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&nonce.to_be_bytes());
    let mut offer = Offer {
        version: VERSION,
        share: SHARE,
        ticket: TICKET,
        nonce: Nonce(bytes),
        username: Username([7; 8]),
        challenge,
        claims: Claims::default(),
        mac: Mac([0; 32]),
        nat: None,
    };
    let exchange = Doorman::new(SHARER, Instance([2; 8]), SHARE, [0; 32]).exchange(SERVER, CONNECTOR, TICKET);
    offer.mac = secret.offer_mac(&exchange, &offer);
    offer
}

fn judge(doorman: &mut Doorman, offer: &Offer) -> Decision {
    doorman.handle_offer(SERVER, CONNECTOR, offer, Some(Claims::default()), Some(NAT), 1000)
}

fn verdict(decision: Decision) -> Option<Verdict> {
    match decision {
        Decision::Admit { answer, .. } | Decision::Answer(answer) => Some(answer.verdict),
        Decision::Replayed => None,
    }
}

#[test]
fn a_holder_of_a_fresh_ticket_is_let_in_at_once() {
    let offer = offer(&SECRET, 1, None);
    let Decision::Admit { answer, exchange, .. } = judge(&mut doorman(true, None), &offer) else {
        panic!("not let in")
    };
    assert!(SECRET.proves_answer(&exchange, Instance([2; 8]), &answer));
}

#[test]
fn who_is_let_in_and_nobody_else_is_told_of_our_nat_and_only_its_own_word_of_its_nat_counts() {
    let (mut doorman, plain) = (doorman(true, None), offer(&SECRET, 1, None));
    let exchange = doorman.exchange(SERVER, CONNECTOR, TICKET);
    let hint = |from, nonce| SECRET.nat_hint(&exchange, from, (nonce, 0), (NAT, 0));
    let told = Offer { nat: Some(hint(CONNECTOR, plain.nonce)), ..plain };
    let Decision::Admit { answer, nat, .. } = judge(&mut doorman, &told) else { panic!("not let in") };
    assert_eq!(nat, Some(NAT));
    let (sharer, ours) = ((SHARER, Instance([2; 8])), answer.nat.unwrap());
    assert!(SECRET.proves_nat(&exchange, sharer, (told.nonce, 0), &ours));
    for (n, wrong) in [(2, hint(sharer, told.nonce)), (3, hint(CONNECTOR, told.nonce))] {
        let offer = Offer { nat: Some(wrong), ..offer(&SECRET, n, None) };
        let Decision::Admit { nat, .. } = judge(&mut doorman, &offer) else { panic!("not let in") };
        assert_eq!(nat, None);
    }
    let refused = judge(&mut doorman, &offer(&TicketSecret::from_bytes([0; 16]), 4, None));
    assert!(matches!(refused, Decision::Answer(Answer { nat: None, .. })));
}

#[test]
fn a_replayed_offer_is_ignored() {
    let mut doorman = doorman(true, None);
    let offer = offer(&SECRET, 1, None);
    assert!(matches!(judge(&mut doorman, &offer), Decision::Admit { .. }));
    assert!(matches!(judge(&mut doorman, &offer), Decision::Replayed));
    assert_eq!(doorman.stats().replayed, 1);
}

#[test]
fn a_wrong_secret_is_refused() {
    let wrong = TicketSecret::from_bytes([0; 16]);
    let refused = judge(&mut doorman(true, None), &offer(&wrong, 1, None));
    assert_eq!(verdict(refused), Some(Verdict::Refused(Refusal::WrongTicket)));
}

#[test]
fn an_offer_overheard_under_another_identity_or_server_is_refused() {
    let offer = offer(&SECRET, 1, None);
    let mut doorman = doorman(true, None);
    for (server, from) in
        [(SHARER, CONNECTOR), (SERVER, (SERVER, CONNECTOR.1)), (SERVER, (CONNECTOR.0, Instance([0; 8])))]
    {
        let decision = doorman.handle_offer(server, from, &offer, Some(Claims::default()), None, 0);
        assert_eq!(verdict(decision), Some(Verdict::Refused(Refusal::WrongTicket)));
    }
}

#[test]
fn an_expired_ticket_is_refused_from_that_second_on() {
    let decision = judge(&mut doorman(true, Some(1000)), &offer(&SECRET, 1, None));
    assert_eq!(verdict(decision), Some(Verdict::Refused(Refusal::Expired)));
    let decision = judge(&mut doorman(true, Some(1001)), &offer(&SECRET, 1, None));
    assert!(matches!(decision, Decision::Admit { .. }));
}

#[test]
fn a_revoked_ticket_is_refused() {
    let mut doorman = doorman(true, None);
    doorman.revoke(TICKET);
    let decision = judge(&mut doorman, &offer(&SECRET, 1, None));
    assert_eq!(verdict(decision), Some(Verdict::Refused(Refusal::WrongTicket)));
}

#[test]
fn after_a_restart_an_offer_must_repeat_the_challenge() {
    let mut doorman = doorman(false, None);
    let old = offer(&SECRET, 1, None);
    let Some(Verdict::Again(challenge)) = verdict(judge(&mut doorman, &old)) else {
        panic!("not challenged")
    };
    assert!(matches!(judge(&mut doorman, &offer(&SECRET, 2, Some(challenge))), Decision::Admit { .. }));
    assert!(matches!(judge(&mut doorman, &offer(&SECRET, 2, Some(challenge))), Decision::Replayed));
    let made_up = Some(Challenge([0; 16]));
    let decision = judge(&mut doorman, &offer(&SECRET, 3, made_up));
    assert!(matches!(verdict(decision), Some(Verdict::Again(_))));
}

#[test]
fn no_offer_is_ever_let_in_twice_however_many_come_between() {
    let mut doorman = doorman(true, None);
    let first = offer(&SECRET, 0, None);
    assert!(matches!(judge(&mut doorman, &first), Decision::Admit { .. }));
    let mut challenge = None;
    let mut challenged = Vec::new();
    for n in 1..3 * GENERATION as u64 {
        let mut this = offer(&SECRET, n, challenge);
        if let Some(Verdict::Again(again)) = verdict(judge(&mut doorman, &this)) {
            challenge = Some(again);
            this = offer(&SECRET, n, challenge);
            assert!(matches!(judge(&mut doorman, &this), Decision::Admit { .. }));
        }
        challenged.push(this);
        if n % 1000 == 0 {
            assert!(!matches!(judge(&mut doorman, &first), Decision::Admit { .. }), "at {n}");
        }
    }
    for old in challenged {
        assert!(!matches!(judge(&mut doorman, &old), Decision::Admit { .. }));
    }
    assert!(doorman.current.len() <= GENERATION && doorman.previous.len() <= GENERATION);
}

#[test]
fn without_room_a_good_offer_is_refused_and_may_come_again() {
    let mut doorman = doorman(true, None);
    let offer = offer(&SECRET, 1, None);
    let decision = doorman.handle_offer(SERVER, CONNECTOR, &offer, None, None, 0);
    assert_eq!(verdict(decision), Some(Verdict::Refused(Refusal::Full)));
    assert!(matches!(judge(&mut doorman, &offer), Decision::Admit { .. }));
}

fn word(is_mapped: bool) -> Option<NatWord> {
    Some(NatWord { profile: NAT, is_mapped })
}

#[test]
fn who_holds_the_newest_ticket_can_open_what_is_said_of_our_nat_whenever_it_changes() {
    let mut doorman = doorman(true, None);
    let (other, newest) = (TicketSecret::from_bytes([7; 16]), TicketId([8; 8]));
    doorman.admit(newest, Admission { secret: other.clone(), expires: None, fresh: true });
    let place =
        Place { sharer: SHARER, instance: Instance([2; 8]), server: SERVER, share: SHARE, ticket: newest };
    let mut seen = BTreeSet::new();
    for word in [word(false), word(true), word(false)] {
        let told = doorman.describe(SERVER, word, 1000).unwrap().unwrap();
        assert_eq!((told.ticket, other.open_nat(&place, &told.sealed)), (newest, word));
        assert_eq!(SECRET.open_nat(&place, &told.sealed), None);
        assert_eq!(doorman.describe(SERVER, word, 1000), None, "it was said");
        assert!(seen.insert(told.sealed), "the same bytes would tell the server that nothing is new");
    }
    assert_eq!(doorman.describe(SERVER, None, 1000), Some(None));
}

#[test]
fn who_holds_no_good_ticket_is_told_nothing_of_our_nat() {
    assert_eq!(doorman(true, Some(1000)).describe(SERVER, word(false), 1000), Some(None));
    let mut doorman = doorman(true, None);
    doorman.revoke(TICKET);
    assert_eq!(doorman.describe(SERVER, word(false), 1000), Some(None));
}
