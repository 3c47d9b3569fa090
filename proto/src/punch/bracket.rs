//! **Bracket**: which port a NAT that counts has given a flow, told by the ports of the flows before and after it.
//!
//! Three sockets send back to back: to the server, to the remote (a prime, which dies on the way), to the server.
//! What the server saw of the first and the third encloses the second's port, whatever other hosts do meanwhile.
//! The remote is told those ports as candidates. Its check of the right one passes our NAT, since we have sent to
//! it from there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::context::{Context, PunchAction};
use super::{prime_ttl, stepped};
use crate::machine::{earliest, random};
use crate::path::{LinkId, MappingQuery};

/// A round is a new flow: the last one's candidates did not come through.
const ROUNDS: u8 = 4;

/// From one round to the next. The flows of all rounds stay open until the last is over.
const ROUND: Duration = Duration::from_millis(700);

/// How long the flows stay open after the last round.
const REST: Duration = Duration::from_secs(3);

/// How many ports one round names: a remote has room for eight candidates.
const MAX_NAMED: usize = 4;

/// A bracket wider than this says nothing.
const MAX_BETWEEN: i32 = 64;

#[derive(Debug)]
struct Edge {
    link: LinkId,
    query: MappingQuery,
    mapped: Option<SocketAddr>,
}

#[derive(Debug)]
pub(super) struct Bracket {
    step: i16,
    round: u8,
    next: Option<Instant>,
    edges: Option<[Edge; 2]>,
}

impl Bracket {
    pub(super) fn new(step: i16, now: Instant) -> Self {
        Self { step, round: 0, next: Some(now), edges: None }
    }

    pub(super) fn handle_opened(&mut self, links: &[LinkId], context: &mut Context, now: Instant) {
        let [before, flow, after] = *links else {
            return links.iter().for_each(|link| context.close(*link));
        };
        let edges = [before, after].map(|link| {
            let query = MappingQuery::new(random(&mut context.rng), now);
            Edge { link, query, mapped: None }
        });
        let [first, last] = self.edges.insert(edges);
        let remote = context.remote;
        if let Some(request) = first.query.poll_transmit(now) {
            context.ask_server(before, request);
        }
        context.probe(flow, remote, Some(prime_ttl(self.round - 1)));
        if let Some(request) = last.query.poll_transmit(now) {
            context.ask_server(after, request);
        }
    }

    pub(super) fn handle_answer(&mut self, link: LinkId, datagram: &[u8], context: &mut Context) -> bool {
        let Some(edges) = &mut self.edges else { return false };
        let Some(edge) = edges.iter_mut().find(|edge| edge.link == link) else { return false };
        let Some(mapped) = edge.query.handle_answer(datagram) else { return false };
        edge.mapped = Some(mapped);
        context.close(link);
        if let [Some(before), Some(after)] = edges.each_ref().map(|edge| edge.mapped) {
            let ports = between(before.port(), after.port(), self.step);
            if before.ip() == after.ip() && !ports.is_empty() {
                let named = ports.into_iter().map(|port| SocketAddr::new(before.ip(), port));
                context.actions.push_back(PunchAction::Name(named.collect()));
            }
            self.edges = None;
        }
        true
    }

    /// Returns whether it is over.
    pub(super) fn handle_timeout(&mut self, context: &mut Context, now: Instant) -> bool {
        for edge in self.edges.iter_mut().flatten() {
            if let Some(request) = edge.query.poll_transmit(now) {
                context.ask_server(edge.link, request);
            }
        }
        if self.next.is_none_or(|at| at > now) {
            return false;
        }
        if self.round == ROUNDS {
            return true;
        }
        for edge in self.edges.take().into_iter().flatten() {
            context.close(edge.link);
        }
        self.round += 1;
        self.next = Some(now + if self.round == ROUNDS { REST } else { ROUND });
        context.open(3);
        false
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let asked = self.edges.iter().flatten().filter_map(|edge| edge.query.poll_timeout()).min();
        earliest(asked, self.next)
    }
}

/// The ports that a flow between two others may have: those in between. Only where there are none, for packets may
/// overtake each other on their way to the NAT, those just outside: one of these may be another flow of ours to the
/// remote, and a check of that one moves the remote's port for all flows that follow, where its router is leaky
/// (Linux keeps to a port that it once gave a socket).
fn between(before: u16, after: u16, step: i16) -> Vec<u16> {
    let difference = i32::from(after) - i32::from(before);
    let strides = difference / i32::from(step);
    let (from, last) = if strides >= 0 { (before, strides) } else { (after, -strides) };
    if difference % i32::from(step) != 0 || last > MAX_BETWEEN {
        return Vec::new();
    }
    let inside: Vec<i32> = (1..last).take(MAX_NAMED).collect();
    let outside = vec![last + 1, -1, last + 2, -2];
    let steps = if inside.is_empty() { outside } else { inside };
    steps.into_iter().filter_map(|n| stepped(from, step, n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flow_in_the_middle_is_named_and_nothing_else_in_either_direction() {
        assert_eq!(between(1000, 1002, 1), [1001]);
        assert_eq!(between(1000, 992, -4), [996]);
        assert_eq!(between(1000, 1003, 1), [1001, 1002], "a flow of another host's");
    }

    #[test]
    fn a_flow_that_was_overtaken_is_next_to_the_others() {
        assert_eq!(between(1000, 1001, 1)[..2], [1002, 999]);
        assert_eq!(between(1001, 1000, 1)[..2], [1002, 999], "the edges were overtaken too");
    }

    #[test]
    fn ports_that_follow_no_step_name_nothing() {
        assert!(between(1000, 1001, 2).is_empty());
        assert!(between(1000, 9000, 1).is_empty());
        assert_eq!(between(65_535, 65_535, 1)[..1], [65_534]);
    }
}
