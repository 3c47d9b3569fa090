//! A wire in between that a test holds: it passes datagrams on, remembers them, and plays them again.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Between one peer and its server.
#[derive(Debug)]
pub(crate) struct Wire {
    addr: SocketAddr,
    inner: Arc<Inner>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct Inner {
    /// Where the peer sends to, and where we send from.
    front: UdpSocket,
    back: UdpSocket,
    server: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    peer: Option<SocketAddr>,
    is_cut: bool,
    to_peer: Vec<Vec<u8>>,
    to_server: Vec<Vec<u8>>,
}

impl Wire {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let any = (Ipv4Addr::LOCALHOST, 0);
        let (front, back) = (UdpSocket::bind(any).await.unwrap(), UdpSocket::bind(any).await.unwrap());
        let addr = front.local_addr().unwrap();
        let inner = Arc::new(Inner { front, back, server, state: Mutex::default() });
        let up = tokio::spawn(Arc::clone(&inner).pass_up());
        let down = tokio::spawn(Arc::clone(&inner).pass_down());
        Self { addr, inner, tasks: [up, down] }
    }

    /// Where the peer takes the server to be.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The peer's own address.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.inner.state.lock().unwrap().peer.unwrap()
    }

    /// What has passed so far, both ways.
    pub(crate) fn seen(&self) -> Vec<Vec<u8>> {
        let state = self.inner.state.lock().unwrap();
        state.to_peer.iter().chain(&state.to_server).cloned().collect()
    }

    /// Passes nothing on for as long as it is cut.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.inner.state.lock().unwrap().is_cut = is_cut;
    }

    /// Sends to the peer as its server would.
    pub(crate) async fn inject(&self, datagram: &[u8]) {
        let _full = self.inner.front.send_to(datagram, self.peer()).await;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Inner {
    async fn pass_up(self: Arc<Self>) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok((length, from)) = self.front.recv_from(&mut buffer).await else { continue };
            {
                let mut state = self.state.lock().unwrap();
                state.peer = Some(from);
                if state.is_cut {
                    continue;
                }
                state.to_server.push(buffer[..length].to_vec());
            }
            let _full = self.back.send_to(&buffer[..length], self.server).await;
        }
    }

    async fn pass_down(self: Arc<Self>) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok((length, _)) = self.back.recv_from(&mut buffer).await else { continue };
            let peer = {
                let mut state = self.state.lock().unwrap();
                state.to_peer.push(buffer[..length].to_vec());
                state.peer.filter(|_| !state.is_cut)
            };
            if let Some(peer) = peer {
                let _full = self.front.send_to(&buffer[..length], peer).await;
            }
        }
    }
}
