//! Why the session is up only by relay, or not at all: see [`proto::no_udp`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::candidate::{Scope, scope};
use proto::machine::random;
use proto::no_udp::{Cause, Here, Tried, diagnose};
use proto::path::PathKind;
use tokio::task::AbortHandle;

use super::{Driver, Input, Standing};
use crate::endpoint::{EndpointEvent, PathPolicy};
use crate::probe;

/// How long the first session may take before the network is asked why there is none. A relay has carried it by then
/// where there is one.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long after ports that did not answer they are asked once more, before the user is told; it is twice as long the
/// second time. A server may be on its way to another port. And a router sends about one refusal a second (RFC 1812
/// §4.3.2.8), which the session's own packets use up at first, and those that look for a direct path to a remote for 9 s.
const ONCE_MORE: Duration = Duration::from_secs(3);

/// How often they are asked: with remotes, and without.
const ROUNDS: [u32; 2] = [3, 2];

/// What is known of it.
#[derive(Debug)]
pub(super) struct Diagnosis {
    /// Whether the session goes through the server's relay.
    is_relayed: bool,
    cause: Option<Cause>,
    /// The cause that the user was told of: once is enough.
    told: Option<Cause>,
    /// When to ask why there is no session, or once more why it is relayed.
    ask_at: Option<Instant>,
    /// How often ports did not answer so far.
    silent_rounds: u32,
    /// Why the server can't be reached over TCP.
    no_tcp: Option<String>,
    task: Option<AbortHandle>,
}

impl Drop for Diagnosis {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// What was found out about the server's ports.
#[derive(Debug)]
pub(in crate::endpoint) struct Probed {
    tried: Vec<Tried>,
    beside: Vec<Tried>,
}

impl Diagnosis {
    pub(super) fn new(now: Instant) -> Self {
        let (cause, told, no_tcp, task) = (None, None, None, None);
        let (is_relayed, silent_rounds, ask_at) = (false, 0, Some(now + PATIENCE));
        Self { is_relayed, cause, told, ask_at, silent_rounds, no_tcp, task }
    }

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.ask_at
    }

    /// Whether the session goes through the relay, and why, as far as that is known.
    pub(super) fn relayed(&self) -> (bool, Option<Cause>) {
        (self.is_relayed, self.cause.filter(|_| self.is_relayed))
    }

    /// There is a session.
    pub(super) fn handle_connected(&mut self, is_relayed: bool) {
        self.is_relayed = is_relayed;
        (self.ask_at, self.silent_rounds) = (None, 0);
        if !is_relayed {
            self.cause = None;
        }
    }

    /// The server's relay is there, or why it is not.
    pub(super) fn handle_tcp(&mut self, failure: Option<String>) {
        self.no_tcp = failure;
    }

    /// Why there is no session, for the error's words. `last` is what the last attempt said.
    fn why(&self, last: &str) -> String {
        let Some(cause) = self.cause else {
            return format!(
                "no answer over UDP ({last}); check that UDP to it is not blocked, and that it runs"
            );
        };
        match (&self.no_tcp, cause) {
            // That keeps TCP away too.
            (_, Cause::NoSharedFamily { .. } | Cause::NoRoute { .. }) | (None, _) => cause.to_string(),
            (Some(tcp), _) => format!(
                "neither over TCP ({tcp}) nor over UDP ({}); check the address, and that the server runs",
                cause.brief()
            ),
        }
    }
}

impl Driver {
    pub(super) fn why_no_session(&self) -> String {
        self.diagnosis.why(&self.last_failure)
    }

    /// The session is up.
    pub(super) fn ask_why_relayed(&mut self) {
        if self.diagnosis.is_relayed && self.parts.paths != PathPolicy::Relay {
            self.ask_why();
        }
    }

    pub(super) fn diagnosis_timeout(&mut self, now: Instant) {
        if self.diagnosis.ask_at.is_some_and(|at| at <= now) {
            self.diagnosis.ask_at = None;
            if *self.parts.standing.borrow() == Standing::Starting || self.diagnosis.is_relayed {
                self.ask_why();
            }
        }
    }

    fn ask_why(&mut self) {
        if let Some(task) = self.diagnosis.task.take() {
            task.abort();
        }
        let (net, host) = (Arc::clone(&self.parts.net), self.parts.server.host().to_owned());
        let reachable = self.parts.server.reachable();
        let (udp, others) = (self.servers.addrs.as_slice().to_vec(), self.ports.alternates().to_vec());
        let (seeds, inputs) = ([random(&mut self.rng), random(&mut self.rng)], self.parts.inputs.clone());
        let task = tokio::spawn(async move {
            let places = probe::places(&*net, &host, &udp, |at| reachable.may_lead_to(at)).await;
            let beside = probe::ports_beside(&places, &others);
            let [first, second] = seeds;
            // One after the other: the refusal that a router has to spare is to come for the main port.
            let tried = probe::probe_all(&net, &places, first).await;
            let beside = probe::probe_all(&net, &beside, second).await;
            if let Some(inputs) = inputs.upgrade() {
                let _ = inputs.send(Input::Probed(Probed { tried, beside })).await;
            }
        });
        self.diagnosis.task = Some(task.abort_handle());
    }

    pub(super) fn handle_probed(&mut self, probed: &Probed, now: Instant) {
        let addresses = self.parts.net.addresses().unwrap_or_default();
        let here = Here { passes_elsewhere: self.has_direct_path(), ..Here::with(&addresses) };
        let cause = diagnose(&probed.tried, &probed.beside, here);
        tracing::debug!(?cause, relayed = self.diagnosis.is_relayed, "UDP to the server");
        self.diagnosis.cause = cause;
        // A session by UDP has come up in the meantime, or there is none yet, and its error will say it.
        let Some(cause) = cause.filter(|_| self.diagnosis.is_relayed) else { return };
        let [with_remotes, alone] = ROUNDS;
        let enough = if self.remotes.is_empty() { alone } else { with_remotes };
        self.diagnosis.silent_rounds += 1;
        if cause.is_silence() && self.diagnosis.silent_rounds < enough {
            self.diagnosis.ask_at = Some(now + ONCE_MORE * self.diagnosis.silent_rounds);
            return;
        }
        if self.diagnosis.told.replace(cause).is_none() {
            self.event(EndpointEvent::NoUdp(cause));
        }
    }

    /// Whether UDP passes between this machine and a host of the Internet.
    fn has_direct_path(&self) -> bool {
        let mut primaries = self.remotes.values().filter_map(|remote| remote.agent.primary());
        primaries.any(|(path, kind, _)| kind == PathKind::Direct && scope(path.remote) == Scope::Global)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_error_names_what_keeps_both_ways_away_and_blames_no_udp_where_tcp_fails_too() {
        let mut diagnosis = Diagnosis::new(Instant::now());
        assert!(diagnosis.why("timed out").starts_with("no answer over UDP (timed out)"));
        diagnosis.cause = Some(Cause::RefusedHere { at: addr("203.0.113.1:3478") });
        assert!(diagnosis.why("timed out").starts_with("this machine's own firewall refuses UDP"));
        diagnosis.handle_tcp(Some("refused".into()));
        let why = diagnosis.why("timed out");
        assert!(why.starts_with("neither over TCP (refused) nor over UDP (this machine's own"), "{why}");
        diagnosis.cause = Some(Cause::NoRoute { at: addr("203.0.113.1:3478") });
        assert!(diagnosis.why("timed out").starts_with("this machine has no route"));
    }
}
