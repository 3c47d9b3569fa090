//! The strategies for hard NATs: what they send, to whom, how fast, and what they leave behind.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::nat::{Allocation, Dependence, NatProfile, PortRange};
use proto::path::{CheckTransmit, LinkId};
use proto::punch::{Known, MAX_SOCKETS, Method, Punch, PunchAction, Survey, method};
use proto::stun::BindingRequest;
use support::start;

const SEC: Duration = Duration::from_secs(1);

fn nat(allocation: Option<Allocation>) -> NatProfile {
    let mapping = match allocation {
        Some(_) => Dependence::AddressAndPortDependent,
        None => Dependence::EndpointIndependent,
    };
    NatProfile { mapping, allocation, latest: 40_000 }
}

fn kept() -> NatProfile {
    nat(None)
}

fn counted() -> NatProfile {
    nat(Some(Allocation::Sequential { step: 2 }))
}

fn drawn() -> NatProfile {
    nat(Some(Allocation::Random { range: PortRange::new(1024, 65_535) }))
}

fn block() -> NatProfile {
    nat(Some(Allocation::Random { range: PortRange::new(20_480, 20_991) }))
}

fn server() -> SocketAddr {
    "192.0.2.1:3478".parse().unwrap()
}

fn remote() -> SocketAddr {
    "203.0.113.7:4000".parse().unwrap()
}

/// A shell whose server never answers.
struct Rig {
    punch: Punch,
    now: Instant,
    open: BTreeSet<LinkId>,
    links: u16,
    sent: Vec<(Instant, CheckTransmit)>,
    told: Vec<u8>,
    /// The ports that were told.
    latest: Vec<u16>,
    given_up: Vec<Instant>,
}

impl Rig {
    fn new(ours: NatProfile) -> Self {
        Self::knowing(Known { ours: Some(ours), ..Known::default() })
    }

