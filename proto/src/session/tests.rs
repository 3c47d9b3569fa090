use super::*;
use crate::clock::start;
use crate::wire::signal::{Claims, Mac};

const PEER: PeerId = PeerId::from_bytes([5; 32]);

fn session(now: Instant) -> Session {
    let mut session = Session::new(SessionConfig::default(), Instance([1; 8]), None, [1; 32], now);
    session.handle_timeout(now);
    session
}

fn welcome() -> FromServer {
    let observed = "203.0.113.7:4000".parse().unwrap();
    FromServer::Welcome { version: VERSION, observed, udp_alternate: vec![], relays: vec![] }
}

fn actions(session: &mut Session) -> Vec<SessionAction> {
    std::iter::from_fn(|| session.poll_action()).collect()
}

fn events(session: &mut Session) -> Vec<SessionEvent> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// Runs the clock, with a server that never answers, until `end`; says when each dial was.
fn dials_until(session: &mut Session, mut now: Instant, end: Instant) -> Vec<Instant> {
    let mut dials = Vec::new();
    loop {
        if actions(session).contains(&SessionAction::Dial) {
            dials.push(now);
            session.handle_lost(now);
        }
        match session.poll_timeout() {
            Some(next) if next <= end => now = next.max(now),
            Some(_) | None => return dials,
        }
        session.handle_timeout(now);
    }
}

#[test]
fn the_hello_and_the_registrations_leave_in_one_flight() {
    let now = start();
    let mut session = session(now);
    session.register(ShareId([2; 8]));
    actions(&mut session);
    session.handle_connected(now);
    let sent = actions(&mut session);
    assert!(matches!(sent[0], SessionAction::Send(ToServer::Hello { .. })));
    assert_eq!(sent[1], SessionAction::Send(ToServer::Register { share: ShareId([2; 8]), nat: None }));
}

#[test]
fn a_server_that_never_answers_is_given_up_after_ten_seconds() {
    let now = start();
    let mut session = session(now);
    let dials = dials_until(&mut session, now, now + Duration::from_secs(60));
    assert!(dials.len() > 2, "several attempts: {}", dials.len());
    assert!(events(&mut session).contains(&SessionEvent::GaveUp));
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn once_welcomed_a_lost_server_is_retried_for_ever_at_most_thirty_seconds_apart() {
    let now = start();
    let mut session = session(now);
    actions(&mut session);
    session.handle_connected(now);
    session.handle_message(welcome(), now);
    session.handle_lost(now);
    actions(&mut session);
    let dials = dials_until(&mut session, now, now + Duration::from_secs(3600));
    assert!(dials.len() > 100);
    assert!(dials.windows(2).all(|pair| pair[1] - pair[0] <= Duration::from_secs(30)));
    assert!(!events(&mut session).contains(&SessionEvent::GaveUp));
}

#[test]
fn after_an_outage_of_five_seconds_the_next_attempt_is_within_three() {
    for seed in 0..200 {
        let now = start();
        let mut session = Session::new(SessionConfig::default(), Instance([1; 8]), None, [seed; 32], now);
        session.handle_timeout(now);
        session.handle_connected(now);
        session.handle_message(welcome(), now);
        session.handle_lost(now);
        actions(&mut session);
        let back = now + Duration::from_secs(5);
        let dials = dials_until(&mut session, now, now + Duration::from_secs(60));
        let first = dials.iter().find(|at| **at >= back).unwrap();
        assert!(*first - back <= Duration::from_secs(3), "seed {seed}: {:?}", *first - back);
    }
}

/// When each of a thousand peers dials first after an outage that cut all of them off at the same moment.
fn returns(outage: Duration) -> Vec<Duration> {
    let now = start();
    let returns = (0..1000_u32).map(|peer| {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&peer.to_le_bytes());
        let mut session = up(now, seed);
        session.handle_lost(now);
        actions(&mut session);
        let dials = dials_until(&mut session, now, now + outage + Duration::from_secs(60));
        dials.into_iter().map(|at| at - now).find(|at| *at >= outage).unwrap() - outage
    });
    returns.collect()
}

