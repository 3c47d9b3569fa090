//! The relays that peers hear of, in the order in which they are to be tried; and whether those elsewhere are there.

use std::sync::Arc;

use proto::wire::relay::PATH;
use proto::wire::session::MAX_HINTS;
use proto::wire::signal::RelayHint;
use relay::client::probe;
use relay::net::Net;
use relay::outbound::{Origin, Outbound};
use relay::server::RelayServer;
use tokio::time::{Duration, sleep};

use crate::checks::Checks;

/// How often a relay elsewhere is asked who it is; and one that did not answer as it should.
const ASK: Duration = Duration::from_secs(180);
const ASK_AGAIN: Duration = Duration::from_secs(15);

/// The server's own relay, and others.
#[derive(Debug)]
pub(crate) struct Relays {
    /// For who has no UDP, and for peers where there is no other.
    pub(crate) own: Option<Arc<RelayServer>>,
    elsewhere: Vec<RelayHint>,
    checks: Checks,
}

impl Relays {
    pub(crate) fn new(own: Option<Arc<RelayServer>>, elsewhere: Vec<RelayHint>, checks: Checks) -> Self {
        Self { own, elsewhere, checks }
    }

    /// The relays for peers who know the server by the URL `base`: those elsewhere, then this server's own, and at the end
    /// what is known to be away.
    pub(crate) fn told(&self, base: &str) -> Vec<RelayHint> {
        let url = format!("{}{PATH}", base.trim_end_matches('/'));
        let own = self.own.as_ref().map(|relay| RelayHint { url, peer_id: relay.peer_id() });
        let known =
            self.elsewhere.iter().enumerate().map(|(n, hint)| (self.checks.may_be_up(n), hint.clone()));
        let (up, away): (Vec<_>, Vec<_>) = known.partition(|(may_be_up, _)| *may_be_up);
        let of = |hints: Vec<(bool, RelayHint)>| hints.into_iter().map(|(_, hint)| hint);
        of(up).chain(own).chain(of(away)).take(MAX_HINTS).collect()
    }

    /// Asks the relays elsewhere who they are, for ever. `changed` is called when the order may be another one.
    pub(crate) async fn follow(&self, net: Arc<dyn Net>, changed: impl Fn()) {
        let outbound = Outbound::new(net, None);
        let each = self.elsewhere.iter().enumerate().map(|(n, hint)| self.ask(n, hint, &outbound, &changed));
        futures_util::future::join_all(each).await;
    }

    async fn ask(&self, index: usize, hint: &RelayHint, outbound: &Outbound, changed: &impl Fn()) {
        let Some(origin) = Origin::of_relay(&hint.url) else {
            let why = format!("its URL does not end in {PATH}");
            self.checks.relay(index, Err(why));
            return changed();
        };
        loop {
            let answer = probe(&origin, hint.peer_id, outbound).await;
            let wait = if answer.is_ok() { ASK } else { ASK_AGAIN };
            let before = self.checks.may_be_up(index);
            self.checks.relay(index, answer);
            if self.checks.may_be_up(index) != before {
                changed();
            }
            sleep(wait).await;
        }
    }
}
