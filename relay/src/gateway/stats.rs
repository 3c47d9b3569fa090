//! What a gateway counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self) {
        self.add_many(1);
    }

    pub(crate) fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the gateway's tasks count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) by_class: [Count; 5],
    pub(crate) upgraded: Count,
    pub(crate) cut: Count,
    pub(crate) bad_handshakes: Count,
    pub(crate) resets: Count,
    pub(crate) bad_heads: Count,
    pub(crate) slow_heads: Count,
    pub(crate) slow_bodies: Count,
    pub(crate) slow_readers: Count,
    pub(crate) crowded: Count,
    pub(crate) crowded_each: Count,
    pub(crate) registered: Count,
    pub(crate) registrations_refused: Count,
    pub(crate) strangers: Count,
    pub(crate) surplus: Count,
    pub(crate) published: Count,
    pub(crate) publications_refused: Count,
    pub(crate) forbidden: Count,
    pub(crate) unauthorized: Count,
    pub(crate) guesses_limited: Count,
    pub(crate) bytes_in: Count,
    pub(crate) bytes_out: Count,
}

impl Counters {
    /// A visitor got this status.
    pub(crate) fn answered(&self, status: u16) {
        if let Some(count) =
            usize::from(status / 100).checked_sub(1).and_then(|class| self.by_class.get(class))
        {
            count.add();
        }
    }

    pub(crate) fn stats(
        &self,
        (tunnels, connections, waiting): (usize, usize, usize),
        (sharers, served, claimed): (usize, usize, usize),
        visitors: usize,
    ) -> GatewayStats {
        GatewayStats {
            visitors,
            tunnels,
            connections,
            waiting,
            sharers,
            served,
            claimed,
            by_class: self.by_class.each_ref().map(Count::get),
            upgraded: self.upgraded.get(),
            cut: self.cut.get(),
            unlogged: 0,
            unread_bytes: 0,
            unread_cut: 0,
            bad_handshakes: self.bad_handshakes.get(),
            resets: self.resets.get(),
            bad_heads: self.bad_heads.get(),
            slow_heads: self.slow_heads.get(),
            slow_bodies: self.slow_bodies.get(),
            slow_readers: self.slow_readers.get(),
            crowded: self.crowded.get(),
            crowded_each: self.crowded_each.get(),
            registered: self.registered.get(),
            registrations_refused: self.registrations_refused.get(),
            strangers: self.strangers.get(),
            surplus: self.surplus.get(),
            published: self.published.get(),
            publications_refused: self.publications_refused.get(),
            forbidden: self.forbidden.get(),
            unauthorized: self.unauthorized.get(),
            guesses_limited: self.guesses_limited.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
        }
    }
}

/// What a gateway has counted since its start, and what is there now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GatewayStats {
    /// Connections of visitors now, and the streams of those that speak HTTP/2.
    pub visitors: usize,
    /// Tunnels of localtunnel clients now.
    pub tunnels: usize,
    /// Connections that those clients hold now.
    pub connections: usize,
    /// Visitors that wait for such a connection now.
    pub waiting: usize,
    /// Connections of sharers now.
    pub sharers: usize,
    /// Names that sharers serve now.
    pub served: usize,
    /// Names that are somebody's.
    pub claimed: usize,
    /// Requests for names by the class of their final status, from 1xx (an upgrade) to 5xx.
    pub by_class: [u64; 5],
    /// Exchanges that went on in a protocol of their own.
    pub upgraded: u64,
    /// Exchanges that were cut in the middle of an answer.
    pub cut: u64,
    /// Requests that the access log has lost, because its writer was behind.
    pub unlogged: u64,
    /// Bytes that are held at the most for those who do not read now.
    pub unread_bytes: u64,
    /// Writes that waited longest for somebody to read, and were cut because there were too many.
    pub unread_cut: u64,
    /// TLS handshakes that came to nothing.
    pub bad_handshakes: u64,
    /// HTTP/2 connections that were closed because they gave up too many requests.
    pub resets: u64,
    /// Heads that were refused.
    pub bad_heads: u64,
    /// Heads that did not come in time.
    pub slow_heads: u64,
    /// Requests' bodies that did not come in time.
    pub slow_bodies: u64,
    /// Readers that were cut because they did not read.
    pub slow_readers: u64,
    /// Visitors' connections over the limit of all.
    pub crowded: u64,
    /// Visitors' connections over the limit of one source.
    pub crowded_each: u64,
    /// Registrations of tunnels.
    pub registered: u64,
    /// Registrations that were refused.
    pub registrations_refused: u64,
    /// Connections to tunnels' ports from elsewhere than their client.
    pub strangers: u64,
    /// Connections to tunnels' ports over what the client may hold.
    pub surplus: u64,
    /// Shares that were published.
    pub published: u64,
    /// Shares that were not.
    pub publications_refused: u64,
    /// Visitors whose address is not let in.
    pub forbidden: u64,
    /// Visitors who were asked for a password.
    pub unauthorized: u64,
    /// Visitors who have guessed too often.
    pub guesses_limited: u64,
    /// Bytes of content from visitors.
    pub bytes_in: u64,
    /// Bytes of content to visitors.
    pub bytes_out: u64,
}
