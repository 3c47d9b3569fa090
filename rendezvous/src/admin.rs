//! The operator's HTTP side: `/metrics`, `/healthz`, `/readyz`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use proto::matchmaker::MatchmakerStats;
use proto::public_udp::PublicUdpStats;
use relay::gateway::{Gateway, GatewayStats};
use relay::net::BoxFuture;
use relay::program::COMMIT;
use tokio::sync::watch;

use crate::http::{Page, Pages, page, text};
use crate::sessions::Sessions;
use crate::socket::Desk;
use crate::stats::{Counters, Stats};

/// What the operator may ask.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) draining: watch::Receiver<bool>,
}

impl Pages for Admin {
    fn answer<'a>(&'a self, request: &'a Request<Incoming>, _from: SocketAddr) -> BoxFuture<'a, Page> {
        let page = match request.uri().path() {
            "/metrics" => {
                let stats =
                    self.counters.stats(self.sessions.stats(), self.desk.stats(), self.gateway.stats());
                page(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics(&stats))
            }
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if *self.draining.borrow() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            "/readyz" => text(StatusCode::OK, "ready\n"),
            _ => text(StatusCode::NOT_FOUND, "Here are /metrics, /healthz and /readyz.\n"),
        };
        Box::pin(std::future::ready(page))
    }
}

/// One metric: its name, what it counts, and its values by label.
struct Metric<'a> {
    name: &'a str,
    help: &'a str,
    label: &'a str,
    values: &'a [(&'a str, u64)],
}

impl Metric<'_> {
    /// Prometheus's text form. What only grows is named so.
    fn write(&self, out: &mut String) {
        let Self { name, help, label, values } = self;
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        // Writing to a string has no way to fail.
        let _ = writeln!(out, "# HELP culvert_{name} {help}\n# TYPE culvert_{name} {kind}");
        for (value_of, value) in *values {
            let _ = if label.is_empty() {
                writeln!(out, "culvert_{name} {value}")
            } else {
                writeln!(out, "culvert_{name}{{{label}=\"{value_of}\"}} {value}")
            };
        }
    }
}

fn metrics(stats: &Stats) -> String {
    let mut out = String::with_capacity(4096);
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(
        out,
        "# HELP culvert_build_info Which build this is.\n# TYPE culvert_build_info gauge\n\
         culvert_build_info{{program=\"rendezvous\",version=\"{version}\",commit=\"{COMMIT}\"}} 1"
    );
    let mut metric = |name: &str, help: &str, label: &str, values: &[(&str, u64)]| {
        Metric { name, help, label, values }.write(&mut out);
    };
    let MatchmakerStats { sessions, shares, sessions_closed, .. } = stats.matchmaker;
    metric("sessions", "Sessions now.", "", &[("", sessions as u64)]);
    metric("shares", "Shares registered now.", "", &[("", shares as u64)]);
    metric(
        "sessions_closed_total",
        "Sessions closed by the server, by reason.",
        "reason",
        &[("rules", sessions_closed), ("overflow", stats.sessions_overflowed)],
    );
    write_signals(&stats.matchmaker, &mut metric);
    write_network(stats, &mut metric);
    write_gateway(&stats.gateway, &mut metric);
    write_tunnels(&stats.gateway, &mut metric);
    out
}

type Write<'a> = dyn FnMut(&str, &str, &str, &[(&str, u64)]) + 'a;

fn write_signals(stats: &MatchmakerStats, metric: &mut Write<'_>) {
    let MatchmakerStats { offers_forwarded, offers_offline, offers_limited, .. } = *stats;
    metric(
        "offers_total",
        "Offers, by what became of them.",
        "result",
        &[("forwarded", offers_forwarded), ("offline", offers_offline), ("limited", offers_limited)],
    );
    metric(
        "signals_total",
        "Answers and trickles, by what became of them.",
        "result",
        &[("forwarded", stats.signals_forwarded), ("stray", stats.signals_stray)],
    );
}

