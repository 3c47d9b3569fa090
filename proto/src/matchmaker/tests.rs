use super::*;
use crate::clock::start;
use crate::id::TicketId;
use crate::sighting::Notary;
use crate::wire::signal::{Answer, Claims, Mac, Offer, Refusal, Trickle, Username};

const SHARER: PeerId = PeerId::from_bytes([1; 32]);
const CONNECTOR: PeerId = PeerId::from_bytes([2; 32]);
const SHARE: ShareId = ShareId([3; 8]);

struct Rig {
    machine: Matchmaker,
    now: Instant,
}

impl Rig {
    fn new(config: MatchmakerConfig) -> Self {
        Self { machine: Matchmaker::new(config), now: start() }
    }

    fn join(&mut self, key: SessionKey, peer: PeerId, instance: u8) {
        let observed = format!("203.0.113.{key}:4000").parse().unwrap();
        self.machine.handle_connected(key, peer, observed, self.now);
        self.say(key, ToServer::Hello { version: VERSION, instance: Instance([instance; 8]), token: None });
    }

    fn say(&mut self, key: SessionKey, message: ToServer) {
        self.machine.handle_message(key, message, self.now);
    }

    fn heard(&mut self) -> Vec<MatchmakerAction> {
        std::iter::from_fn(|| self.machine.poll_action()).collect()
    }

    /// A sharer as session 1 and a connector as session 2, all greetings read.
    fn pair() -> Self {
        let mut rig = Self::new(MatchmakerConfig::default());
        rig.join(1, SHARER, 1);
        rig.say(1, ToServer::Register { share: SHARE, nat: None });
        rig.join(2, CONNECTOR, 2);
        rig.heard();
        rig
    }

    fn offer(&mut self, key: SessionKey, nonce: u8) {
        self.say(key, ToServer::Offer { to: SHARER, offer: offer(nonce) });
    }
}

fn offer(nonce: u8) -> Offer {
    Offer {
        version: VERSION,
        share: SHARE,
        ticket: TicketId([0; 8]),
        nonce: Nonce([nonce; 16]),
        username: Username([0; 8]),
        challenge: None,
        claims: Claims::default(),
        mac: Mac([0; 32]),
        nat: None,
    }
}

fn answer(nonce: u8, verdict: Verdict) -> ToServer {
    let answer =
        Answer { version: VERSION, offer: Nonce([nonce; 16]), verdict, mac: Mac([0; 32]), nat: None };
    ToServer::Answer { to: CONNECTOR, to_instance: Instance([2; 8]), answer }
}

fn accepted() -> Verdict {
    Verdict::Accepted { nonce: Nonce([0; 16]), claims: Claims::default() }
}

fn trickle(nonce: u8) -> ToServer {
    let trickle = Trickle {
        version: VERSION,
        offer: Nonce([nonce; 16]),
        counter: 1,
        claims: Claims::default(),
        mac: Mac([0; 32]),
        nat: None,
    };
    ToServer::Trickle { to: CONNECTOR, to_instance: Instance([2; 8]), trickle }
}

#[test]
fn an_offer_reaches_the_sharer_with_the_observed_address() {
    let mut rig = Rig::pair();
    rig.offer(2, 9);
    let heard = rig.heard();
    assert!(matches!(
        &heard[0],
        MatchmakerAction::Send(2, FromServer::Forwarded { to_instance: Instance([1, ..]), .. })
    ));
    let MatchmakerAction::Send(1, FromServer::Offer { from, observed, .. }) = &heard[1] else { panic!() };
    assert_eq!((*from, observed.to_string()), (CONNECTOR, "203.0.113.2:4000".to_owned()));
}

#[test]
fn unknown_and_offline_look_the_same() {
    let mut rig = Rig::pair();
    // The time in which sharers come back to a server that has just started is over.
    rig.now += MatchmakerConfig::default().returning;
    rig.say(2, ToServer::Offer { to: CONNECTOR, offer: offer(8) });
    rig.machine.handle_disconnected(1);
    rig.offer(2, 9);
    let reasons: Vec<_> = rig.heard();
    assert_eq!(reasons.len(), 2);
    for action in reasons {
        let MatchmakerAction::Send(2, FromServer::Undelivered { reason, .. }) = action else { panic!() };
        assert_eq!(reason, Undeliverable::Offline);
    }
}

