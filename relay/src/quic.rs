//! quinn's settings, each with its reason: what differs from quinn's defaults, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use proto::key::SecretKey;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;

/// A connection between peers outlives its paths: the paths' own machine decides, long before this, what is
/// alive.
const PEER_IDLE: Duration = Duration::from_secs(180);

/// Checks of a path are no packets of QUIC: a connection that nobody uses would end after [`PEER_IDLE`]. Two
/// of these may be lost. They keep no NAT's binding and decide about no path.
const PEER_SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// A server forgets a session that has been silent for as long: four keepalives missed, at the usual 15 s.
const SESSION_IDLE: Duration = Duration::from_secs(60);

/// The first retransmission comes after three times this; quinn's 333 ms costs a second for each lost first
/// packet.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// What every path carries (RFC 9000 §14).
const MIN_MTU: u16 = 1200;

/// The payload of a UDP datagram over IPv6 in an Ethernet frame. Ten of them, one GSO batch, stay under
/// 64 kB.
const MAX_MTU: u16 = 1452;

/// After a path change the discovered size may be wrong: look again soon. quinn's 600 s is for paths that stay.
const MTU_DISCOVERY_INTERVAL: Duration = Duration::from_secs(10);

/// 1 Gbit/s for 32 ms; and a socket buffer of as much holds a burst of it.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;

/// What a peer may make us hold, over all streams of its connection. quinn's default has no bound. A stream
/// whose reader has stopped holds its whole window, so this many stopped readers leave the rest their credit:
/// sixteen, less one.
const RECEIVE_WINDOW: u32 = 16 * STREAM_WINDOW;

/// Twice a stream's window: one stream's acknowledgements are waited for while the next bytes leave.
const SEND_WINDOW: u64 = 2 * STREAM_WINDOW as u64;

/// Each forwarded TCP connection is a stream; a browser's visitor opens hundreds, a gateway ten thousand.
const STREAMS: u32 = 12_000;

/// Datagrams are a byte to wake the connection, and echoes.
const DATAGRAM_BUFFER: usize = 64 * 1024;

/// A session's messages are small, and a server has tens of thousands of sessions. A connection for visitors
/// is accepted as one, so this is a visitor's window too: 40 Mbit/s at 50 ms.
const SESSION_STREAM_WINDOW: u32 = 256 * 1024;
const SESSION_WINDOW: u32 = 256 * 1024;
const SESSION_STREAMS: u32 = 16;

/// Credit for every visitor's window, so that those who do not read starve nobody.
const VISITORS_WINDOW: u32 = STREAMS * SESSION_STREAM_WINDOW;

/// A sharer that is gone is missed for so long at the most; two signs of life may be lost.
const VISITORS_IDLE: Duration = Duration::from_secs(20);
const VISITORS_SIGN_OF_LIFE: Duration = Duration::from_secs(6);

/// Handshakes not yet accepted: beyond these a new one is refused, not queued.
const MAX_INCOMING: usize = 4096;
const INCOMING_BUFFER: u64 = 64 * 1024;
const INCOMING_BUFFERS: u64 = 16 * 1024 * 1024;

/// What an endpoint signs stateless resets and tokens with.
#[derive(Clone)]
pub struct ResetKey([u8; 64]);

impl ResetKey {
    /// The key of the endpoint `salt` of the identity `key` (HKDF with SHA-256, RFC 5869).
    ///
    /// An endpoint that comes back with the same key resets the connections that it forgot at once, where the
    /// other side would wait for its idle timeout. Two endpoints that are up together must have different
    /// salts: one would reset the connections of the other for anybody who saw their packets
    /// (RFC 9000 §21.11).
    pub fn derive(key: &SecretKey, salt: &[u8]) -> Self {
        const LABEL: &[u8] = b"culvert quic reset key 1";

        struct Length;
        impl ring::hkdf::KeyType for Length {
            fn len(&self) -> usize {
                64
            }
        }

        let mut bytes = [0; 64];
        ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, salt)
            .extract(key.pkcs8())
            .expand(&[LABEL], Length)
            .and_then(|okm| okm.fill(&mut bytes))
            .expect("64 bytes are fewer than HKDF's 255 blocks");
        Self(bytes)
    }

    /// The key by which an endpoint knows its own connection ids again.
    fn connection_ids(&self) -> u64 {
        const LABEL: &[u8] = b"culvert quic connection id key 1";
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.0), LABEL);
        let (head, _) = tag.as_ref().split_first_chunk().expect("a tag of SHA-256 has 32 bytes");
        u64::from_le_bytes(*head)
    }
}

