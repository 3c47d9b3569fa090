//! What strangers do to the machines: the bytes are a script of events, and what must hold is asserted after
//! each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::doorman::{Admission, Decision, Doorman};
use proto::id::{Instance, PeerId, ShareId, TicketId};
use proto::limit::Rate;
use proto::matchmaker::{Matchmaker, MatchmakerAction, MatchmakerConfig, SessionKey};
use proto::proof::{Exchange, TicketSecret};
use proto::session::{Session, SessionAction, SessionConfig};
use proto::sighting::Notary;
use proto::wire::session::{FromServer, ToServer};
use proto::wire::signal::{
    Answer, Challenge, Claims, Mac, Nonce, Offer, Refusal, SealedNat, Trickle, Username, Verdict,
};
use proto::wire::{self, VERSION};

/// The targets here, by the names of their corpora.
pub const TARGETS: &[(&str, fn(&[u8]))] =
    &[("matchmaker", matchmaker), ("session", session), ("doorman", doorman)];

fn start() -> Instant {
    Instant::now() + Duration::from_secs(100_000)
}

/// The bytes of a script, read from the front; zeroes when they are used up.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    /// As many bytes as the next one says, or what is left.
    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte());
        let (taken, rest) = self.0.split_at(self.0.len().min(length));
        self.0 = rest;
        taken
    }
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn offer(share: u8, nonce: u8, challenge: Option<Challenge>) -> Offer {
    Offer {
        version: VERSION,
        share: ShareId([share; 8]),
        ticket: TicketId([5; 8]),
        nonce: Nonce([nonce; 16]),
        username: Username([nonce; 8]),
        challenge,
        claims: Claims::default(),
        mac: Mac([0; 32]),
        nat: None,
    }
}

fn answer(nonce: u8, accepted: bool) -> Answer {
    let verdict = match accepted {
        true => Verdict::Accepted { nonce: Nonce([1; 16]), claims: Claims::default() },
        false => Verdict::Refused(Refusal::Full),
    };
    Answer { version: VERSION, offer: Nonce([nonce; 16]), verdict, mac: Mac([0; 32]), nat: None }
}

fn trickle(nonce: u8, counter: u32) -> Trickle {
    let offer = Nonce([nonce; 16]);
    Trickle { version: VERSION, offer, counter, claims: Claims::default(), mac: Mac([0; 32]), nat: None }
}

/// A server's sessions: who comes and goes, and what they say.
pub fn matchmaker(data: &[u8]) {
    let rate = |burst| Rate { burst, refill: Duration::from_millis(100) };
    let config = MatchmakerConfig {
        max_sessions: 6,
        max_shares: 4,
        max_exchanges: 4,
        offers_from: rate(8),
        offers_to: rate(12),
        messages: rate(60),
        notary: Some(Notary::new([3; 32], start())),
        ..MatchmakerConfig::default()
    };
    let mut world = Sessions {
        machine: Matchmaker::new(config.clone()),
        live: BTreeMap::new(),
        gone: BTreeSet::new(),
        next: 0,
        now: start(),
    };
    let mut script = Script(data);
    while let Some(event) = script.next() {
        world.handle(event, &mut script);
        world.check(&config);
    }
    while let Some((key, _)) = world.live.pop_first() {
        world.machine.handle_disconnected(key);
        world.check(&config);
    }
    let stats = world.machine.stats();
    assert_eq!((stats.sessions, stats.shares), (0, 0));
    assert_eq!(world.machine.poll_timeout(), None, "nobody is left to wait for");
}

struct Sessions {
    machine: Matchmaker,
    live: BTreeMap<SessionKey, PeerId>,
    gone: BTreeSet<SessionKey>,
    next: SessionKey,
    now: Instant,
}

