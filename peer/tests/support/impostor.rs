//! Somebody who holds a ticket and says to be its sharer: offers are answered rightly, checks too, and the
//! key alone is another one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use proto::id::{Instance, PeerId};
use proto::path::{LinkId, PathAgent, PathConfig, PathEvent, PathKind};
use proto::proof::{CheckKeys, Exchange};
use proto::stun::Role;
use proto::ticket::Ticket;
use proto::wire::signal::{Answer, Claims, Mac, Nonce, Offer, Verdict};
use proto::wire::{VERSION, peer as peer_wire};
use relay::net::{Net as _, OsNet};
use relay::quic::{Addresses, ResetKey, endpoint_config, server_config, transport};
use relay::tls;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use ::peer::path_socket::{Datagram, PathSocket};

use super::key;

/// The impostor, waiting at its address.
#[derive(Debug)]
pub(crate) struct Impostor {
    pub(crate) addr: SocketAddr,
    pub(crate) instance: Instance,
    socket: Arc<PathSocket>,
    datagrams: Option<mpsc::Receiver<Datagram>>,
    _quinn: quinn::Endpoint,
    tasks: Vec<JoinHandle<()>>,
}

impl Impostor {
    pub(crate) fn start() -> Self {
        let key = key();
        let link = OsNet.bind_udp((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let addr = link.local_addr().unwrap();
        let (socket, datagrams) = PathSocket::new([1; 32]);
        socket.add_link(LinkId::MAIN, link);
        let reset = ResetKey::derive(&key, b"impostor");
        let tls = tls::server_config(&key, &[peer_wire::ALPN]);
        let config = server_config(tls, &reset, Arc::new(transport()), Addresses::Stable);
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            endpoint_config(&reset, None),
            Some(config),
            Arc::clone(&socket) as Arc<dyn quinn::AsyncUdpSocket>,
            Arc::new(quinn::TokioRuntime),
        )
        .unwrap();
        let accepting = quinn.clone();
        let accept = tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                let _ = incoming.await;
            }
        });
        let instance = Instance([9; 8]);
        Self { addr, instance, socket, datagrams: Some(datagrams), _quinn: quinn, tasks: vec![accept] }
    }

    /// Answers an offer as its sharer would who knows the ticket's secret, and begins checks.
    pub(crate) fn answer(&mut self, ticket: &Ticket, from: (PeerId, Instance), offer: &Offer) -> Answer {
        let exchange = exchange(ticket, from);
        let verdict = Verdict::Accepted { nonce: Nonce([8; 16]), claims: Claims::default() };
        let mut answer =
            Answer { version: VERSION, offer: offer.nonce, verdict, mac: Mac([0; 32]), nat: None };
        answer.mac = ticket.secret.answer_mac(&exchange, self.instance, &answer);
        let keys =
            ticket.secret.check_keys(&exchange, self.instance, offer.username, offer.nonce, Nonce([8; 16]));
        let datagrams = self.datagrams.take().expect("one offer is answered");
        self.tasks.push(tokio::spawn(check(Arc::clone(&self.socket), datagrams, keys)));
        answer
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What an offer under this ticket proves.
pub(crate) fn exchange(ticket: &Ticket, from: (PeerId, Instance)) -> Exchange {
    Exchange {
        connector: from.0,
        connector_instance: from.1,
        sharer: ticket.sharer,
        server: ticket.server.peer_id,
        share: ticket.share,
        ticket: ticket.id,
    }
}

/// The life of the paths to one peer, for as long as a test needs it.
async fn check(socket: Arc<PathSocket>, mut datagrams: mpsc::Receiver<Datagram>, keys: CheckKeys) {
    let mut agent = PathAgent::new(PathConfig::default(), Role::Sharer, keys, [2; 32], Instant::now());
    agent.add_link(LinkId::MAIN, PathKind::Direct, Instant::now());
    let remote = socket.open_remote().unwrap();
    let link = socket.link(LinkId::MAIN).unwrap();
    loop {
        while let Some(transmit) = agent.poll_transmit() {
            let _ = link.send_datagram(transmit.path.remote, &transmit.payload);
        }
        while let Some(event) = agent.poll_event() {
            match event {
                PathEvent::Accept(path) => {
                    socket.accept_from(remote, path);
                }
                PathEvent::Route { route, .. } => {
                    socket.set_route(remote, route);
                }
                PathEvent::FreshLinkWanted | PathEvent::ExchangeWanted | PathEvent::ReflexiveRuledOut => {}
            }
        }
        let timeout = async {
            match agent.poll_timeout() {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(Datagram { from, payload, link }) = datagrams.recv() => {
                let path = proto::path::PathId { link, remote: from };
                agent.handle_check(path, &payload, Instant::now());
            }
            () = timeout => agent.handle_timeout(Instant::now()),
        }
    }
}