#[test]
fn a_thousand_peers_come_back_within_3_s_of_a_short_outage_and_30_s_of_a_long_one_without_a_herd() {
    // The outage in ms, the latest return, and the most peers that dial in the same tenth of a second.
    for (outage, latest, crowd) in
        [(0, 1, 200), (1000, 3, 200), (5000, 3, 200), (60_000, 16, 50), (600_000, 30, 30)]
    {
        let returns = returns(Duration::from_millis(outage));
        let mut tenths = BTreeMap::<u128, u32>::new();
        returns.iter().for_each(|at| *tenths.entry(at.as_millis() / 100).or_default() += 1);
        let (last, most) = (returns.iter().max().unwrap(), tenths.values().max().unwrap());
        println!("after {outage} ms: back within {last:?}, at most {most} in 100 ms");
        assert!(*last <= Duration::from_secs(latest), "{last:?} after {outage} ms");
        assert!(*most <= crowd, "{most} at once after {outage} ms");
    }
}

#[test]
fn a_silent_server_is_noticed_by_a_missing_pong() {
    let mut now = start();
    let mut session = session(now);
    session.handle_connected(now);
    session.handle_message(welcome(), now);
    actions(&mut session);
    events(&mut session);
    let mut log = Vec::new();
    while !log.contains(&SessionAction::Close) {
        now = session.poll_timeout().unwrap();
        session.handle_timeout(now);
        log.extend(actions(&mut session));
    }
    assert_eq!(log, [SessionAction::Send(ToServer::Ping(1)), SessionAction::Close]);
    assert_eq!(events(&mut session), [SessionEvent::Down]);
}

/// A session that is up, with nothing left to do.
fn up(now: Instant, seed: [u8; 32]) -> Session {
    let mut session = Session::new(SessionConfig::default(), Instance([1; 8]), None, seed, now);
    session.handle_timeout(now);
    session.handle_connected(now);
    session.handle_message(welcome(), now);
    actions(&mut session);
    events(&mut session);
    session
}

#[test]
fn after_a_network_change_a_session_shows_within_1500_ms_that_it_lives_or_is_made_anew() {
    let mut now = start();
    let mut session = up(now, [1; 32]);
    session.handle_network_change(now);
    assert_eq!(actions(&mut session), [SessionAction::Send(ToServer::Ping(1))]);
    session.handle_message(FromServer::Pong(1), now);
    assert_eq!(session.poll_timeout(), Some(now + Duration::from_secs(15)));
    session.handle_network_change(now);
    actions(&mut session);
    now += Duration::from_millis(1500);
    assert_eq!(session.poll_timeout(), Some(now));
    session.handle_timeout(now);
    assert_eq!(actions(&mut session), [SessionAction::Close]);
    assert_eq!(events(&mut session), [SessionEvent::Down]);
    assert_eq!(session.poll_timeout(), Some(now), "no back-off");
}

#[test]
fn a_network_change_replaces_an_attempt_and_waits_for_none() {
    let now = start();
    let mut session = up(now, [1; 32]);
    session.handle_lost(now);
    for _ in 0..2 {
        session.handle_network_change(now);
        assert_eq!(session.poll_timeout(), Some(now));
        session.handle_timeout(now);
        assert_eq!(actions(&mut session).pop(), Some(SessionAction::Dial));
    }
}

#[test]
fn a_doubt_asks_once_and_only_a_session_that_is_up() {
    let now = start();
    let mut session = up(now, [1; 32]);
    session.handle_doubt(now);
    session.handle_doubt(now);
    assert_eq!(actions(&mut session), [SessionAction::Send(ToServer::Ping(1))]);
    session.handle_lost(now);
    let retry = session.poll_timeout();
    session.handle_doubt(now);
    assert_eq!((actions(&mut session), session.poll_timeout()), (vec![], retry));
}

#[test]
fn a_quiet_session_has_no_timer_but_its_ping() {
    let now = start();
    let mut session = session(now);
    session.handle_connected(now);
    session.handle_message(welcome(), now);
    assert_eq!(session.poll_timeout(), Some(now + Duration::from_secs(15)));
    let later = now + Duration::from_secs(15);
    session.handle_timeout(later);
    session.handle_message(FromServer::Pong(1), later);
    assert_eq!(session.poll_timeout(), Some(later + Duration::from_secs(15)));
}

const SHARE: ShareId = ShareId([2; 8]);

