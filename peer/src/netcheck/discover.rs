//! The sockets under behaviour discovery.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use proto::nat::{Discovery, DiscoveryConfig, Findings, SOCKETS};
use quinn::udp::RecvMeta;
use relay::net::{Link, Net};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::endpoint::EndpointConfig;

/// The largest datagram that is looked at: no STUN message is longer.
const DATAGRAM: usize = 1500;

/// Datagrams waiting to be looked at, of all sockets. What comes in beyond them is read later.
const QUEUE: usize = 64;

type Received = (usize, SocketAddr, Vec<u8>);

/// Finds out what is between this machine and the server. Where no packet can leave, nothing is found.
pub(super) async fn discover(net: &dyn Net, server: SocketAddr, alternates: &[SocketAddr]) -> Findings {
    match open(net, server) {
        Ok((links, local)) => {
            let config = DiscoveryConfig { server, alternates: alternates.to_vec(), local };
            drive(config, &links).await
        }
        Err(error) => {
            tracing::debug!(%server, %error, "no packet can leave for the server");
            Findings::default()
        }
    }
}

/// Links, and their addresses as the server's network knows them.
type Opened = (Vec<Arc<dyn Link>>, Vec<SocketAddr>);

fn open(net: &dyn Net, server: SocketAddr) -> io::Result<Opened> {
    let source = net.source_for(server)?;
    let any = match source {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let (mut links, mut local) = (Vec::new(), Vec::new());
    for _ in 0..SOCKETS {
        let link = net.bind_udp(SocketAddr::new(any, 0))?;
        local.push(SocketAddr::new(source, link.local_addr()?.port()));
        links.push(link);
    }
    Ok((links, local))
}

async fn drive(config: DiscoveryConfig, links: &[Arc<dyn Link>]) -> Findings {
    let (sender, mut received) = mpsc::channel::<Received>(QUEUE);
    let mut receivers = JoinSet::new();
    for (number, link) in links.iter().enumerate() {
        receivers.spawn(receive(number, Arc::clone(link), sender.clone()));
    }
    let now = || Instant::now().into_std();
    let mut discovery = Discovery::new(config, EndpointConfig::random_seed(), now());
    loop {
        while let Some(probe) = discovery.poll_transmit() {
            if let Some(Err(error)) =
                links.get(probe.socket).map(|link| link.send_datagram(probe.to, &probe.payload))
            {
                tracing::debug!(to = %probe.to, %error, "a probe could not be sent");
            }
        }
        if let Some(findings) = discovery.findings() {
            return findings;
        }
        // Without findings there is a question left, and each has its time.
        let until = discovery.poll_timeout().unwrap_or_else(now);
        tokio::select! {
            Some((socket, from, payload)) = received.recv() => {
                discovery.handle_datagram(socket, from, &payload, now());
            }
            () = sleep_until(until.into()) => discovery.handle_timeout(now()),
        }
    }
}

async fn receive(number: usize, link: Arc<dyn Link>, sender: mpsc::Sender<Received>) {
    let mut buffer = vec![0; DATAGRAM * link.max_receive_segments()];
    let mut metas = [RecvMeta::default()];
    loop {
        let received =
            poll_fn(|cx| link.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut metas)).await;
        // Only the end of the runtime is an error here.
        let Ok(_) = received else { return };
        let [meta] = metas;
        for datagram in buffer[..meta.len.min(buffer.len())].chunks(meta.stride.max(1)) {
            if sender.send((number, meta.addr, datagram.to_vec())).await.is_err() {
                return;
            }
        }
    }
}