#[test]
fn an_accepting_answer_discloses_the_address_and_a_refusing_one_does_not() {
    for (verdict, disclosed) in [(accepted(), true), (Verdict::Refused(Refusal::WrongTicket), false)] {
        let mut rig = Rig::pair();
        rig.offer(2, 9);
        rig.heard();
        rig.say(1, answer(9, verdict));
        let heard = rig.heard();
        let MatchmakerAction::Send(2, FromServer::Answer { observed, .. }) = &heard[0] else { panic!() };
        assert_eq!(observed.is_some(), disclosed);
    }
}

#[test]
fn nobody_answers_or_trickles_outside_an_exchange() {
    let mut rig = Rig::pair();
    rig.join(3, PeerId::from_bytes([9; 32]), 3);
    rig.offer(2, 9);
    rig.heard();
    rig.say(3, answer(9, accepted()));
    rig.say(3, trickle(9));
    rig.say(2, answer(9, accepted()));
    rig.say(1, answer(8, accepted()));
    assert_eq!(rig.heard(), []);
    assert_eq!(rig.machine.stats().signals_stray, 4);
    rig.say(2, trickle(9));
    rig.say(1, trickle(9));
    assert_eq!(rig.heard().len(), 2);
}

#[test]
fn an_old_exchange_is_answered_no_more_and_trickled_in_with_the_address_of_now() {
    let mut rig = Rig::pair();
    rig.offer(2, 9);
    rig.now += Duration::from_secs(31);
    rig.heard();
    rig.say(1, answer(9, accepted()));
    assert_eq!(rig.heard(), []);
    let moved = "198.51.100.9:5000".parse().unwrap();
    rig.machine.handle_rebound(1, moved);
    assert_eq!(rig.heard(), [MatchmakerAction::Send(1, FromServer::Observed(moved))]);
    rig.say(1, trickle(9));
    let heard = rig.heard();
    let [MatchmakerAction::Send(2, FromServer::Trickle { observed, .. })] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(*observed, moved);
}

#[test]
fn an_exchange_ends_with_either_session() {
    for gone in [1, 2] {
        let mut rig = Rig::pair();
        rig.offer(2, 9);
        rig.machine.handle_disconnected(gone);
        rig.heard();
        rig.say(3 - gone, trickle(9));
        assert_eq!(rig.heard(), []);
        assert_eq!(rig.machine.stats().signals_stray, 1);
    }
}

#[test]
fn the_newest_registration_has_the_offers_and_the_older_is_told() {
    let mut rig = Rig::pair();
    rig.join(4, SHARER, 4);
    rig.heard();
    rig.say(4, ToServer::Register { share: SHARE, nat: None });
    assert_eq!(
        rig.heard(),
        [
            MatchmakerAction::Send(4, FromServer::Registered { share: SHARE }),
            MatchmakerAction::Send(1, FromServer::Displaced { share: SHARE }),
        ]
    );
    rig.offer(2, 9);
    assert!(matches!(rig.heard()[1], MatchmakerAction::Send(4, FromServer::Offer { .. })));
    rig.machine.handle_disconnected(4);
    assert_eq!(rig.heard(), [MatchmakerAction::Send(1, FromServer::Registered { share: SHARE })]);
    rig.offer(2, 10);
    assert!(matches!(rig.heard()[1], MatchmakerAction::Send(1, FromServer::Offer { .. })));
}

#[test]
fn only_the_same_instance_displaces_itself() {
    let mut rig = Rig::pair();
    rig.join(5, SHARER, 5);
    assert!(!rig.heard().iter().any(|action| matches!(action, MatchmakerAction::Close(..))));
    rig.join(6, SHARER, 1);
    assert!(rig.heard().contains(&MatchmakerAction::Close(1, close::REPLACED)));
    assert_eq!(rig.machine.stats().sessions, 3);
}

#[test]
fn one_may_dial_oneself() {
    let mut rig = Rig::pair();
    rig.join(7, SHARER, 7);
    rig.heard();
    rig.offer(7, 9);
    assert!(matches!(rig.heard()[1], MatchmakerAction::Send(1, FromServer::Offer { .. })));
}

