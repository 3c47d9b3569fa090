use super::*;
use crate::clock::start;
use crate::stun::BindingRequest;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_proof_is_for_one_address_and_for_a_minute() {
    let now = start();
    let notary = Notary::new([1; 32], now);
    let seen = addr("203.0.113.7:4000");
    let proof = notary.prove(seen, now);
    assert!(notary.proves(seen, &proof, now));
    assert!(notary.proves(addr("[::ffff:203.0.113.7]:4000"), &proof, now));
    assert!(notary.proves(seen, &proof, now + Duration::from_secs(59)));
    assert!(!notary.proves(seen, &proof, now + Duration::from_secs(60)));
    assert!(!notary.proves(addr("203.0.113.7:4001"), &proof, now));
    assert!(!Notary::new([2; 32], now).proves(seen, &proof, now));
}

/// A server at `server` that sees the asker at `seen`.
fn answer(request: &[u8], seen: SocketAddr, notary: &Notary, now: Instant) -> Vec<u8> {
    let read = BindingRequest::read(request).unwrap();
    assert!(read.wants_proof());
    let answer = read.answer_with_proof(seen, &notary.prove(seen, now));
    assert!(answer.len() <= request.len(), "{} bytes for {}", answer.len(), request.len());
    answer
}

#[test]
fn an_answer_is_told_once_with_its_proof_and_asked_for_again_after_a_rest() {
    let begin = start();
    let notary = Notary::new([1; 32], begin);
    let server = addr("[2001:db8::1]:3478");
    let mut sightings = Sightings::new([0; 32]);
    sightings.set_servers([server], None, begin);
    for (n, seen) in
        ["[2001:db8:1::2]:4000", "[2001:db8:1::2]:4000", "[2001:db8:9::2]:4000"].iter().enumerate()
    {
        let now = sightings.poll_timeout().unwrap();
        assert_eq!(now, begin + KEEPALIVE * n as u32);
        let (to, request) = sightings.poll_transmit(now).unwrap();
        assert_eq!(to, server);
        assert!(sightings.handle_answer(server, &answer(&request, addr(seen), &notary, now), now));
        let told = sightings.poll_event();
        assert_eq!(told.is_some(), n != 1, "the same address is no news");
        if let Some(Sighting { mapped, proof, .. }) = told {
            assert!(notary.proves(mapped, &proof, now));
        }
        assert_eq!(sightings.seen().v6(), Some(addr(seen)));
        assert_eq!(sightings.server(false), Some(server));
    }
    sightings.restart(begin);
    assert_eq!(sightings.seen(), Seen::NOWHERE);
    assert_eq!(sightings.poll_timeout(), Some(begin));
}

#[test]
fn a_silent_address_is_asked_ever_more_rarely_and_counts_as_silent_then() {
    let begin = start();
    let notary = Notary::new([1; 32], begin);
    let (server, seen) = (addr("192.0.2.1:3478"), addr("203.0.113.7:4000"));
    let mut sightings = Sightings::new([0; 32]);
    sightings.set_servers([server], None, begin);
    let (_, request) = sightings.poll_transmit(begin).unwrap();
    assert!(sightings.handle_answer(server, &answer(&request, seen, &notary, begin), begin));
    assert!(sightings.has_settled());
    sightings.restart(begin);
    let mut sent = 0;
    while sightings.poll_timeout().unwrap() < begin + Duration::from_secs(3600) {
        assert_eq!(sightings.has_settled(), sent > SILENT_AFTER, "{sent}");
        let now = sightings.poll_timeout().unwrap();
        assert!(sightings.poll_transmit(now).is_some() && sightings.poll_transmit(now).is_none());
        sent += 1;
    }
    assert!((30..50).contains(&sent), "{sent} requests in an hour");
    assert_eq!(sightings.seen(), Seen::NOWHERE);
}

#[test]
fn what_was_not_asked_for_is_no_answer() {
    let now = start();
    let notary = Notary::new([1; 32], now);
    let (server, seen) = (addr("192.0.2.1:3478"), addr("203.0.113.7:4000"));
    let mut sightings = Sightings::new([0; 32]);
    sightings.set_servers([server], None, now);
    let (_, request) = sightings.poll_transmit(now).unwrap();
    let good = answer(&request, seen, &notary, now);
    assert!(!sightings.handle_answer(addr("192.0.2.2:3478"), &good, now));
    assert!(!sightings.handle_answer(server, &request, now));
    assert!(sightings.handle_answer(server, &good, now));
    assert!(!sightings.handle_answer(server, &good, now), "a second time");
}

#[test]
fn at_most_eight_addresses_are_asked() {
    let now = start();
    let mut sightings = Sightings::new([0; 32]);
    sightings.set_servers((1..=20).map(|n| addr(&format!("192.0.2.{n}:3478"))), None, now);
    assert_eq!(std::iter::from_fn(|| sightings.poll_transmit(now)).count(), MAX_ASKED);
}

#[test]
fn when_the_address_that_is_asked_on_falls_silent_the_others_are_asked_again() {
    let mut now = start();
    let notary = Notary::new([1; 32], now);
    let servers = ["192.0.2.1:1", "192.0.2.2:1"].map(addr);
    let mut sightings = Sightings::new([0; 32]);
    sightings.set_servers(servers, None, now);
    let began = now;
    while now < began + Duration::from_secs(60) {
        while let Some((server, request)) = sightings.poll_transmit(now) {
            if server == servers[1] || now == began {
                let answer = answer(&request, addr("203.0.113.7:4000"), &notary, now);
                assert!(sightings.handle_answer(server, &answer, now));
            }
        }
        now = sightings.poll_timeout().unwrap();
    }
    assert_eq!(sightings.server(true), Some(servers[1]));
    assert_eq!(sightings.seen().v4(), Some(addr("203.0.113.7:4000")));
}

#[test]
fn many_addresses_of_one_family_leave_the_other_its_part() {
    let now = start();
    let mut sightings = Sightings::new([0; 32]);
    let v4 = (1..=20).map(|n| addr(&format!("192.0.2.{n}:3478")));
    let v6 = (1..=20).map(|n| addr(&format!("[2001:db8::{n}]:3478")));
    sightings.set_servers(v4.chain(v6), None, now);
    let asked: Vec<_> = std::iter::from_fn(|| sightings.poll_transmit(now)).map(|(to, _)| to).collect();
    assert_eq!((asked.len(), asked.iter().filter(|to| to.is_ipv4()).count()), (MAX_ASKED, MAX_ASKED / 2));
}

#[test]
fn one_address_is_asked_on_for_each_family_that_the_session_does_not_show() {
    let now = start();
    let notary = Notary::new([1; 32], now);
    for (session, asked_on) in [(None, 2), (Some(true), 1), (Some(false), 1)] {
        let mut sightings = Sightings::new([0; 32]);
        let servers = ["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1", "[2001:db8::2]:1"].map(addr);
        sightings.set_servers(servers, session, now);
        while let Some((server, request)) = sightings.poll_transmit(now) {
            let seen = if server.is_ipv4() { "203.0.113.7:4000" } else { "[2001:db8:1::7]:4000" };
            assert!(sightings.handle_answer(server, &answer(&request, addr(seen), &notary, now), now));
        }
        let later = sightings.poll_timeout().unwrap();
        assert_eq!(later, now + KEEPALIVE);
        assert_eq!(std::iter::from_fn(|| sightings.poll_transmit(later)).count(), asked_on, "{session:?}");
        assert_eq!(std::iter::from_fn(|| sightings.poll_event()).count(), asked_on);
    }
}
