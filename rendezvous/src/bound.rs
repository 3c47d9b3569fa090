//! Everything that a server listens on.

use std::net::SocketAddr;

use relay::https::HttpsDoor;
use relay::listen::{Bind, Door, Socket, StartError, bind_udp, listen_tcp};
use relay::net::Net;

use crate::config::{Alternate, ServerConfig};

/// Everything that a server listens on.
pub(crate) struct Bound {
    pub(crate) udp: Socket,
    pub(crate) alternates: Vec<Socket>,
    pub(crate) http: Door,
    pub(crate) https: Option<HttpsDoor>,
    pub(crate) admin: Option<Door>,
}

impl Bound {
    pub(crate) fn new(config: &ServerConfig, net: &dyn Net) -> Result<Self, StartError> {
        let udp = bind_udp(net, config.udp, "--udp")?;
        let alternates = match &config.udp_alternate {
            Alternate::NextPort => next_port(net, config.udp, udp.1).into_iter().collect(),
            Alternate::At(all) => {
                all.iter().map(|bind| bind_udp(net, *bind, "--udp-alternate")).collect::<Result<_, _>>()?
            }
        };
        let http = listen_tcp(net, config.http, "HTTP", "--http")?;
        let https = config.https.clone().map(|https| https.listen(net)).transpose()?;
        let admin =
            config.admin.map(|admin| listen_tcp(net, admin, "the admin address", "--admin")).transpose()?;
        Ok(Self { udp, alternates, http, https, admin })
    }
}

/// The alternate that nobody asked for: without it a server works as well, but for what it tells about NATs.
fn next_port(net: &dyn Net, asked: Bind, main: SocketAddr) -> Option<Socket> {
    let port = if asked.addr.port() == 0 { 0 } else { main.port().checked_add(1)? };
    let bind = Bind { addr: SocketAddr::new(asked.addr.ip(), port), or_any_port: asked.or_any_port };
    match bind_udp(net, bind, "--udp-alternate") {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::info!("no second UDP port: {error}");
            None
        }
    }
}