#[test]
fn a_flood_of_offers_is_held_to_its_rate() {
    let mut rig = Rig::pair();
    for n in 0..100 {
        rig.offer(2, n);
    }
    assert_eq!(rig.machine.stats().offers_forwarded, 50);
    assert_eq!(rig.machine.stats().offers_limited, 50);
}

#[test]
fn a_flood_of_messages_closes_the_session() {
    let mut rig = Rig::pair();
    for n in 0..1001 {
        rig.say(2, ToServer::Ping(n));
    }
    assert_eq!(rig.heard().last(), Some(&MatchmakerAction::Close(2, close::PROTOCOL)));
}

#[test]
fn one_network_does_not_have_all_sessions() {
    let config = MatchmakerConfig { max_sessions: 5, max_sessions_each: 2, ..MatchmakerConfig::default() };
    let mut rig = Rig::new(config);
    let full = |rig: &mut Rig, key: SessionKey, from: &str| {
        rig.machine.handle_connected(
            key,
            PeerId::from_bytes([key as u8; 32]),
            from.parse().unwrap(),
            rig.now,
        );
        rig.heard() == [MatchmakerAction::Close(key, close::FULL)]
    };
    assert!(!full(&mut rig, 1, "203.0.113.1:1") && !full(&mut rig, 2, "203.0.113.2:1"));
    assert!(full(&mut rig, 3, "203.0.113.3:1"), "whatever key, whatever address of it");
    assert!(!full(&mut rig, 4, "198.51.100.1:1"));
    rig.machine.handle_disconnected(1);
    assert!(!full(&mut rig, 5, "203.0.113.3:1"));
    // Of those there is nothing to count by.
    assert!(!full(&mut rig, 6, "127.0.0.1:1") && !full(&mut rig, 7, "[::]:0"));
    assert!(full(&mut rig, 8, "127.0.0.1:1"), "the total is for all");
}

#[test]
fn speaking_before_the_hello_or_twice_closes_the_session() {
    let mut rig = Rig::new(MatchmakerConfig::default());
    rig.machine.handle_connected(1, SHARER, "203.0.113.1:1".parse().unwrap(), rig.now);
    rig.say(1, ToServer::Ping(1));
    assert_eq!(rig.heard(), [MatchmakerAction::Close(1, close::PROTOCOL)]);
    rig.join(2, SHARER, 1);
    rig.heard();
    rig.say(2, ToServer::Hello { version: VERSION, instance: Instance([1; 8]), token: None });
    assert_eq!(rig.heard(), [MatchmakerAction::Close(2, close::PROTOCOL)]);
}

#[test]
fn a_silent_session_is_closed_and_a_pinging_one_is_not() {
    let mut rig = Rig::pair();
    for _ in 0..10 {
        rig.now += Duration::from_secs(15);
        rig.say(2, ToServer::Ping(0));
        rig.machine.handle_timeout(rig.now);
    }
    let closed: Vec<_> =
        rig.heard().into_iter().filter(|action| matches!(action, MatchmakerAction::Close(..))).collect();
    assert_eq!(closed, [MatchmakerAction::Close(1, close::SILENT)]);
}

#[test]
fn exchanges_are_bounded_and_all_state_goes_with_its_session() {
    let config = MatchmakerConfig {
        max_exchanges: 4,
        offers_from: Rate { burst: 1000, refill: Duration::from_millis(1) },
        ..MatchmakerConfig::default()
    };
    let mut rig = Rig::new(config);
    rig.join(1, SHARER, 1);
    rig.say(1, ToServer::Register { share: SHARE, nat: None });
    rig.join(2, CONNECTOR, 2);
    for n in 0..100 {
        rig.offer(2, n);
    }
    assert_eq!(rig.machine.exchanges.len(), 4);
    rig.machine.handle_disconnected(1);
    rig.machine.handle_disconnected(2);
    assert!(rig.machine.exchanges.is_empty() && rig.machine.shares.is_empty());
    assert!(rig.machine.instances.is_empty() && rig.machine.sessions.is_empty());
    rig.machine.handle_timeout(rig.now + Duration::from_secs(100));
    assert_eq!(rig.machine.poll_timeout(), None);
}

