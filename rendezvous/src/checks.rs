//! The one driver of [`ServerHealth`]: it hands in what the server sees, and logs what is wrong.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant as StdInstant;

use proto::id::PeerId;
use proto::server_health::{Host, RequestFacts, ServerFacts, ServerHealth, Warning, WarningKind, Way};
use relay::gateway::Witness;
use relay::metrics::Metrics;
use relay::program::report::clean;
use tokio::time::Instant;

/// What is wrong with how this server is deployed.
#[derive(Debug, Clone)]
pub(crate) struct Checks(Arc<Mutex<ServerHealth>>);

impl Checks {
    /// Of a server that starts now.
    pub(crate) fn new(facts: ServerFacts) -> Self {
        let checks = Self(Arc::new(Mutex::new(ServerHealth::new(facts, Instant::now().into_std()))));
        checks.input(|_, _| {});
        checks
    }

    /// The addresses of this machine.
    pub(crate) fn own(&self, own: &[IpAddr]) {
        self.input(|health, _| health.handle_own(own));
    }

    /// What the name by which clients come resolves to.
    pub(crate) fn resolved(&self, host: &Host, found: &[IpAddr]) {
        self.input(|health, now| health.handle_resolved(host, found, now));
    }

    /// A session has come in.
    pub(crate) fn session(&self, peer: PeerId, way: Way) {
        self.input(|health, now| health.handle_session(peer, way, now));
    }

    /// What a relay elsewhere said when it was asked who it is.
    pub(crate) fn relay(&self, index: usize, answer: Result<(), String>) {
        self.input(|health, now| health.handle_relay(index, answer, now));
    }

    /// Whether a relay elsewhere is not known to be away.
    pub(crate) fn may_be_up(&self, index: usize) -> bool {
        self.read(|health| health.may_be_up(index))
    }

    /// What is wrong now, as lines for the operator.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.read(|health| health.warnings().map(line).collect())
    }

    /// The same as numbers.
    pub(crate) fn write(&self, out: &mut Metrics) {
        self.read(|health| {
            let active = |kind| health.warnings().filter(|warning| warning.kind() == kind).count() as u64;
            let kinds = WarningKind::ALL.map(|kind| (kind.name(), active(kind)));
            out.labelled(
                "warnings",
                "What is wrong with the deployment now, by kind; /readyz says more.",
                "kind",
                &kinds,
            );
            let plain = |url: &str| url.replace(|c: char| c == '"' || c == '\\' || c.is_control(), "_");
            let relays: Vec<_> =
                health.relays().filter_map(|(url, up)| Some((plain(url), u64::from(up?)))).collect();
            let relays: Vec<_> = relays.iter().map(|(url, up)| (url.as_str(), *up)).collect();
            if !relays.is_empty() {
                out.labelled("relay_up", "Whether a relay elsewhere answered as it should.", "url", &relays);
            }
        });
    }

    fn read<T>(&self, read: impl FnOnce(&ServerHealth) -> T) -> T {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands one input in, and logs what it comes to.
    fn input(&self, input: impl FnOnce(&mut ServerHealth, StdInstant)) {
        let news: Vec<Warning> = {
            let mut health = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            input(&mut health, Instant::now().into_std());
            std::iter::from_fn(|| health.poll_warning()).collect()
        };
        news.iter().for_each(|warning| tracing::warn!("{}", line(warning)));
    }
}

impl Witness for Checks {
    fn forwarded(&self, request: RequestFacts<'_>) {
        self.input(|health, now| health.handle_request(request, now));
    }

    fn not_apex(&self, name: &str) {
        self.input(|health, now| health.handle_unknown_host(name, now));
    }
}

/// A warning as one line, whatever strangers have put into it.
fn line(warning: &Warning) -> String {
    clean(&warning.to_string()).into_owned()
}
