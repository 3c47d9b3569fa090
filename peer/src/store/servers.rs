//! Where servers were when they were asked last, for the time in which their names have no answer.

use std::net::SocketAddr;

use proto::candidate::{Scope, canonical, scope};
use proto::id::PeerId;
use proto::ticket::{MAX_ADDRS, ServerHint};
use proto::wire::session::MAX_HINTS;
use proto::wire::signal::{MAX_URL, RelayHint};
use relay::program::state::StateFile;
use serde::{Deserialize, Serialize};

use super::{Store, file_name};
use crate::locate::Located;

/// What a server said of itself, and where it was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownServer {
    url: String,
    peer_id: String,
    udp: Vec<SocketAddr>,
    relays: Vec<KnownRelay>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownRelay {
    url: String,
    peer_id: String,
}

impl KnownServer {
    fn of(located: &Located) -> Self {
        let Located { server, relays } = located.clone();
        let relays = relays.into_iter();
        let relays =
            relays.map(|relay| KnownRelay { url: relay.url, peer_id: relay.peer_id.to_string() }).collect();
        Self { url: server.url, peer_id: server.peer_id.to_string(), udp: server.udp, relays }
    }

    /// Back to what it was; none where it can't have been.
    fn into_located(self, url: &str) -> Option<Located> {
        let peer_id: PeerId = self.peer_id.parse().ok()?;
        let is_possible = |addr: &SocketAddr| scope(*addr) != Scope::Unusable;
        let udp: Vec<_> = self.udp.into_iter().map(canonical).filter(is_possible).take(MAX_ADDRS).collect();
        let relays = self.relays.into_iter().filter(|relay| relay.url.len() <= MAX_URL).take(MAX_HINTS);
        let relays: Vec<_> = relays
            .filter_map(|relay| Some(RelayHint { url: relay.url, peer_id: relay.peer_id.parse().ok()? }))
            .collect();
        let is_whole = self.url == url && !(udp.is_empty() && relays.is_empty());
        let server = ServerHint { url: self.url, udp, peer_id };
        is_whole.then_some(Located { server, relays })
    }
}

impl Store {
    /// What this server said of itself when it was asked last. What can't be read is as good as nothing: there is one
    /// line about it in the log.
    pub fn last_located(&self, url: &str) -> Option<Located> {
        let file = self.located_file(url);
        let known = match file.load() {
            Ok(known) => known?,
            Err(_) if !self.keeps => return None,
            Err(error) => {
                tracing::warn!("the server's last address is not known: {error}");
                return None;
            }
        };
        let located = known.into_located(url);
        if located.is_none() {
            tracing::warn!("the server's last address is not known: {} holds none", file.path().display());
        }
        located
    }

    /// Remembers what a server said of itself, for [`Self::last_located`]. That it can't be written is worth no more
    /// than a line in the log: nothing depends on it today.
    pub fn remember_located(&self, located: &Located) {
        if !self.keeps {
            return;
        }
        let (file, known) = (self.located_file(&located.server.url), KnownServer::of(located));
        if matches!(file.load(), Ok(Some(kept)) if kept == known) {
            return;
        }
        if let Err(error) = file.save(&known) {
            tracing::debug!("the server's address is not remembered: {error}");
        }
    }

    fn located_file(&self, url: &str) -> StateFile<KnownServer> {
        StateFile::new(self.dir.join("servers-last-seen").join(file_name(url)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://culvert.example";

    fn located() -> Located {
        let peer_id = PeerId::from_bytes([7; 32]);
        let udp = vec!["203.0.113.1:3478".parse().unwrap(), "[2001:db8::1]:3478".parse().unwrap()];
        Located {
            server: ServerHint { url: URL.to_owned(), udp, peer_id },
            relays: vec![RelayHint { url: format!("{URL}/relay"), peer_id }],
        }
    }

    fn parts(located: &Located) -> (&ServerHint, &[RelayHint]) {
        (&located.server, &located.relays)
    }

    #[test]
    fn what_a_server_said_is_remembered_by_its_url() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        assert!(store.last_located(URL).is_none());
        store.remember_located(&located());
        assert_eq!(parts(&store.last_located(URL).unwrap()), parts(&located()));
        assert!(store.last_located("https://other.example").is_none());
    }

    #[test]
    fn a_damaged_or_foreign_file_is_as_good_as_none_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        let path = store.located_file(URL).path().to_owned();
        store.remember_located(&located());
        let whole = std::fs::read(&path).unwrap();
        for bytes in [&b""[..], b"nonsense", &whole[..whole.len() - 3], &whole[10..]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(store.last_located(URL).is_none());
            store.remember_located(&located());
            assert_eq!(parts(&store.last_located(URL).unwrap()), parts(&located()));
        }
        let known = KnownServer { peer_id: "nobody".to_owned(), ..KnownServer::of(&located()) };
        store.located_file(URL).save(&known).unwrap();
        assert!(store.last_located(URL).is_none(), "its identity is none");
        let known = KnownServer { url: "https://other.example".to_owned(), ..KnownServer::of(&located()) };
        store.located_file(URL).save(&known).unwrap();
        assert!(store.last_located(URL).is_none(), "it is another server's");
    }

    #[test]
    fn addresses_that_no_packet_may_go_to_are_left_out() {
        let mut with_nonsense = located();
        with_nonsense.server.udp.insert(0, "224.0.0.1:3478".parse().unwrap());
        let read = KnownServer::of(&with_nonsense).into_located(URL).unwrap();
        assert_eq!(read.server.udp, located().server.udp);
    }
}