#[test]
fn sessions_that_come_and_go_leave_no_deadlines_behind() {
    let mut rig = Rig::new(MatchmakerConfig::default());
    for key in 0..100 {
        rig.join(key, CONNECTOR, 2);
        rig.now += Duration::from_millis(10);
        rig.say(key, ToServer::Ping(1));
        rig.machine.handle_timeout(rig.now);
        rig.machine.handle_disconnected(key);
    }
    assert_eq!(rig.machine.poll_timeout(), None);
    assert!(rig.machine.silences.is_empty());
}

#[test]
fn what_comes_late_from_a_closed_session_is_not_counted_against_it_again() {
    let mut rig = Rig::pair();
    rig.machine.handle_malformed(2);
    assert_eq!(rig.heard(), [MatchmakerAction::Close(2, close::PROTOCOL)]);
    rig.machine.handle_malformed(2);
    assert_eq!(rig.heard(), []);
    assert_eq!(rig.machine.stats().sessions_closed, 1);
}

fn sealed(ticket: u8, byte: u8) -> Option<SealedNat> {
    Some(SealedNat { ticket: TicketId([ticket; 8]), sealed: vec![byte; 44] })
}

/// What comes with the first word about an offer under the ticket of zeroes.
fn told(rig: &mut Rig, nonce: u8) -> Option<SealedNat> {
    rig.heard();
    rig.offer(2, nonce);
    let heard = rig.heard();
    let MatchmakerAction::Send(2, FromServer::Forwarded { nat, .. }) = &heard[0] else { panic!("{heard:?}") };
    nat.clone()
}

#[test]
fn what_a_sharer_says_of_its_nat_comes_with_the_first_word_to_who_offers_under_that_ticket() {
    let mut rig = Rig::pair();
    assert_eq!(told(&mut rig, 1), None);
    for (said, heard) in
        [(sealed(0, 7), sealed(0, 7)), (sealed(0, 8), sealed(0, 8)), (sealed(9, 7), None), (None, None)]
    {
        rig.say(1, ToServer::Register { share: SHARE, nat: said.clone() });
        assert_eq!(rig.heard(), [], "it is registered already");
        assert_eq!(told(&mut rig, said.map_or(0, |said| said.sealed[0] + said.ticket.0[0] + 2)), heard);
    }
}

#[test]
fn nothing_is_said_of_a_nat_to_who_may_be_behind_the_same_one() {
    let mut rig = Rig::pair();
    rig.say(1, ToServer::Register { share: SHARE, nat: sealed(0, 7) });
    rig.machine.handle_rebound(2, "203.0.113.1:4001".parse().unwrap());
    assert_eq!(told(&mut rig, 1), None);
}

#[test]
fn who_says_anew_what_its_nat_is_takes_no_offers_from_a_newer_registration() {
    let mut rig = Rig::pair();
    rig.join(4, SHARER, 4);
    rig.say(4, ToServer::Register { share: SHARE, nat: sealed(0, 4) });
    rig.heard();
    rig.say(1, ToServer::Register { share: SHARE, nat: sealed(0, 1) });
    assert_eq!(rig.heard(), []);
    assert_eq!(told(&mut rig, 1), sealed(0, 4));
    rig.machine.handle_disconnected(4);
    assert_eq!(told(&mut rig, 2), sealed(0, 1));
}

#[test]
fn a_proven_sighting_goes_with_what_is_forwarded_and_an_unproven_one_does_not() {
    let notary = Notary::new([9; 32], start());
    let other = |text: &str| text.parse::<SocketAddr>().unwrap();
    let also = other("[2001:db8::7]:4000");
    for (addr, proof, told) in [
        (also, notary.prove(also, start()).0, true),
        (other("[2001:db8::8]:4000"), notary.prove(also, start()).0, false),
        // The session itself shows the address of this family.
        (other("203.0.113.9:1"), notary.prove(other("203.0.113.9:1"), start()).0, false),
    ] {
        let mut rig =
            Rig::new(MatchmakerConfig { notary: Some(notary.clone()), ..MatchmakerConfig::default() });
        rig.join(1, SHARER, 1);
        rig.say(1, ToServer::Register { share: SHARE, nat: None });
        rig.join(2, CONNECTOR, 2);
        rig.heard();
        rig.say(2, ToServer::Sighting { addr, proof });
        rig.offer(2, 1);
        let heard = rig.heard();
        let said = FromServer::AlsoSeen { from: CONNECTOR, from_instance: Instance([2; 8]), observed: addr };
        let place = heard.iter().position(|action| *action == MatchmakerAction::Send(1, said.clone()));
        assert_eq!(place.is_some(), told, "{addr}");
        if let Some(place) = place {
            assert!(matches!(heard[place + 1], MatchmakerAction::Send(1, FromServer::Offer { .. })));
        }
    }
}