    fn knowing(known: Known) -> Self {
        let now = start();
        let punch = Punch::new(vec![7; 96], server(), remote(), known, [1; 32], now).unwrap();
        Self {
            punch,
            now,
            open: BTreeSet::new(),
            links: 0,
            sent: Vec::new(),
            told: Vec::new(),
            latest: Vec::new(),
            given_up: Vec::new(),
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.punch.poll_action() {
            match action {
                PunchAction::Open(count) => {
                    let links: Vec<LinkId> = (1..=count).map(|n| LinkId(self.links + n)).collect();
                    self.links += count;
                    self.open.extend(&links);
                    self.punch.handle_opened(&links, self.now);
                }
                PunchAction::Send(transmit) => self.sent.push((self.now, transmit)),
                PunchAction::Close(link) => assert!(self.open.remove(&link), "closed twice"),
                PunchAction::Tell(nat, round) => {
                    self.told.push(round);
                    self.latest.push(nat.latest);
                }
                PunchAction::Name(_) => {}
                PunchAction::GiveUp => self.given_up.push(self.now),
            }
        }
    }

    fn run_for(&mut self, span: Duration, may_search: bool) {
        let end = self.now + span;
        self.drain();
        let mut wakes = 0;
        while let Some(at) = self.punch.poll_timeout().filter(|at| *at <= end) {
            wakes += 1;
            assert!(wakes < 10_000, "it spins");
            self.now = self.now.max(at);
            self.punch.handle_timeout(self.now);
            if may_search && self.punch.wants_to_search(self.now) {
                self.punch.begin_search(self.now);
            }
            self.drain();
        }
        self.now = end;
    }

    /// What went to the remote's address, and not to the server.
    fn probes(&self) -> impl Iterator<Item = &CheckTransmit> {
        self.sent.iter().map(|(_, sent)| sent).filter(|sent| sent.path.remote.ip() == remote().ip())
    }

    /// The server answers to the newest question.
    fn server_sees(&mut self, mapped: &str) {
        let (_, asked) = self.sent.iter().rfind(|(_, sent)| sent.path.remote == server()).unwrap();
        let request = BindingRequest::read(&asked.payload).unwrap();
        let answer = request.answer(mapped.parse().unwrap(), None, None);
        assert!(self.punch.handle_answer(asked.path.link, server(), &answer, self.now));
        self.drain();
    }

    /// 500 packets in any second.
    fn keeps_the_rate(&self) {
        for (at, _) in &self.sent {
            let within = self.sent.iter().filter(|(other, _)| other >= at && *other < *at + SEC).count();
            assert!(within <= 500, "{within} in a second");
        }
    }

    fn told(&mut self, theirs: NatProfile, round: u8) {
        self.punch.handle_told(theirs, round, self.now);
        self.drain();
    }
}

#[test]
fn a_search_tries_1715_ports_of_one_address_at_500_a_second_and_none_twice() {
    let mut rig = Rig::new(kept());
    rig.run_for(SEC, true);
    rig.told(drawn(), 0);
    rig.run_for(SEC, true);
    assert_eq!(rig.probes().count(), 0, "the other side has not opened its flows yet");
    rig.told(drawn(), 1);
    assert!(rig.punch.wants_to_search(rig.now));
    rig.punch.begin_search(rig.now);
    rig.run_for(10 * SEC, true);
    assert_eq!(rig.probes().count(), 1715);
    assert!(rig.probes().all(|sent| sent.path.link == LinkId::MAIN), "the other side knows of no other port");
    let ports: BTreeSet<u16> = rig.probes().map(|sent| sent.path.remote.port()).collect();
    assert_eq!((ports.len(), ports.first() >= Some(&1024)), (1715, true));
    rig.keeps_the_rate();
}

#[test]
fn a_search_is_made_from_a_port_that_no_check_has_come_to_where_the_other_side_opens_towards_that() {
    for (round, from) in [(1, LinkId::MAIN), (2, LinkId(1))] {
        let mut rig = Rig::new(kept());
        rig.told(drawn(), 0);
        rig.server_sees("198.51.100.9:50123");
        assert_eq!((rig.told.last(), rig.latest.last()), (Some(&1), Some(&50_123)));
        rig.run_for(SEC / 5, false);
        rig.told(drawn(), round);
        rig.punch.begin_search(rig.now);
        rig.run_for(10 * SEC, true);
        assert_eq!(rig.probes().filter(|sent| sent.path.link == from).count(), 1715);
        assert_eq!(rig.probes().count(), 1715);
        assert!(rig.open.is_empty(), "what found nothing is closed");
    }
}

#[test]
fn the_side_that_opens_goes_to_the_port_that_it_is_told_of_before_it_is_done_and_begins_anew_once() {
    let aimed = |port| NatProfile { latest: port, ..kept() };
    let target = |port| SocketAddr::new(remote().ip(), port);
    for before in [SEC / 5, SEC * 2 / 5] {
        let mut rig = Rig::new(drawn());
        rig.told(kept(), 0);
        rig.run_for(before, true);
        let first = rig.probes().count();
        rig.told(aimed(50_123), 1);
        rig.told(aimed(50_124), 1);
        rig.run_for(SEC, true);
        assert_eq!(rig.told.last(), Some(&2));
        assert_eq!(rig.probes().filter(|sent| sent.path.remote == target(50_123)).count(), 256);
        assert_eq!(rig.probes().count(), 256 + first);
        rig.keeps_the_rate();
    }
    let mut rig = Rig::new(drawn());
    rig.told(kept(), 0);
    rig.run_for(SEC, true);
    rig.told(aimed(50_123), 1);
    rig.run_for(SEC, true);
    assert_eq!((rig.told.last(), rig.probes().count()), (Some(&1), 256), "the other side searches already");
}

#[test]
fn a_shell_that_is_kept_from_it_makes_up_for_little_at_a_time() {
    for (late, through) in [(SEC * 3 / 100, 1715), (SEC / 10, 5 + 38 * 15)] {
        let mut rig = Rig::new(kept());
        rig.told(drawn(), 1);
        rig.punch.begin_search(rig.now);
        let mut most = 0;
        for _ in 0..4 * SEC.as_millis() / late.as_millis() {
            rig.now += late;
            let before = rig.sent.len();
            while rig.punch.poll_timeout().is_some_and(|at| at <= rig.now) {
                rig.punch.handle_timeout(rig.now);
                rig.drain();
            }
            most = most.max(rig.sent.len() - before);
        }
        assert_eq!((rig.sent.len(), most), (through, 15), "{late:?} late each time");
    }
}

#[test]
fn a_shell_that_stumbles_sends_no_more_in_any_second() {
    let mut rig = Rig::new(kept());
    rig.told(drawn(), 1);
    rig.punch.begin_search(rig.now);
    // It is on time, and late for once.
    for late in (0..600).map(|n| if n == 50 { 80 } else { 0 }) {
        let at = rig.punch.poll_timeout().map_or(rig.now, |at| at.max(rig.now));
        rig.now = at + Duration::from_millis(late);
        rig.punch.handle_timeout(rig.now);
        rig.drain();
    }
    assert_eq!(rig.sent.len(), 1715);
    rig.keeps_the_rate();
}

#[test]
fn the_side_that_opens_says_so_once_all_flows_are_there_and_closes_them_when_nobody_comes() {
    let mut rig = Rig::new(drawn());
    rig.told(kept(), 0);
    rig.run_for(SEC, true);
    assert_eq!((rig.open.len(), rig.told.as_slice()), (usize::from(MAX_SOCKETS), &[0, 1][..]));
    assert!(rig.sent.iter().all(|(_, sent)| sent.path.remote == remote() && sent.ttl == Some(3)));
    rig.run_for(10 * SEC, true);
    assert_eq!((rig.open.len(), rig.punch.poll_timeout()), (0, None));
}

#[test]
fn a_search_waits_until_it_may() {
    let mut rig = Rig::new(drawn());
    rig.told(kept(), 0);
    rig.run_for(10 * SEC, false);
    assert!(rig.open.is_empty() && rig.sent.is_empty() && rig.punch.wants_to_search(rig.now));
}

#[test]
fn all_sockets_but_the_one_that_was_heard_are_closed_once_there_is_a_path() {
    let mut rig = Rig::new(drawn());
    rig.told(kept(), 0);
    rig.run_for(SEC, true);
    let heard = *rig.open.iter().nth(77).unwrap();
    assert!(rig.punch.owns(heard));
    rig.punch.release(heard);
    rig.punch.stop();
    rig.drain();
    assert_eq!(rig.open.into_iter().collect::<Vec<_>>(), [heard]);
    assert_eq!((rig.punch.poll_timeout(), rig.punch.is_searching()), (None, false));
}

#[test]
fn a_row_goes_to_one_port_ahead_of_the_told_one_and_is_bounded() {
    let mut rig = Rig::new(counted());
    rig.told(counted(), 0);
    rig.run_for(SEC, false);
    // The server is silent: no sample, no row.
    assert!(rig.sent.iter().all(|(_, sent)| sent.path.remote.port() == 3478));
    rig.run_for(20 * SEC, false);
    assert_eq!((rig.open.len(), rig.punch.poll_timeout()), (0, None));
    assert!(rig.sent.len() <= 15, "{}", rig.sent.len());
}

#[test]
fn a_told_port_at_the_end_of_all_ports_is_aimed_past_by_nobody() {
    let mut rig = Rig::new(counted());
    rig.told(counted(), 0);
    rig.run_for(SEC / 5, false);
    let (_, asked) = rig.sent.pop().unwrap();
    let answer = BindingRequest::read(&asked.payload).unwrap().answer(remote(), None, None);
    assert!(rig.punch.handle_answer(asked.path.link, asked.path.remote, &answer, rig.now));
    rig.told(NatProfile { latest: 65_530, ..counted() }, 1);
    rig.run_for(20 * SEC, false);
    assert!(rig.sent.iter().all(|(_, sent)| sent.path.remote.port() == 3478));
    assert_eq!((rig.open.len(), rig.punch.poll_timeout()), (0, None));
}

#[test]
fn two_sides_that_draw_from_everywhere_give_up_as_soon_as_they_know_and_send_nothing() {
    for (ours, theirs) in [(drawn(), drawn()), (drawn(), counted()), (counted(), drawn()), (block(), drawn())]
    {
        let mut rig = Rig::new(ours);
        let begin = rig.now;
        rig.drain();
        assert_eq!(rig.told, [0], "theirs is not known yet, and they are to know ours");
        rig.told(theirs, 0);
        rig.run_for(20 * SEC, true);
        assert_eq!((rig.sent.len(), rig.links, rig.told.as_slice()), (0, 0, &[0][..]));
        assert_eq!((rig.given_up, rig.punch.poll_timeout()), (vec![begin], None));
    }
}

#[test]
fn where_a_nat_is_only_assumed_to_draw_a_port_for_each_remote_the_plain_ways_have_three_seconds() {
    let assumed = NatProfile { mapping: Dependence::AddressDependent, ..drawn() };
    for (ours, theirs) in [(assumed, assumed), (assumed, drawn()), (drawn(), assumed), (counted(), assumed)] {
        let known = Known { ours: Some(ours), told: Some(ours), theirs: Some(theirs) };
        let mut rig = Rig::knowing(known);
        let begin = rig.now;
        rig.run_for(20 * SEC, true);
        assert_eq!((rig.sent.len(), rig.links), (0, 0), "no port is guessed");
        assert_eq!((rig.given_up, rig.punch.poll_timeout()), (vec![begin + 3 * SEC], None));
    }
}

#[test]
fn what_offer_and_answer_told_of_both_nats_is_enough_to_give_up_at_once_and_is_not_told_again() {
    let nat = Some(drawn());
    let mut rig = Rig::knowing(Known { ours: nat, told: nat, theirs: nat });
    let begin = rig.now;
    rig.run_for(20 * SEC, true);
    assert_eq!((rig.sent.len(), rig.links, rig.told.len()), (0, 0, 0));
    assert_eq!((rig.given_up, rig.punch.poll_timeout()), (vec![begin], None));
}

#[test]
fn whom_the_offer_told_of_another_nat_is_told_of_the_one_that_there_is() {
    let mut rig = Rig::knowing(Known { ours: Some(drawn()), told: Some(counted()), theirs: None });
    rig.drain();
    assert_eq!(rig.told, [0]);
}

#[test]
fn who_gave_up_goes_on_when_the_other_side_has_another_nat() {
    let mut rig = Rig::new(drawn());
    rig.told(drawn(), 0);
    rig.told(kept(), 0);
    rig.run_for(SEC, true);
    assert_eq!(rig.open.len(), usize::from(MAX_SOCKETS));
    rig.told(drawn(), 0);
    rig.run_for(SEC, true);
    assert_eq!(rig.open.len(), usize::from(MAX_SOCKETS), "what is under way is brought to its end");
    rig.run_for(20 * SEC, true);
    assert_eq!((rig.given_up.len(), rig.open.len(), rig.links), (1, 0, MAX_SOCKETS), "and not begun again");
}

#[test]
fn of_a_nat_that_keeps_its_ports_nothing_is_said_until_somebody_may_want_to_know() {
    let mut rig = Rig::new(kept());
    rig.drain();
    assert!(rig.told.is_empty());
    rig.told(counted(), 0);
    assert_eq!(rig.told, [0]);
}

#[test]
fn two_small_blocks_are_searched_from_both_sides_by_flows_for_three_quarters_of_them() {
    let mut rig = Rig::new(block());
    rig.told(block(), 0);
    rig.run_for(SEC * 3 / 2, true);
    assert_eq!((rig.open.len(), rig.told.as_slice()), (usize::from(MAX_SOCKETS), &[0, 1][..]));
    let flows: BTreeSet<_> = rig.sent.iter().map(|(_, sent)| sent.path).collect();
    assert_eq!((rig.sent.len(), flows.len()), (384, 384), "nothing but primes while theirs are not open");
    assert!(rig.sent.iter().all(|(_, sent)| sent.ttl == Some(3) && sent.path.remote.ip() == remote().ip()));
    let ports: BTreeSet<u16> = flows.iter().map(|flow| flow.remote.port()).collect();
    assert_eq!((ports.len(), ports.iter().all(|port| (20_480..20_992).contains(port))), (384, true));
    rig.told(block(), 1);
    rig.run_for(10 * SEC, true);
    assert_eq!(rig.sent.len(), 3 * 384);
    assert!(rig.sent[384..].iter().all(|(_, sent)| sent.ttl.is_none() && flows.contains(&sent.path)));
    for (at, _) in &rig.sent {
        let within = rig.sent.iter().filter(|(other, _)| other >= at && *other < *at + SEC).count();
        assert!(within <= 505, "{within} in a second");
    }
    assert_eq!((rig.open.len(), rig.punch.poll_timeout(), rig.punch.is_searching()), (0, None, false));
}

#[test]
fn a_search_of_two_blocks_ends_by_itself_where_the_other_side_never_comes() {
    let mut rig = Rig::new(block());
    rig.told(block(), 0);
    rig.run_for(10 * SEC, true);
    assert_eq!((rig.sent.len(), rig.open.len(), rig.punch.poll_timeout()), (384, 0, None));
}

#[test]
fn the_method_of_either_side_fits_the_others() {
    let of = |ours: NatProfile, theirs: NatProfile| method(&ours, Some(&theirs));
    assert_eq!([of(counted(), kept()), of(kept(), counted())], [Method::Bracket { step: 2 }, Method::Plain]);
    assert_eq!(of(counted(), counted()), Method::Volley { step: 2 });
    let range = PortRange::new(1024, 65_535);
    assert_eq!([of(drawn(), kept()), of(kept(), drawn())], [Method::Open, Method::Seek { range }]);
    assert_eq!(of(kept(), kept()), Method::Plain);
    let wild = nat(Some(Allocation::Sequential { step: 0 }));
    assert_eq!([of(wild, kept()), of(kept(), wild)], [Method::Plain; 2], "a step of 0 came from the wire");
}

#[test]
fn only_an_answer_that_a_restart_may_have_spoilt_is_asked_for_again() {
    let [before, other_port, other_nat] =
        ["203.0.113.7:4000", "203.0.113.7:4001", "203.0.113.8:4000"].map(|at| at.parse().unwrap());
    for (known, port_matters) in [(None, true), (Some(drawn()), true), (Some(kept()), false)] {
        let is_doubted = |observed| Survey::is_doubted(known.as_ref(), before, observed);
        assert_eq!([before, other_port, other_nat].map(is_doubted), [false, port_matters, true], "{known:?}");
    }
}
