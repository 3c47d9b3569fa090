//! The `rendezvous` program: a [`Server`] from start to stop, and what is said of it.

use std::net::SocketAddr;
use std::sync::Arc;

use relay::access_log::AccessLog;
use relay::gateway::Claims;
use relay::net::OsNet;
use relay::program::{Failure, Hangups, Reason, Report, Shutdown, descriptors};
use serde::Serialize;

use crate::cli::{Cli, Command, Serve};
use crate::{Server, ServerConfig, identity};

/// The file of the names that keys have claimed, in the directory of state.
const NAMES: &str = "names.redb";

/// Does what the command line says.
///
/// # Errors
/// What could not be done, for the user.
pub async fn run(cli: Cli, report: Report) -> Result<Reason, Failure> {
    let Command::Serve(serve) = cli.command;
    self::serve(serve, report).await
}

async fn serve(serve: Serve, report: Report) -> Result<Reason, Failure> {
    let signals = || Ok((Shutdown::install()?, Hangups::install()?));
    let (shutdown, hangups) = signals().map_err(|error: std::io::Error| {
        Failure::failed("no-signals", format_args!("cannot listen to signals: {error}"))
    })?;
    let data = serve.data()?;
    let state = tokio::task::spawn_blocking(move || {
        let key = identity::load_or_create(&data)?;
        Ok::<_, Failure>((key, Claims::open(&data.join(NAMES))?))
    });
    let (key, claims) = state
        .await
        .map_err(|error| Failure::failed("no-state", format_args!("cannot load the state: {error}")))??;
    let config = ServerConfig { claims, ..serve.config()? };
    let files = config.files();
    let certificate = config.https.as_ref().map(|https| Arc::clone(&https.certificate));
    let access_log = config.access_log.clone();
    let server = Server::start(config, &key, Arc::new(OsNet))?;
    if let Some(shortage) = descriptors::shortage(files) {
        report.warning(shortage);
    }
    announce(&server, &report);
    let renew = || {
        certificate.iter().for_each(|certificate| certificate.renew());
        access_log.iter().for_each(AccessLog::reopen);
    };
    let reason = hangups.until(shutdown.requested(), renew).await;
    report.line("Stopping: telling the sessions to come back.");
    shutdown.drained(server.shutdown()).await;
    Ok(reason)
}

#[derive(Serialize)]
struct Listening<'a> {
    udp: &'a [SocketAddr],
    udp_alternate: &'a [SocketAddr],
    http: [SocketAddr; 1],
    https: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    peer_id: String,
    domain: &'a str,
}

fn announce(server: &Server, report: &Report) {
    let http = server.http_addr();
    let peer_id = server.peer_id().to_string();
    let style = report.style();
    report.line(format_args!(
        "Rendezvous for {}, identity {}",
        style.bold(server.domain()),
        style.bold(&peer_id)
    ));
    let udp = [server.udp_addrs(), server.udp_alternate_addrs()].concat();
    let ports: Vec<_> = udp.iter().map(SocketAddr::to_string).collect();
    report.line(format_args!("  UDP    {}", ports.join(", ")));
    report.line(format_args!("  HTTP   http://{http}/"));
    if let Some(https) = server.https_addr() {
        report.line(format_args!("  HTTPS  https://{https}/"));
    }
    if let Some(admin) = server.admin_addr() {
        report.line(format_args!("  admin  http://{admin}/metrics"));
    }
    let url = match server.https_url() {
        Some(url) => url,
        None if http.ip().is_unspecified() => format!("http://HOST:{}#{peer_id}", http.port()),
        None => format!("http://{http}#{peer_id}"),
    };
    report.line(format_args!("Share with: {}", style.green(format_args!("peer share 8000 --server {url}"))));
    report.event(
        "listening",
        Listening {
            udp: server.udp_addrs(),
            udp_alternate: server.udp_alternate_addrs(),
            http: [http],
            https: server.https_addr().into_iter().collect(),
            admin: server.admin_addr(),
            peer_id,
            domain: server.domain(),
        },
    );
}
