//! **Volley**: two NATs that count, each aimed at a port that the other is about to give out.
//!
//! Each side learns its NAT's newest port by one flow to the server, and tells it. Once both have, each opens a
//! row of flows, all to the one port that is [`AHEAD`] of what the other told. Each row contains the flow whose own
//! port is the one that the other side aims at, wherever other hosts' flows have pushed the row meanwhile.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::context::{Context, PunchAction};
use super::{prime_ttl, stepped};
use crate::machine::{earliest, random};
use crate::nat::NatProfile;
use crate::path::{LinkId, MappingQuery};

const ROUNDS: u8 = 3;

/// How far ahead of the told port both sides aim. So many flows may other hosts open between the telling and the
/// volley.
const AHEAD: i32 = 16;

/// Flows of a row: a few more than [`AHEAD`], for flows of others within it.
const ROW: u16 = 20;

/// After the primes each flow sends full checks at these times, by when the other side has primed too.
const CHECKS: [Duration; 4] = [
    Duration::from_millis(60),
    Duration::from_millis(160),
    Duration::from_millis(280),
    Duration::from_millis(420),
];

/// When a round is given up, from its volley on.
const ROUND: Duration = Duration::from_millis(700);

/// How long a round may wait for the server, and for the other side.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum Phase {
    Sampling { sample: Option<(LinkId, MappingQuery)>, until: Instant },
    Ready { until: Instant },
    Firing { target: SocketAddr, links: Vec<LinkId>, since: Instant, sent: usize },
}

#[derive(Debug)]
pub(super) struct Volley {
    /// Their NAT's.
    step: i16,
    round: u8,
    phase: Phase,
    /// Their newest port, and for which round it was told.
    told: (u16, u8),
}

impl Volley {
    pub(super) fn new(step: i16, context: &mut Context, now: Instant) -> Self {
        context.open(1);
        let phase = Phase::Sampling { sample: None, until: now + PATIENCE };
        Self { step, round: 1, phase, told: (0, 0) }
    }

    /// Their newest port, told for this round.
    pub(super) fn handle_told(&mut self, latest: u16, round: u8, context: &mut Context) {
        self.told = (latest, round);
        self.fire_if_both_told(context);
    }

    pub(super) fn handle_opened(&mut self, links: &[LinkId], context: &mut Context, now: Instant) {
        match &mut self.phase {
            Phase::Sampling { sample, .. } => {
                let Some(&link) = links.first() else { return };
                let mut query = MappingQuery::new(random(&mut context.rng), now);
                if let Some(request) = query.poll_transmit(now) {
                    context.ask_server(link, request);
                }
                *sample = Some((link, query));
            }
            Phase::Firing { target, links: row, since, .. } => {
                *since = now;
                *row = links.to_vec();
                links.iter().for_each(|link| context.probe(*link, *target, Some(prime_ttl(self.round - 1))));
            }
            Phase::Ready { .. } => links.iter().for_each(|link| context.close(*link)),
        }
    }

    pub(super) fn handle_answer(
        &mut self,
        link: LinkId,
        datagram: &[u8],
        ours: &mut NatProfile,
        context: &mut Context,
        now: Instant,
    ) -> bool {
        let Phase::Sampling { sample: Some((asked, query)), .. } = &mut self.phase else { return false };
        if *asked != link {
            return false;
        }
        let Some(mapped) = query.handle_answer(datagram) else { return false };
        ours.latest = mapped.port();
        context.close(link);
        context.actions.push_back(PunchAction::Tell(*ours, self.round));
        self.phase = Phase::Ready { until: now + PATIENCE };
        self.fire_if_both_told(context);
        true
    }

    /// Returns whether it is over.
    pub(super) fn handle_timeout(&mut self, context: &mut Context, now: Instant) -> bool {
        match &mut self.phase {
            Phase::Sampling { sample: Some((link, query)), .. } => {
                if let Some(request) = query.poll_transmit(now) {
                    context.ask_server(*link, request);
                }
            }
            Phase::Sampling { sample: None, .. } | Phase::Ready { .. } => {}
            Phase::Firing { target, links, since, sent } => {
                if CHECKS.get(*sent).is_some_and(|after| *since + *after <= now) {
                    *sent += 1;
                    links.iter().for_each(|link| context.probe(*link, *target, None));
                }
            }
        }
        if self.ends() > now {
            return false;
        }
        context.close_all();
        if self.round == ROUNDS {
            return true;
        }
        self.round += 1;
        self.phase = Phase::Sampling { sample: None, until: now + PATIENCE };
        context.open(1);
        false
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let next = match &self.phase {
            Phase::Sampling { sample, .. } => sample.as_ref().and_then(|(_, query)| query.poll_timeout()),
            Phase::Ready { .. } => None,
            Phase::Firing { since, sent, .. } => CHECKS.get(*sent).map(|after| *since + *after),
        };
        earliest(next, Some(self.ends()))
    }

    fn ends(&self) -> Instant {
        match self.phase {
            Phase::Sampling { until, .. } | Phase::Ready { until } => until,
            Phase::Firing { since, .. } => since + ROUND,
        }
    }

    fn fire_if_both_told(&mut self, context: &mut Context) {
        let (latest, round) = self.told;
        let Phase::Ready { until } = self.phase else { return };
        if round < self.round {
            return;
        }
        // Where the ports end, nobody knows at which they begin again: the next round's are other ones.
        let Some(port) = stepped(latest, self.step, AHEAD) else { return };
        let target = SocketAddr::new(context.remote.ip(), port);
        self.phase = Phase::Firing { target, links: Vec::new(), since: until, sent: 0 };
        context.open(ROW);
    }
}