fn sealed(byte: u8) -> Option<SealedNat> {
    Some(SealedNat { ticket: crate::id::TicketId([3; 8]), sealed: vec![byte; 44] })
}

fn says(nat: Option<SealedNat>) -> SessionAction {
    SessionAction::Send(ToServer::Register { share: SHARE, nat })
}

/// A session that is up, with a share whose offers come here.
fn sharing(now: Instant) -> Session {
    let mut session = session(now);
    session.register(SHARE);
    session.handle_connected(now);
    session.handle_message(welcome(), now);
    session.handle_message(FromServer::Registered { share: SHARE }, now);
    actions(&mut session);
    events(&mut session);
    session
}

#[test]
fn what_is_known_of_our_nat_is_said_once_and_again_when_it_changes() {
    let now = start();
    let mut session = sharing(now);
    for nat in [sealed(1), sealed(2), None] {
        session.describe(SHARE, nat.clone());
        session.describe(SHARE, nat.clone());
        assert_eq!(actions(&mut session), [says(nat)]);
    }
}

#[test]
fn a_server_that_answers_to_what_is_said_anew_tells_nobody_news() {
    let now = start();
    let mut session = sharing(now);
    session.describe(SHARE, sealed(1));
    session.handle_message(FromServer::Registered { share: SHARE }, now);
    assert_eq!(events(&mut session), []);
}

#[test]
fn who_has_no_offers_says_nothing_of_its_nat_before_it_has_them_again() {
    let now = start();
    let mut session = sharing(now);
    session.handle_message(FromServer::Displaced { share: SHARE }, now);
    session.describe(SHARE, sealed(1));
    assert_eq!(actions(&mut session), []);
    session.handle_message(FromServer::Registered { share: SHARE }, now);
    assert_eq!(actions(&mut session), [says(sealed(1))]);
    assert_eq!(events(&mut session), [SessionEvent::Displaced(SHARE), SessionEvent::Registered(SHARE)]);
}

#[test]
fn on_another_session_nothing_is_said_of_a_nat_that_may_be_another() {
    let now = start();
    let mut session = sharing(now);
    session.describe(SHARE, sealed(1));
    session.handle_lost(now);
    let later = now + Duration::from_secs(2);
    session.handle_timeout(later);
    actions(&mut session);
    session.handle_connected(later);
    assert_eq!(actions(&mut session)[1..], [says(None)]);
    session.handle_message(welcome(), later);
    session.handle_message(FromServer::Registered { share: SHARE }, later);
    assert_eq!(actions(&mut session), []);
}

#[test]
fn what_is_said_before_an_offer_adds_to_where_its_sender_is_seen_and_to_nothing_else() {
    let now = start();
    let mut session = up(now, [1; 32]);
    let also = FromServer::AlsoSeen {
        from: PEER,
        from_instance: Instance([2; 8]),
        observed: "192.0.2.7:1".parse().unwrap(),
    };
    let trickle = |instance| {
        let trickle = Trickle {
            version: VERSION,
            offer: Nonce([1; 16]),
            counter: 1,
            claims: Claims::default(),
            mac: Mac([0; 32]),
            nat: None,
        };
        let observed = "[2001:db8::7]:1".parse().unwrap();
        FromServer::Trickle { from: PEER, from_instance: Instance([instance; 8]), observed, trickle }
    };
    for (before, instance, families) in [(true, 2, 2), (true, 3, 1), (false, 2, 1)] {
        if before {
            session.handle_message(also.clone(), now);
        }
        session.handle_message(trickle(instance), now);
        let seen = events(&mut session);
        let [SessionEvent::Trickle { observed, .. }] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!(observed.iter().count(), families);
    }
    // Of who comes through a relay both are said so.
    let other = FromServer::AlsoSeen {
        from: PEER,
        from_instance: Instance([2; 8]),
        observed: "[2001:db8::9]:9".parse().unwrap(),
    };
    let FromServer::Trickle { from, from_instance, trickle, .. } = trickle(2) else { panic!() };
    let relayed = FromServer::Trickle { from, from_instance, observed: "[::]:0".parse().unwrap(), trickle };
    [also, other, relayed].into_iter().for_each(|message| session.handle_message(message, now));
    let seen = events(&mut session);
    let [SessionEvent::Trickle { observed, .. }] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(observed.iter().count(), 2);
}
