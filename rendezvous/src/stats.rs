//! What is counted, and what it has come to.

use proto::matchmaker::MatchmakerStats;
use proto::public_udp::PublicUdpStats;
use proto::relay::RouterStats;
use proto::server_health::Way;
use proto::wire::Malformed;
use relay::gateway::GatewayStats;
use relay::http::HttpCounters;
use relay::metrics::Count;
use std::sync::Arc;

/// What the server's shell counts; the machines count for themselves.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Answers to strangers that the socket had no room for.
    pub(crate) udp_dropped: Count,
    /// QUIC handshakes that were let begin.
    pub(crate) handshakes_begun: Count,
    /// QUIC clients that were told to prove their address first.
    pub(crate) handshakes_retried: Count,
    /// QUIC clients that were refused.
    pub(crate) handshakes_refused: Count,
    /// QUIC handshakes that came to nothing.
    pub(crate) handshakes_failed: Count,
    /// Frames over the limit.
    pub(crate) frames_too_long: Count,
    /// Frames that hold no message.
    pub(crate) frames_undecodable: Count,
    /// Messages with a field over its limit.
    pub(crate) frames_out_of_bounds: Count,
    /// Sessions closed because they read too slowly.
    pub(crate) sessions_overflowed: Count,
    /// Sessions that came, by their way.
    pub(crate) sessions_opened: ByWay<Count>,
    /// Of HTTP, on both sides.
    pub(crate) http: Arc<HttpCounters>,
}

/// Something of sessions, by the way that they come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByWay<T = u64> {
    /// By UDP over IPv4.
    pub udp_v4: T,
    /// By UDP over IPv6.
    pub udp_v6: T,
    /// Through the server's relay.
    pub relay: T,
}

impl<T> ByWay<T> {
    /// That of one way.
    pub(crate) fn at(&self, way: Way) -> &T {
        match way {
            Way::Udp(from) if from.ip().to_canonical().is_ipv4() => &self.udp_v4,
            Way::Udp(_) => &self.udp_v6,
            Way::Relay => &self.relay,
        }
    }

    /// The same, to be changed.
    pub(crate) fn of(&mut self, way: Way) -> &mut T {
        match way {
            Way::Udp(from) if from.ip().to_canonical().is_ipv4() => &mut self.udp_v4,
            Way::Udp(_) => &mut self.udp_v6,
            Way::Relay => &mut self.relay,
        }
    }
}

impl ByWay<Count> {
    fn get(&self) -> ByWay {
        ByWay { udp_v4: self.udp_v4.get(), udp_v6: self.udp_v6.get(), relay: self.relay.get() }
    }
}

impl Counters {
    /// One more frame that was no message.
    pub(crate) fn malformed(&self, why: Malformed) {
        match why {
            Malformed::TooLong(_) => self.frames_too_long.add(),
            Malformed::OutOfBounds(_) => self.frames_out_of_bounds.add(),
            // Also whatever is told apart some day.
            Malformed::Undecodable | _ => self.frames_undecodable.add(),
        }
    }

    pub(crate) fn stats(
        &self,
        (matchmaker, sessions_by_way): (MatchmakerStats, ByWay),
        udp: PublicUdpStats,
        gateway: GatewayStats,
        relay: Option<RouterStats>,
    ) -> Stats {
        let http = self.http.stats();
        Stats {
            matchmaker,
            sessions_by_way,
            sessions_opened: self.sessions_opened.get(),
            udp,
            gateway,
            relay,
            udp_dropped: self.udp_dropped.get(),
            handshakes_begun: self.handshakes_begun.get(),
            handshakes_retried: self.handshakes_retried.get(),
            handshakes_refused: self.handshakes_refused.get(),
            handshakes_failed: self.handshakes_failed.get(),
            frames_too_long: self.frames_too_long.get(),
            frames_undecodable: self.frames_undecodable.get(),
            frames_out_of_bounds: self.frames_out_of_bounds.get(),
            sessions_overflowed: self.sessions_overflowed.get(),
            http_answered: http.answered,
            http_rejected: http.rejected,
            http_broken: http.broken,
            http_refused: http.refused,
        }
    }
}

/// What a server has counted since its start, and what is there now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Of the sessions.
    pub matchmaker: MatchmakerStats,
    /// Sessions now.
    pub sessions_by_way: ByWay,
    /// Sessions since the start.
    pub sessions_opened: ByWay,
    /// Of what anybody may ask over UDP.
    pub udp: PublicUdpStats,
    /// Of the gateway.
    pub gateway: GatewayStats,
    /// Of the embedded relay, where there is one.
    pub relay: Option<RouterStats>,
    /// Answers to strangers that the socket had no room for.
    pub udp_dropped: u64,
    /// QUIC handshakes that were let begin.
    pub handshakes_begun: u64,
    /// QUIC clients that were told to prove their address first.
    pub handshakes_retried: u64,
    /// QUIC clients that were refused.
    pub handshakes_refused: u64,
    /// QUIC handshakes that came to nothing.
    pub handshakes_failed: u64,
    /// Frames over the limit.
    pub frames_too_long: u64,
    /// Frames that hold no message.
    pub frames_undecodable: u64,
    /// Messages with a field over its limit.
    pub frames_out_of_bounds: u64,
    /// Sessions closed because they read too slowly.
    pub sessions_overflowed: u64,
    /// HTTP requests answered with what was asked for.
    pub http_answered: u64,
    /// HTTP requests answered with an error.
    pub http_rejected: u64,
    /// TCP connections that did not speak HTTP, or stopped.
    pub http_broken: u64,
    /// TCP connections over the limit.
    pub http_refused: u64,
}