#[test]
fn an_offer_at_a_server_that_has_just_started_waits_for_the_sharer_to_come_back() {
    let mut rig = Rig::new(MatchmakerConfig::default());
    rig.join(2, CONNECTOR, 2);
    rig.offer(2, 1);
    rig.heard();
    assert_eq!(rig.machine.poll_timeout(), Some(rig.now + MatchmakerConfig::default().returning));
    rig.now += Duration::from_secs(2);
    rig.join(1, SHARER, 1);
    rig.say(1, ToServer::Register { share: SHARE, nat: None });
    let heard = rig.heard();
    assert!(
        heard.iter().any(|it| matches!(it, MatchmakerAction::Send(1, FromServer::Offer { .. }))),
        "{heard:?}"
    );
    assert!(heard.iter().any(|it| matches!(it, MatchmakerAction::Send(2, FromServer::Forwarded { .. }))));
}

#[test]
fn an_offer_waits_for_a_bounded_time_and_only_at_the_start() {
    let offline = |heard: &[MatchmakerAction]| {
        heard
            .iter()
            .filter(|it| matches!(it, MatchmakerAction::Send(2, FromServer::Undelivered { .. })))
            .count()
    };
    let mut rig = Rig::new(MatchmakerConfig::default());
    rig.join(2, CONNECTOR, 2);
    rig.heard();
    // One session has four that wait; the fifth is answered at once.
    (1..=5).for_each(|nonce| rig.offer(2, nonce));
    assert_eq!(offline(&rig.heard()), 1);
    rig.now += MatchmakerConfig::default().returning;
    rig.machine.handle_timeout(rig.now);
    assert_eq!(offline(&rig.heard()), 4);
    rig.offer(2, 6);
    assert_eq!(offline(&rig.heard()), 1);
    assert_eq!(rig.machine.stats().offers_offline, 6);
    // A session that goes takes what waits with it.
    let mut rig = Rig::new(MatchmakerConfig::default());
    rig.join(2, CONNECTOR, 2);
    rig.offer(2, 1);
    rig.machine.handle_disconnected(2);
    rig.heard();
    rig.machine.handle_timeout(rig.now + Duration::from_secs(9));
    assert_eq!(rig.heard(), []);
}

#[test]
fn who_comes_through_a_relay_is_told_of_in_each_family_that_it_was_seen_in() {
    let notary = Notary::new([9; 32], start());
    let mut rig = Rig::new(MatchmakerConfig { notary: Some(notary.clone()), ..MatchmakerConfig::default() });
    rig.join(1, SHARER, 1);
    rig.say(1, ToServer::Register { share: SHARE, nat: None });
    rig.machine.handle_connected(2, CONNECTOR, "[::]:0".parse().unwrap(), rig.now);
    rig.say(2, ToServer::Hello { version: VERSION, instance: Instance([2; 8]), token: None });
    let addrs = ["203.0.113.7:1", "[2001:db8::7]:4000"].map(|text| text.parse::<SocketAddr>().unwrap());
    for addr in addrs {
        rig.say(2, ToServer::Sighting { addr, proof: notary.prove(addr, start()).0 });
    }
    rig.heard();
    rig.offer(2, 1);
    let heard = rig.heard();
    let from = (CONNECTOR, Instance([2; 8]));
    for addr in addrs {
        let said = FromServer::AlsoSeen { from: from.0, from_instance: from.1, observed: addr };
        assert!(heard.contains(&MatchmakerAction::Send(1, said)), "{addr}");
    }
}