impl Sessions {
    fn handle(&mut self, event: u8, script: &mut Script<'_>) {
        if event == 0 {
            let name = script.byte();
            let from = SocketAddr::from(([203, 0, 113, name], 4000));
            self.machine.handle_connected(self.next, peer(name % 4), from, self.now);
            self.live.insert(self.next, peer(name % 4));
            self.next += 1;
            return;
        }
        if event == 1 {
            self.now += Duration::from_millis(50) * u32::from(script.byte());
            self.machine.handle_timeout(self.now);
            assert!(self.machine.poll_timeout().is_none_or(|at| at > self.now), "a timeout that stays due");
            return;
        }
        let key = SessionKey::from(script.byte());
        match event {
            2 => {
                self.machine.handle_disconnected(key);
                if self.live.remove(&key).is_some() {
                    self.gone.insert(key);
                }
            }
            3 => self.machine.handle_rebound(key, SocketAddr::from(([203, 0, 113, script.byte()], 4001))),
            4 => self.machine.handle_malformed(key),
            _ => {
                let Some(message) = message(event, script) else { return self.machine.handle_malformed(key) };
                self.machine.handle_message(key, message, self.now);
            }
        }
    }

    fn check(&mut self, config: &MatchmakerConfig) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                MatchmakerAction::Send(key, message) => {
                    assert!(self.live.contains_key(&key), "{message:?} for a session that is gone");
                    let body = wire::body(&message);
                    assert_eq!(wire::parse::<FromServer>(&body), Ok(message));
                }
                MatchmakerAction::Close(key, _) => {
                    assert!(self.gone.insert(key), "session {key} is closed again");
                    self.live.remove(&key);
                }
            }
        }
        let stats = self.machine.stats();
        assert_eq!(stats.sessions, self.live.len());
        assert!(stats.sessions <= config.max_sessions && stats.shares <= stats.sessions * config.max_shares);
    }
}

/// A registration, with something that only the ticket's holder could read.
fn register(n: u8, sealed: u8) -> ToServer {
    let nat = SealedNat { ticket: TicketId([5; 8]), sealed: vec![sealed; usize::from(sealed % 65)] };
    ToServer::Register { share: ShareId([n; 8]), nat: (sealed > 0).then_some(nat) }
}

fn message(event: u8, script: &mut Script<'_>) -> Option<ToServer> {
    let n = script.byte() % 8;
    Some(match event {
        5 => ToServer::Hello { version: VERSION, instance: Instance([n; 8]), token: None },
        6 => register(n, script.byte()),
        7 => ToServer::Unregister { share: ShareId([n; 8]) },
        8 => ToServer::Offer { to: peer(n % 4), offer: offer(n, script.byte(), None) },
        9 => {
            let answer = answer(script.byte(), n < 4);
            ToServer::Answer { to: peer(n), to_instance: Instance([n; 8]), answer }
        }
        10 => {
            let trickle = trickle(script.byte(), u32::from(n));
            ToServer::Trickle { to: peer(n), to_instance: Instance([n; 8]), trickle }
        }
        11 => ToServer::Ping(u32::from(n)),
        13 => {
            let addr = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)], 4000));
            let proof = Notary::new([3; 32], start()).prove(addr, start());
            ToServer::Sighting { addr, proof: proof.0 }
        }
        _ => return wire::parse(script.bytes()).ok(),
    })
}

