//! iroh over a relay of its own and nothing else, for `scripts/bench.sh relayed`: the relay, and a bridge from TCP to TCP
//! with one connection for all, as `peer share` and `peer connect` have; and a bare stream, without TCP at either end.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Instant;

use iroh::endpoint::{Connection, RecvStream, SendStream, presets};
use iroh::tls::CaTlsConfig;
use iroh::{Endpoint, EndpointAddr, RelayMode, RelayUrl};
use iroh_relay::server::testing::self_signed_tls_certs_and_config;
use iroh_relay::server::{CertConfig, RelayConfig, Server, ServerConfig, TlsConfig};
use tokio::io::{AsyncWriteExt as _, BufReader, copy_buf};
use tokio::net::{TcpListener, TcpStream};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Every stream is to be bridged to the service.
const BRIDGE: &[u8] = b"culvert-bench/bridge";
/// Every stream is to be swallowed, and answered with one byte at its end.
const SWALLOW: &[u8] = b"culvert-bench/swallow";

/// What one read takes at the most, as in Culvert's own bridge.
const BUFFER: usize = 64 * 1024;

const USAGE: &str = "\
usage: iroh-relayed relay HTTP [HTTPS]            the relay, at these addresses
       iroh-relayed share RELAY SERVICE           the sharer of a TCP service; prints its id
       iroh-relayed connect RELAY ID LISTEN       TCP connections to the service
       iroh-relayed bulk RELAY ID BYTES           so much over a bare stream       → Gbit/s";

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["relay", http] => relay(http.parse()?, None).await,
        ["relay", http, https] => relay(http.parse()?, Some(https.parse()?)).await,
        ["share", url, service] => share(url.parse()?, service.parse()?).await,
        ["connect", url, id, listen] => connect(url.parse()?, id, listen.parse()?).await,
        ["bulk", url, id, bytes] => {
            println!("{:.3}", bulk(url.parse()?, id, bytes.parse()?).await?);
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2)
        }
    }
}

/// Serves until it is killed; with a certificate of its own making at the HTTPS address.
async fn relay(http: SocketAddr, https: Option<SocketAddr>) -> Result<()> {
    let mut relay = RelayConfig::new(http);
    relay.tls = https.map(|addr| {
        let (_, server_config) = self_signed_tls_certs_and_config();
        TlsConfig::new(addr, CertConfig::Manual { server_config })
    });
    let mut config = ServerConfig::default();
    config.relay = Some(relay);
    let mut server = Server::spawn(config).await?;
    println!("listening");
    Ok(server.join().await??)
}

/// An endpoint that knows of this relay alone: no look-up of addresses, nobody's certificate checked. It has sockets of IP
/// all the same, for iroh makes no batches of packets for a relay where it has none; the bench lets nothing pass between
/// those.
async fn endpoint(relay: &RelayUrl, alpns: &[&[u8]]) -> Result<Endpoint> {
    let endpoint = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::custom([relay.clone()]))
        .ca_tls_config(CaTlsConfig::insecure_skip_verify())
        .alpns(alpns.iter().map(|alpn| alpn.to_vec()).collect())
        .bind()
        .await?;
    endpoint.online().await;
    Ok(endpoint)
}

async fn share(relay: RelayUrl, service: SocketAddr) -> Result<()> {
    let endpoint = endpoint(&relay, &[BRIDGE, SWALLOW]).await?;
    println!("id {}", endpoint.id());
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await?;
            let is_bridge = connection.alpn() == BRIDGE;
            loop {
                let (send, recv) = connection.accept_bi().await?;
                if is_bridge {
                    tokio::spawn(async move { bridge(TcpStream::connect(service).await?, send, recv).await });
                } else {
                    tokio::spawn(swallow(send, recv));
                }
            }
            #[allow(unreachable_code, reason = "names the type")]
            Result::Ok(())
        });
    }
    Ok(())
}

async fn dial(relay: RelayUrl, id: &str, alpn: &[u8]) -> Result<(Endpoint, Connection)> {
    let endpoint = endpoint(&relay, &[]).await?;
    let addr = EndpointAddr::new(id.parse()?).with_relay_url(relay);
    let connection = endpoint.connect(addr, alpn).await?;
    Ok((endpoint, connection))
}

async fn connect(relay: RelayUrl, id: &str, listen: SocketAddr) -> Result<()> {
    let (_endpoint, connection) = dial(relay, id, BRIDGE).await?;
    let listener = TcpListener::bind(listen).await?;
    println!("listening");
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = connection.clone();
        tokio::spawn(async move {
            let (send, recv) = connection.open_bi().await?;
            bridge(stream, send, recv).await
        });
    }
}

/// Moves bytes until both directions are at their end, or one breaks.
async fn bridge(stream: TcpStream, mut send: SendStream, recv: RecvStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let (mut reader, mut recv) =
        (BufReader::with_capacity(BUFFER, reader), BufReader::with_capacity(BUFFER, recv));
    let outwards = async {
        copy_buf(&mut reader, &mut send).await?;
        send.shutdown().await
    };
    let inwards = async {
        copy_buf(&mut recv, &mut writer).await?;
        writer.shutdown().await
    };
    tokio::try_join!(outwards, inwards)?;
    Ok(())
}

async fn swallow(mut send: SendStream, mut recv: RecvStream) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    while recv.read(&mut buffer).await?.is_some() {}
    send.write_all(&[0]).await?;
    Ok(send.finish()?)
}

/// Sends `bytes` and waits until they were all read; gigabits per second.
async fn bulk(relay: RelayUrl, id: &str, bytes: u64) -> Result<f64> {
    let (endpoint, connection) = dial(relay, id, SWALLOW).await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    let (chunk, began, mut left) = (vec![0x5a; BUFFER], Instant::now(), bytes);
    while left > 0 {
        let count = left.min(BUFFER as u64);
        send.write_all(&chunk[..usize::try_from(count)?]).await?;
        left -= count;
    }
    send.finish()?;
    recv.read_exact(&mut [0]).await?;
    let rate = bytes as f64 * 8.0 / 1e9 / began.elapsed().as_secs_f64();
    if connection.paths().iter().any(|path| path.is_selected() && !path.is_relay()) {
        return Err("not over the relay".into());
    }
    connection.close(0u32.into(), b"done");
    endpoint.close().await;
    Ok(rate)
}
