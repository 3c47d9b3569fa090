use proto::relay::RouterStats;

use super::*;

#[test]
fn every_count_has_a_metric_and_every_metric_its_own_line() {
    let stats = Stats {
        matchmaker: MatchmakerStats {
            sessions: 101,
            shares: 102,
            offers_forwarded: 103,
            offers_offline: 104,
            offers_limited: 105,
            signals_forwarded: 106,
            signals_stray: 107,
            sessions_closed: 108,
        },
        udp: PublicUdpStats {
            stun_answered: 109,
            stun_unchangeable: 149,
            echo_answered: 110,
            limited: 111,
            malformed: 112,
        },
        gateway: GatewayStats {
            visitors: 126,
            tunnels: 127,
            connections: 128,
            waiting: 129,
            by_class: [130, 131, 132, 133, 134],
            upgraded: 135,
            cut: 136,
            bad_heads: 137,
            slow_heads: 138,
            slow_bodies: 139,
            slow_readers: 140,
            crowded: 141,
            crowded_each: 142,
            registered: 143,
            registrations_refused: 144,
            strangers: 145,
            surplus: 146,
            bytes_in: 147,
            bytes_out: 148,
            sharers: 157,
            served: 150,
            claimed: 151,
            published: 152,
            publications_refused: 153,
            forbidden: 154,
            unauthorized: 155,
            guesses_limited: 156,
            bad_handshakes: 158,
            resets: 159,
            unlogged: 160,
            unread_bytes: 161,
            unread_cut: 162,
        },
        udp_dropped: 113,
        handshakes_begun: 114,
        handshakes_retried: 115,
        handshakes_refused: 116,
        handshakes_failed: 117,
        frames_too_long: 118,
        frames_undecodable: 119,
        frames_out_of_bounds: 120,
        sessions_overflowed: 121,
        http_answered: 122,
        http_rejected: 123,
        http_broken: 124,
        http_refused: 125,
        relay: None,
        sessions_by_way: ByWay { udp_v4: 163, udp_v6: 164, relay: 165 },
        sessions_opened: ByWay { udp_v4: 166, udp_v6: 167, relay: 168 },
    };
    let text = metrics(&stats).into_text();
    let value = |line: &str| line.rsplit(' ').next()?.parse::<u64>().ok();
    let mut values: Vec<u64> = text.lines().filter(|line| !line.starts_with('#')).filter_map(value).collect();
    values.sort_unstable();
    assert_eq!(values, [1].into_iter().chain(101..=168).collect::<Vec<_>>());
    assert!(text.contains("culvert_sessions_closed_total{reason=\"overflow\"} 121\n"), "{text}");
    assert!(text.contains("# TYPE culvert_sessions gauge\nculvert_sessions 101\n"), "{text}");
    assert!(text.ends_with('\n'));
}

#[test]
#[allow(clippy::field_reassign_with_default, reason = "the counts by reason are the router's own")]
fn an_embedded_relay_is_in_the_metrics_by_reason() {
    let mut relay = RouterStats::default();
    relay.forwarded_bytes = 77;
    let stats = Stats { relay: Some(relay), ..Stats::default() };
    let text = metrics(&stats).into_text();
    assert!(text.contains("culvert_relay_forwarded_bytes_total 77\n"), "{text}");
    for reason in ["offline", "not_let_in", "hold_full", "stranger", "data_full", "control_full"] {
        let line = format!("culvert_relay_frames_dropped_total{{reason=\"{reason}\"}} 0\n");
        assert!(text.contains(&line), "{text}");
    }
    assert!(text.contains("culvert_relay_connections_denied_total{reason=\"bad_login\"} 0\n"), "{text}");
    assert!(!metrics(&Stats::default()).into_text().contains("culvert_relay"));
}
