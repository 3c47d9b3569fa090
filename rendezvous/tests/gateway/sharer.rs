//! A sharer that says no more than it must, over QUIC.

use proto::id::Instance;
use proto::wire::gateway::{ALPN, EXPORTER_LABEL, FromGateway, Publication, ToGateway};
use proto::wire::{Deframer, VERSION, frame, parse};
use rendezvous::Server;

use crate::support::{Client, PATIENCE, share};

pub(crate) fn hello() -> ToGateway {
    ToGateway::Hello { version: VERSION, instance: Instance([1; 8]), token: None }
}

/// Its connection.
pub(crate) struct Sharer {
    pub(crate) connection: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    deframer: Deframer,
    client: Client,
}

impl Sharer {
    pub(crate) async fn new(server: &Server) -> Self {
        let client = Client::new();
        let connection = client.dial(server.udp_addrs()[0], server.peer_id(), ALPN).await.unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        Self { connection, send, recv, deframer: Deframer::default(), client }
    }

    pub(crate) async fn say(&mut self, messages: &[ToGateway]) {
        let frames: Vec<_> = messages.iter().flat_map(frame).collect();
        self.send.write_all(&frames).await.unwrap();
    }

    /// Says hello and publishes, in one go: nothing comes in between.
    pub(crate) async fn publish(&mut self, server: &Server) -> FromGateway {
        let mut nonce = [0; 32];
        self.connection.export_keying_material(&mut nonce, EXPORTER_LABEL, b"").unwrap();
        let claim = Publication::new(&self.client.key, &server.peer_id(), &nonce, share(1), "nas");
        self.say(&[hello(), ToGateway::Publish(claim)]).await;
        loop {
            if let Some(body) = self.deframer.next_frame().unwrap() {
                return parse(&body).unwrap();
            }
            let chunk = tokio::time::timeout(PATIENCE, self.recv.read_chunk(4096, true)).await;
            self.deframer.push(&chunk.expect("no answer").unwrap().unwrap().bytes);
        }
    }

    pub(crate) async fn closed_with(&self) -> u64 {
        let closed = tokio::time::timeout(PATIENCE, self.connection.closed()).await.expect("it stays");
        let quinn::ConnectionError::ApplicationClosed(close) = &closed else {
            panic!("closed for another reason: {closed}");
        };
        close.error_code.into_inner()
    }
}