fn write_network(stats: &Stats, metric: &mut Write<'_>) {
    metric(
        "handshakes_total",
        "QUIC handshakes, by what became of them.",
        "result",
        &[
            ("begun", stats.handshakes_begun),
            ("retried", stats.handshakes_retried),
            ("refused", stats.handshakes_refused),
            ("failed", stats.handshakes_failed),
        ],
    );
    metric(
        "frames_malformed_total",
        "Frames of sessions that were no message, by kind.",
        "kind",
        &[
            ("too_long", stats.frames_too_long),
            ("undecodable", stats.frames_undecodable),
            ("out_of_bounds", stats.frames_out_of_bounds),
        ],
    );
    let PublicUdpStats { stun_answered, echo_answered, limited, malformed } = stats.udp;
    metric(
        "udp_requests_total",
        "Datagrams that are not QUIC, by what became of them.",
        "result",
        &[("stun", stun_answered), ("echo", echo_answered), ("limited", limited), ("malformed", malformed)],
    );
    metric(
        "udp_answers_dropped_total",
        "Answers to such datagrams that the socket had no room for.",
        "",
        &[("", stats.udp_dropped)],
    );
    metric(
        "http_requests_total",
        "HTTP requests, by what became of them.",
        "result",
        &[("answered", stats.http_answered), ("rejected", stats.http_rejected)],
    );
    metric(
        "http_connections_failed_total",
        "TCP connections that came to nothing, by reason.",
        "reason",
        &[("broken", stats.http_broken), ("refused", stats.http_refused)],
    );
}

fn write_gateway(stats: &GatewayStats, metric: &mut Write<'_>) {
    metric("gateway_connections", "Connections of visitors now.", "", &[("", stats.visitors as u64)]);
    let [interim, success, redirect, refused, failed] = stats.by_class;
    metric(
        "gateway_requests_total",
        "Requests answered by the gateway, by the class of their final status.",
        "status",
        &[("1xx", interim), ("2xx", success), ("3xx", redirect), ("4xx", refused), ("5xx", failed)],
    );
    metric(
        "gateway_upgrades_total",
        "Exchanges that became a WebSocket or the like.",
        "",
        &[("", stats.upgraded)],
    );
    metric(
        "gateway_refused_total",
        "What visitors did that was refused or given up, by reason.",
        "reason",
        &[
            ("bad_head", stats.bad_heads),
            ("slow_head", stats.slow_heads),
            ("slow_body", stats.slow_bodies),
            ("slow_reader", stats.slow_readers),
            ("full", stats.crowded),
            ("full_each", stats.crowded_each),
        ],
    );
    metric("gateway_cut_total", "Answers that broke off in the middle.", "", &[("", stats.cut)]);
    metric(
        "gateway_bytes_total",
        "Bytes of content, by direction as the visitor sees it.",
        "direction",
        &[("up", stats.bytes_in), ("down", stats.bytes_out)],
    );
}

fn write_tunnels(stats: &GatewayStats, metric: &mut Write<'_>) {
    metric("tunnels", "Tunnels of localtunnel clients now.", "", &[("", stats.tunnels as u64)]);
    metric("tunnel_connections", "Connections that they hold now.", "", &[("", stats.connections as u64)]);
    metric("tunnel_waiting", "Visitors that wait for one of them now.", "", &[("", stats.waiting as u64)]);
    metric(
        "tunnel_registrations_total",
        "Registrations of tunnels, by what became of them.",
        "result",
        &[("registered", stats.registered), ("refused", stats.registrations_refused)],
    );
    metric(
        "tunnel_connections_refused_total",
        "Connections to tunnels' ports that were refused, by reason.",
        "reason",
        &[("stranger", stats.strangers), ("surplus", stats.surplus)],
    );
}

#[cfg(test)]
mod tests;
