//! A sharer and a connector that have found each other.

use std::net::SocketAddr;

use super::{Home, Program, Rendezvous};

/// Both programs, their homes and their server.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) server: Rendezvous,
    pub(crate) homes: (Home, Home),
    pub(crate) ticket: String,
    pub(crate) share: Program,
    pub(crate) connect: Program,
    /// The connector's listeners, in the order of the targets.
    pub(crate) at: Vec<SocketAddr>,
}

impl Pair {
    /// These targets shared, and one connector ready.
    pub(crate) async fn of(targets: &[&str]) -> Self {
        let (server, homes) = (Rendezvous::start(), (Home::new(), Home::new()));
        let url = server.url();
        let mut share = homes.0.spawn(&[&["share", "--json", "--server", &url], targets].concat());
        let ticket = share.ticket().await;
        let listen = ["--listen", "127.0.0.1:0"].repeat(targets.len());
        let mut connect = homes.1.spawn(&[&["connect", "--json", &ticket], &listen[..]].concat());
        let ready = connect.event("ready").await;
        let at = ready["listen"].as_array().unwrap();
        let at = at.iter().map(|addr| addr.as_str().unwrap().parse().unwrap()).collect();
        Self { server, homes, ticket, share, connect, at }
    }
}
