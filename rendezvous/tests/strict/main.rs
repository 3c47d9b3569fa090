//! The gateway beside the real nginx: whatever nginx refuses, the gateway refuses too, and no shape of bytes
//! reaches a local server that two programs could read differently.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

mod corpus;
#[path = "../../../tests/support/nginx.rs"]
mod nginx;
mod origin;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use relay::gateway::GatewayLimits;
use rendezvous::{Limits, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use corpus::{Case, Expected};
use nginx::Nginx;
use origin::Origin;
use support::{loopback, start, until};

/// How long an answer may take: both answer at once or not at all.
const ANSWER: Duration = Duration::from_millis(1500);

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The local server's answer came back.
    Passed,
    Refused(u16),
    /// The connection was closed without a word, or nothing was said.
    Nothing,
}

async fn send(to: SocketAddr, bytes: &[u8]) -> Outcome {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // One that has heard enough may close before it has heard all.
    let _closed = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"\r\n") {
            match stream.read_u8().await {
                Ok(byte) => answer.push(byte),
                Err(_) => break,
            }
        }
    };
    let _late = tokio::time::timeout(ANSWER, read).await;
    let line = String::from_utf8_lossy(&answer);
    match line.split(' ').nth(1).and_then(|status| status.parse().ok()) {
        Some(200) => Outcome::Passed,
        Some(101) => Outcome::Passed,
        Some(status) => Outcome::Refused(status),
        None => Outcome::Nothing,
    }
}

/// A gateway in front of an origin, with one localtunnel client between.
async fn gateway(origin: &Origin) -> (rendezvous::Server, JoinSet<()>) {
    let gateway = GatewayLimits { head: ANSWER / 3, body: ANSWER / 3, ..GatewayLimits::default() };
    let server = start(ServerConfig {
        limits: Limits { gateway, ..Limits::default() },
        domain: "example.test".to_owned(),
        ..loopback()
    });
    let told = support::get(server.http_addr(), "/forwstest").await;
    let told: serde_json::Value = serde_json::from_str(support::body(&told)).unwrap();
    let port = u16::try_from(told["port"].as_u64().unwrap()).unwrap();
    let (to, local) = (SocketAddr::new(server.http_addr().ip(), port), origin.addr);
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        tasks.spawn(async move {
            while let Ok(mut remote) = TcpStream::connect(to).await {
                let mut local = TcpStream::connect(local).await.unwrap();
                let _ended = tokio::io::copy_bidirectional(&mut remote, &mut local).await;
            }
        });
    }
    until("the tunnel is there", || server.stats().gateway.connections == 16).await;
    (server, tasks)
}

/// An nginx that is a plain reverse proxy.
fn reverse_proxy(listen: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "server {{\nlisten {listen};\nserver_name *.example.test;\nclient_max_body_size 0;\nlocation / {{\n\
         proxy_pass http://{upstream};\nproxy_http_version 1.1;\nproxy_set_header Host $http_host;\n\
         proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection upgrade;\n}}\n}}"
    )
}

/// Sends every case, some at a time.
async fn send_all(to: SocketAddr, cases: &[Case]) -> Vec<Outcome> {
    let room = Arc::new(Semaphore::new(12));
    let mut tasks = JoinSet::new();
    for (n, case) in cases.iter().enumerate() {
        let (room, bytes) = (Arc::clone(&room), case.bytes.clone());
        tasks.spawn(async move {
            let _place = room.acquire_owned().await.unwrap();
            (n, send(to, &bytes).await)
        });
    }
    let mut outcomes = tasks.join_all().await;
    outcomes.sort_by_key(|(n, _)| *n);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nginx_refuses_is_refused_and_nothing_ambiguous_reaches_a_local_server() {
    let cases = corpus::all();
    assert!(cases.len() >= 200, "{}", cases.len());
    let origin = Origin::start().await;
    let (server, _tunnel) = gateway(&origin).await;
    let ours = send_all(server.http_addr(), &cases).await;
    let mut wrong = Vec::new();
    for (case, outcome) in cases.iter().zip(&ours) {
        let fits = match case.expected {
            Expected::Passed => *outcome == Outcome::Passed,
            Expected::Refused => matches!(outcome, Outcome::Refused(400..=499 | 505)),
            Expected::Either => true,
        };
        if !fits {
            wrong.push(format!("{}: {outcome:?}, and is to be {:?}", case.name, case.expected));
        }
    }
    for (name, asked) in origin.asked() {
        if asked > 1 {
            wrong.push(format!("{name}: the local server was asked {asked} times"));
        }
    }
    if let Some(nginx) = Nginx::start(|_, at| reverse_proxy(at, origin.addr)) {
        let theirs = send_all(nginx.at, &cases).await;
        for ((case, ours), theirs) in cases.iter().zip(&ours).zip(&theirs) {
            if *ours == Outcome::Passed && *theirs != Outcome::Passed {
                wrong.push(format!("{}: passed, and nginx has {theirs:?}", case.name));
            }
        }
        let stricter =
            ours.iter().zip(&theirs).filter(|(a, b)| **a != Outcome::Passed && **b == Outcome::Passed);
        eprintln!("{} cases; nginx passes {} that the gateway does not", cases.len(), stricter.count());
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
