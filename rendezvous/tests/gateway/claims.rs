//! Many keys that want one name, at a real server.

use futures_util::future::join_all;
use proto::id::Instance;
use proto::limit::Rate;
use proto::tunnel::names::NamesConfig;
use proto::wire::gateway::{ALPN, EXPORTER_LABEL, FromGateway, NotPublished, Publication, ToGateway};
use proto::wire::{Deframer, VERSION, frame, parse};
use quinn::{Connection, Endpoint};
use relay::gateway::Claims;
use rendezvous::{Limits, Server, ServerConfig};
use std::time::Duration;

use crate::support::{Client, PATIENCE, key, loopback, share, start};

/// Keys, and how many of them come at a time.
const KEYS: usize = 1000;
const AT_A_TIME: usize = 100;

/// A key with its connection to the gateway.
struct Claimant {
    client: Client,
    connection: Connection,
}

impl Claimant {
    async fn connect(server: &Server, endpoint: Endpoint) -> Self {
        let client = Client { key: key(), endpoint };
        let connection = client.dial(server.udp_addrs()[0], server.peer_id(), ALPN).await.unwrap();
        Self { client, connection }
    }

    /// Claims a name, and says whether it is the one that has it.
    async fn claim(&self, server: &Server, name: &str) -> bool {
        let mut nonce = [0; 32];
        self.connection.export_keying_material(&mut nonce, EXPORTER_LABEL, b"").unwrap();
        let hello = ToGateway::Hello { version: VERSION, instance: Instance([1; 8]), token: None };
        let claim = Publication::new(&self.client.key, &server.peer_id(), &nonce, share(1), name);
        let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
        send.write_all(&[frame(&hello), frame(&ToGateway::Publish(claim))].concat()).await.unwrap();
        let mut deframer = Deframer::default();
        loop {
            if let Some(body) = deframer.next_frame().unwrap() {
                return match parse(&body).unwrap() {
                    FromGateway::Published { .. } => true,
                    FromGateway::Refused { reason: NotPublished::Taken, .. } => false,
                    other @ (FromGateway::Refused { .. } | FromGateway::Displaced { .. }) => {
                        panic!("{other:?}")
                    }
                };
            }
            let chunk = receive.read_chunk(4096, true).await.unwrap().expect("the server hung up");
            deframer.push(&chunk.bytes);
        }
    }
}

#[tokio::test]
async fn of_a_thousand_keys_that_race_for_a_name_one_has_it_and_the_others_are_told() {
    let plenty = Rate { burst: 10_000, refill: Duration::from_millis(1) };
    let names = NamesConfig { claims_each: plenty, claims: plenty, ..NamesConfig::default() };
    let limits = Limits { names, handshakes_each: plenty, handshakes_total: plenty, ..Limits::default() };
    let state = tempfile::tempdir().unwrap();
    let claims = Claims::open(&state.path().join("names.redb")).unwrap();
    let server = start(ServerConfig { claims, limits, domain: "example.test".to_owned(), ..loopback() });
    let endpoint = Client::new().endpoint;
    // Those that came before stay: a name is its key's while that is here.
    let mut claimants = Vec::new();
    while claimants.len() < KEYS {
        let racing = (0..AT_A_TIME).map(|_| async {
            let claimant = Claimant::connect(&server, endpoint.clone()).await;
            (claimant.claim(&server, "wanted").await, claimant)
        });
        claimants.extend(tokio::time::timeout(PATIENCE, join_all(racing)).await.expect("no answer"));
    }
    assert_eq!(claimants.iter().filter(|(won, _)| *won).count(), 1);
    let stats = server.stats().gateway;
    assert_eq!((stats.claimed, stats.published, stats.publications_refused), (1, 1, KEYS as u64 - 1));
}