impl std::fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResetKey")
    }
}

/// What every endpoint of Culvert has in common, client or server. With a `seed` the endpoint's own choices
/// are the same in each run.
pub fn endpoint_config(reset_key: &ResetKey, seed: Option<[u8; 32]>) -> EndpointConfig {
    let connection_ids = reset_key.connection_ids();
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &reset_key.0);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    // quinn resets only what has an id of its own making, and draws that key anew at each start.
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_ids)));
    // Without the fixed bit a QUIC packet looks like anything: STUN shares the port (RFC 9443).
    config.grease_quic_bit(false);
    config.rng_seed(seed);
    config
}

/// How connections between peers behave, whatever path carries them. Their congestion control is the caller's.
pub fn transport() -> TransportConfig {
    let mut config = common(PEER_IDLE);
    config
        .keep_alive_interval(Some(PEER_SIGN_OF_LIFE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(SESSION_STREAMS))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER);
    config
}

/// How sessions with a server behave.
pub fn session_transport() -> TransportConfig {
    let mut config = common(SESSION_IDLE);
    config
        .stream_receive_window(VarInt::from_u32(SESSION_STREAM_WINDOW))
        .receive_window(VarInt::from_u32(SESSION_WINDOW))
        .send_window(u64::from(SESSION_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(SESSION_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(SESSION_STREAMS))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER);
    config
}

/// How a sharer's connection for visitors behaves, at the sharer. Its congestion control is the caller's.
pub fn visitors_transport() -> TransportConfig {
    let mut config = common(VISITORS_IDLE);
    config
        .keep_alive_interval(Some(VISITORS_SIGN_OF_LIFE))
        .stream_receive_window(VarInt::from_u32(SESSION_STREAM_WINDOW))
        .receive_window(VarInt::from_u32(VISITORS_WINDOW))
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    config
}

/// Gives a connection that a server has accepted what visitors need, where it is one for them.
pub fn widen_for_visitors(connection: &quinn::Connection) {
    connection.set_receive_window(VarInt::from_u32(VISITORS_WINDOW));
    connection.set_send_window(SEND_WINDOW);
}

fn common(idle: Duration) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(MAX_MTU).interval(MTU_DISCOVERY_INTERVAL);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::try_from(idle).expect("minutes fit a variable-length integer")))
        .keep_alive_interval(None)
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(MIN_MTU)
        .mtu_discovery_config(Some(discovery));
    config
}

/// Whether the addresses that an endpoint sees are the other side's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// They are, and a client behind a NAT may come back from another one: QUIC follows it.
    Real,
    /// Each is a name for one remote, whatever paths lead there: a packet from another one is no migration.
    Stable,
}

/// How an endpoint accepts connections, and how much strangers may make it hold.
pub fn server_config(
    tls: QuicServerConfig,
    reset_key: &ResetKey,
    transport: Arc<TransportConfig>,
    addresses: Addresses,
) -> ServerConfig {
    let token_key =
        ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, b"culvert quic token key 1").extract(&reset_key.0);
    let mut config = ServerConfig::new(Arc::new(tls), Arc::new(token_key));
    config
        .transport_config(transport)
        .migration(addresses == Addresses::Real)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFERS);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gso_batch_of_the_largest_packets_fits_a_datagram() {
        assert!(10 * u32::from(MAX_MTU) < 65_507);
    }

    #[test]
    fn a_reset_key_is_one_endpoints_own() {
        let key = crate::tls::tests::key();
        let derive = |salt: &[u8]| ResetKey::derive(&key, salt).0;
        assert_eq!(derive(b"a"), derive(b"a"));
        assert_ne!(derive(b"a"), derive(b"b"));
        assert_ne!(derive(b"a"), ResetKey::derive(&crate::tls::tests::key(), b"a").0);
    }
}
