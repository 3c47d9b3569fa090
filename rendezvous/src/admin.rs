//! The operator's HTTP side: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use proto::matchmaker::MatchmakerStats;
use proto::public_udp::PublicUdpStats;
use relay::gateway::{Gateway, GatewayStats};
use relay::http::{Asker, HttpStats, Page, Pages, page, text};
use relay::metrics::Metrics;
use relay::net::BoxFuture;
use relay::server::RelayServer;
use tokio::sync::watch;

use crate::checks::Checks;
use crate::sessions::Sessions;
use crate::socket::Desk;
use crate::stats::{ByWay, Counters, Stats};

/// What the operator may ask.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) relay: Option<Arc<RelayServer>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) checks: Checks,
    pub(crate) draining: watch::Receiver<bool>,
}

impl Pages for Admin {
    fn answer<'a>(&'a self, request: &'a Request<Incoming>, _asker: Asker) -> BoxFuture<'a, Page> {
        let page = match request.uri().path() {
            "/metrics" => {
                let stats = self.counters.stats(
                    self.sessions.stats(),
                    self.desk.stats(),
                    self.gateway.stats(),
                    self.relay.as_ref().map(|relay| relay.stats()),
                );
                let mut out = metrics(&stats);
                self.checks.write(&mut out);
                page(StatusCode::OK, Metrics::CONTENT_TYPE, out.into_text())
            }
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if *self.draining.borrow() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            "/readyz" => text(StatusCode::OK, readiness(&self.checks.warnings())),
            _ => text(StatusCode::NOT_FOUND, "Here are /metrics, /healthz and /readyz.\n"),
        };
        Box::pin(std::future::ready(page))
    }
}

/// That it serves, and what is wrong all the same: whoever only asks whether it serves reads the status.
fn readiness(warnings: &[String]) -> String {
    let lines = warnings.iter().map(|warning| format!("warning: {warning}\n"));
    std::iter::once("ready\n".to_owned()).chain(lines).collect()
}

fn metrics(stats: &Stats) -> Metrics {
    let mut out = Metrics::new("rendezvous");
    let MatchmakerStats { sessions, shares, sessions_closed, .. } = stats.matchmaker;
    out.single("sessions", "Sessions now.", sessions as u64);
    out.single("shares", "Shares registered now.", shares as u64);
    out.labelled(
        "sessions_closed_total",
        "Sessions closed by the server, by reason.",
        "reason",
        &[("rules", sessions_closed), ("overflow", stats.sessions_overflowed)],
    );
    write_ways(stats, &mut out);
    write_signals(&stats.matchmaker, &mut out);
    write_network(stats, &mut out);
    let Stats { http_answered: answered, http_rejected: rejected, http_broken: broken, .. } = *stats;
    HttpStats { answered, rejected, broken, refused: stats.http_refused }.write(&mut out);
    write_gateway(&stats.gateway, &mut out);
    write_sharers(&stats.gateway, &mut out);
    write_tunnels(&stats.gateway, &mut out);
    if let Some(relay) = &stats.relay {
        relay::server::write_metrics(relay, &mut out);
    }
    out
}

fn write_ways(stats: &Stats, out: &mut Metrics) {
    let ways = |it: &ByWay| [("udp_ipv4", it.udp_v4), ("udp_ipv6", it.udp_v6), ("relay", it.relay)];
    let now = ways(&stats.sessions_by_way);
    out.labelled("sessions_by_way", "Sessions now, by the way that they came.", "way", &now);
    let opened = ways(&stats.sessions_opened);
    out.labelled("sessions_opened_total", "Sessions that came, by their way.", "way", &opened);
}

fn write_signals(stats: &MatchmakerStats, out: &mut Metrics) {
    let MatchmakerStats { offers_forwarded, offers_offline, offers_limited, .. } = *stats;
    out.labelled(
        "offers_total",
        "Offers, by what became of them.",
        "result",
        &[("forwarded", offers_forwarded), ("offline", offers_offline), ("limited", offers_limited)],
    );
    out.labelled(
        "signals_total",
        "Answers and trickles, by what became of them.",
        "result",
        &[("forwarded", stats.signals_forwarded), ("stray", stats.signals_stray)],
    );
}

