//! Which of the server's UDP ports answer, and what that shows of the NAT in between.

use std::net::SocketAddr;
use std::sync::Arc;

use proto::candidate::canonical;
use proto::nat::Findings;
use proto::no_udp::Tried;
use relay::net::Net;
use rendezvous::well_known::WellKnown;
use tokio::task::JoinSet;

use super::discover::discover;
use crate::endpoint::EndpointConfig;
use crate::probe::{self, Place};

/// What was found out by UDP.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) v4: Findings,
    pub(super) v6: Findings,
    /// The server's main port, at each of its addresses.
    pub(super) tried: Vec<Tried>,
    /// Its other ports.
    pub(super) beside: Vec<Tried>,
}

/// What was found out in one family.
#[derive(Default)]
struct InFamily {
    findings: Findings,
    tried: Vec<Tried>,
    beside: Vec<Tried>,
}

/// Asks the addresses that a server names, and those of its URL's host.
pub(super) async fn ask(net: &Arc<dyn Net>, known: &WellKnown, host: &str) -> Found {
    let places = probe::places(&**net, host, &known.udp, |_| true).await;
    let others: Vec<SocketAddr> = known.udp_alternate.iter().map(|addr| canonical(*addr)).collect();
    let of = |is_v4: bool| -> Vec<Place> {
        places.iter().copied().filter(|(at, _)| at.is_ipv4() == is_v4).collect()
    };
    let (v4, v6) = tokio::join!(ask_family(net, of(true), &others), ask_family(net, of(false), &others));
    Found {
        v4: v4.findings,
        v6: v6.findings,
        tried: [v4.tried, v6.tried].concat(),
        beside: [v4.beside, v6.beside].concat(),
    }
}

async fn ask_family(net: &Arc<dyn Net>, places: Vec<Place>, others: &[SocketAddr]) -> InFamily {
    let beside = probe::ports_beside(&places, others);
    let mut probes = probe::start(net, &places, EndpointConfig::random_seed());
    let besides = probe::probe_all(net, &beside, EndpointConfig::random_seed());
    let look = async {
        let mut tried = Vec::new();
        let Some(server) = first_answer(&mut probes, &mut tried).await else {
            return (Findings::default(), tried);
        };
        let others: Vec<SocketAddr> =
            beside.iter().map(|(at, _)| *at).chain(others.iter().copied()).collect();
        let rest = async {
            while let Some(done) = probes.join_next().await {
                tried.extend(done.ok());
            }
        };
        let (findings, ()) = tokio::join!(discover(&**net, server, &others), rest);
        (findings, tried)
    };
    let ((findings, mut tried), beside) = tokio::join!(look, besides);
    tried.sort_by_key(|(number, _)| *number);
    InFamily { findings, tried: tried.into_iter().map(|(_, tried)| tried).collect(), beside }
}

/// Where the server answers first; what else was found by then is added to `tried`.
async fn first_answer(
    probes: &mut JoinSet<(usize, Tried)>,
    tried: &mut Vec<(usize, Tried)>,
) -> Option<SocketAddr> {
    while let Some(done) = probes.join_next().await {
        let Ok(done) = done else { continue };
        tried.push(done);
        if done.1.is_answered() {
            return Some(done.1.at);
        }
    }
    None
}