/// A peer's session with a server that says anything at any time.
pub fn session(data: &[u8]) {
    let (mut now, mut script) = (start(), Script(data));
    let mut session = Session::new(SessionConfig::default(), Instance([1; 8]), None, [1; 32], now);
    while let Some(event) = script.next() {
        match event {
            0 => session.handle_connected(now),
            1 => session.handle_lost(now),
            2 => session.handle_network_change(now),
            3 => {
                let (share, n) = (ShareId([script.byte() % 4; 8]), script.byte());
                session.register(share);
                let nat = SealedNat { ticket: TicketId([5; 8]), sealed: vec![n; usize::from(n % 65)] };
                session.describe(share, (n > 0).then_some(nat));
            }
            4 => session.unregister(ShareId([script.byte() % 4; 8])),
            5 => {
                now += Duration::from_millis(40) * u32::from(script.byte());
                session.handle_timeout(now);
            }
            6 => {
                let observed = SocketAddr::from(([203, 0, 113, script.byte()], 4000));
                let welcome =
                    FromServer::Welcome { version: VERSION, observed, udp_alternate: vec![], relays: vec![] };
                session.handle_message(welcome, now);
            }
            _ => {
                if let Ok(message) = wire::parse::<FromServer>(script.bytes()) {
                    session.handle_message(message, now);
                }
            }
        }
        let mut dials = 0;
        while let Some(action) = session.poll_action() {
            match action {
                SessionAction::Dial => dials += 1,
                SessionAction::Send(message) => assert_eq!(wire::parse(&wire::body(&message)), Ok(message)),
                SessionAction::Close => {}
            }
        }
        assert!(dials <= 1);
        while session.poll_event().is_some() {}
    }
    let mut stuck = 0;
    for _ in 0..50 {
        let Some(at) = session.poll_timeout() else { break };
        stuck = if at <= now { stuck + 1 } else { 0 };
        assert!(stuck < 8, "a timeout that stays due");
        now = now.max(at);
        session.handle_timeout(now);
        while session.poll_action().is_some() {}
        while session.poll_event().is_some() {}
    }
}

/// A sharer's door: nobody comes in twice on one offer, and nobody without the ticket.
pub fn doorman(data: &[u8]) {
    let secret = TicketSecret::from_bytes([6; 16]);
    let (me, instance, share, server) = (peer(1), Instance([1; 8]), ShareId([2; 8]), peer(9));
    let mut script = Script(data);
    let mut doorman = Doorman::new(me, instance, share, [7; 32]);
    let admission = Admission { secret: secret.clone(), expires: Some(1000), fresh: script.byte() % 2 == 0 };
    doorman.admit(TicketId([5; 8]), admission.clone());
    let (mut challenges, mut admitted, mut heard) = (Vec::new(), BTreeSet::new(), 0);
    let mut admits = true;
    while let Some(event) = script.next() {
        let from = (peer(script.byte() % 4), Instance([3; 8]));
        let mut unix_secs = 900;
        let (offer, honest) = match event {
            0 => {
                admits = !admits;
                match admits {
                    true => doorman.admit(TicketId([5; 8]), admission.clone()),
                    false => doorman.revoke(TicketId([5; 8])),
                }
                continue;
            }
            1..=3 => {
                let challenge = match event {
                    1 => None,
                    2 => challenges.last().copied(),
                    _ => Some(Challenge([script.byte(); 16])),
                };
                let mut offer = offer(2, script.byte(), challenge);
                let exchange = Exchange {
                    connector: from.0,
                    connector_instance: from.1,
                    sharer: me,
                    server,
                    share,
                    ticket: offer.ticket,
                };
                offer.mac = secret.offer_mac(&exchange, &offer);
                unix_secs += u64::from(script.byte());
                (offer, true)
            }
            4 => {
                let Ok(hello) = wire::parse(script.bytes()) else { continue };
                assert!(doorman.check_hello(server, from.0, &hello, &[8; 32], unix_secs).is_err());
                continue;
            }
            _ => match wire::parse::<Offer>(script.bytes()) {
                Ok(offer) => (offer, false),
                Err(_) => continue,
            },
        };
        heard += 1;
        match doorman.handle_offer(server, from, &offer, Some(Claims::default()), None, unix_secs) {
            Decision::Admit { answer, nat, .. } => {
                assert!(nat.is_none(), "a NAT of which nothing was proven");
                assert!(honest && admits && unix_secs < 1000, "an offer that proves nothing was let in");
                assert!(admitted.insert(offer.nonce), "the same offer was let in twice");
                assert_eq!(answer.offer, offer.nonce);
            }
            Decision::Answer(answer) => match answer.verdict {
                Verdict::Again(challenge) => challenges.push(challenge),
                Verdict::Refused(_) => {}
                Verdict::Accepted { .. } => panic!("accepted and not let in"),
            },
            Decision::Replayed => assert!(admitted.contains(&offer.nonce)),
        }
    }
    let stats = doorman.stats();
    assert_eq!(stats.admitted + stats.challenged + stats.refused + stats.replayed, heard);
}