fn write_network(stats: &Stats, out: &mut Metrics) {
    out.labelled(
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
    out.labelled(
        "frames_malformed_total",
        "Frames of sessions that were no message, by kind.",
        "kind",
        &[
            ("too_long", stats.frames_too_long),
            ("undecodable", stats.frames_undecodable),
            ("out_of_bounds", stats.frames_out_of_bounds),
        ],
    );
    let PublicUdpStats { stun_answered, stun_unchangeable, echo_answered, limited, malformed } = stats.udp;
    out.labelled(
        "udp_requests_total",
        "Datagrams that are not QUIC, by what became of them.",
        "result",
        &[
            ("stun", stun_answered),
            ("echo", echo_answered),
            ("unchangeable", stun_unchangeable),
            ("limited", limited),
            ("malformed", malformed),
        ],
    );
    out.single(
        "udp_answers_dropped_total",
        "Answers to such datagrams that the socket had no room for.",
        stats.udp_dropped,
    );
}

fn write_gateway(stats: &GatewayStats, out: &mut Metrics) {
    out.single("gateway_connections", "Connections of visitors now.", stats.visitors as u64);
    let [interim, success, redirect, refused, failed] = stats.by_class;
    out.labelled(
        "gateway_requests_total",
        "Requests answered by the gateway, by the class of their final status.",
        "status",
        &[("1xx", interim), ("2xx", success), ("3xx", redirect), ("4xx", refused), ("5xx", failed)],
    );
    out.single("gateway_upgrades_total", "Exchanges that became a WebSocket or the like.", stats.upgraded);
    out.labelled(
        "gateway_refused_total",
        "What visitors did that was refused or given up, by reason.",
        "reason",
        &[
            ("bad_handshake", stats.bad_handshakes),
            ("resets", stats.resets),
            ("bad_head", stats.bad_heads),
            ("slow_head", stats.slow_heads),
            ("slow_body", stats.slow_bodies),
            ("slow_reader", stats.slow_readers),
            ("unread", stats.unread_cut),
            ("full", stats.crowded),
            ("full_each", stats.crowded_each),
            ("forbidden", stats.forbidden),
            ("unauthorized", stats.unauthorized),
            ("guesses", stats.guesses_limited),
        ],
    );
    out.single(
        "gateway_unread_bytes",
        "Bytes held at the most for those who do not read now.",
        stats.unread_bytes,
    );
    out.single("gateway_unlogged_total", "Requests that the access log has lost.", stats.unlogged);
    out.single("gateway_cut_total", "Answers that broke off in the middle.", stats.cut);
    out.labelled(
        "gateway_bytes_total",
        "Bytes of content, by direction as the visitor sees it.",
        "direction",
        &[("up", stats.bytes_in), ("down", stats.bytes_out)],
    );
}

fn write_sharers(stats: &GatewayStats, out: &mut Metrics) {
    out.single("gateway_sharers", "Connections of sharers for visitors now.", stats.sharers as u64);
    out.single("gateway_names_served", "Names that sharers serve now.", stats.served as u64);
    out.single("gateway_names_claimed", "Names that belong to a key.", stats.claimed as u64);
    out.labelled(
        "gateway_publications_total",
        "Shares shown to the world, by what became of them.",
        "result",
        &[("published", stats.published), ("refused", stats.publications_refused)],
    );
}

fn write_tunnels(stats: &GatewayStats, out: &mut Metrics) {
    out.single("tunnels", "Tunnels of localtunnel clients now.", stats.tunnels as u64);
    out.single("tunnel_connections", "Connections that they hold now.", stats.connections as u64);
    out.single("tunnel_waiting", "Visitors that wait for one of them now.", stats.waiting as u64);
    out.labelled(
        "tunnel_registrations_total",
        "Registrations of tunnels, by what became of them.",
        "result",
        &[("registered", stats.registered), ("refused", stats.registrations_refused)],
    );
    out.labelled(
        "tunnel_connections_refused_total",
        "Connections to tunnels' ports that were refused, by reason.",
        "reason",
        &[("stranger", stats.strangers), ("surplus", stats.surplus)],
    );
}

#[cfg(test)]
mod tests;
