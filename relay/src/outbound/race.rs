//! The first of a host's addresses that answers (RFC 8305 §5), while others are still being looked up.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::names::LookUp;
use super::{Outbound, OutboundError};
use crate::net::Stream;

/// Between attempts at two addresses of one name (RFC 8305 §5), unless the earlier one has failed before.
const STAGGER: Duration = Duration::from_millis(250);

/// How long what was known of a name is tried without success before the name is looked up once more: the host may have
/// moved, and the system may take minutes to give up the address that it had.
const DOUBT: Duration = Duration::from_millis(500);

/// How long a family that has not answered is waited for once all addresses of the other one have failed.
const OTHER_FAMILY: Duration = Duration::from_secs(1);

struct Race<'a> {
    outbound: &'a Outbound,
    /// Addresses whose turn has not come.
    waiting: VecDeque<SocketAddr>,
    /// All that were found.
    known: Vec<SocketAddr>,
    /// When the next one's comes.
    next: Instant,
    tries: JoinSet<(SocketAddr, io::Result<Stream>)>,
    last: Option<io::Error>,
}

/// Connects to a host at what its look-up finds.
///
/// # Errors
/// The name has no address, or none answers.
pub(super) async fn race(
    outbound: &Outbound,
    host: &str,
    port: u16,
) -> Result<(Stream, SocketAddr), OutboundError> {
    let mut look_up = outbound.look_up(host, port);
    let mut race = Race::new(outbound);
    let mut doubt_at = Some(Instant::now() + DOUBT);
    let mut is_over = false;
    loop {
        race.start_due();
        let is_idle = race.tries.is_empty() && race.waiting.is_empty();
        if is_over && is_idle {
            return Err(race.failed(&look_up));
        }
        let given_up = race.last.as_ref().filter(|_| is_idle).map(|_| race.next + OTHER_FAMILY);
        tokio::select! {
            found = look_up.next(), if !is_over => match found {
                Some(found) => race.add(found),
                None => is_over = true,
            },
            () = sleep_until(doubt_at.unwrap_or(race.next)), if doubt_at.is_some() && is_over => {
                doubt_at = None;
                outbound.names.forget(host);
                (look_up, is_over) = (outbound.look_up(host, port), false);
            }
            () = sleep_until(race.next), if !race.waiting.is_empty() => {}
            Some(tried) = race.tries.join_next() => if let Some(connected) = race.ended(tried) {
                return Ok(connected);
            },
            () = sleep_until(given_up.unwrap_or(race.next)), if given_up.is_some() => {
                return Err(race.failed(&look_up));
            }
        }
    }
}

impl<'a> Race<'a> {
    fn new(outbound: &'a Outbound) -> Self {
        let (waiting, known) = (VecDeque::new(), Vec::new());
        Self { outbound, waiting, known, next: Instant::now(), tries: JoinSet::new(), last: None }
    }

    fn add(&mut self, found: Vec<SocketAddr>) {
        for addr in found {
            if !self.known.contains(&addr) {
                self.known.push(addr);
                self.waiting.push_back(addr);
            }
        }
    }

    /// Begins the next attempt, if its time has come.
    fn start_due(&mut self) {
        let now = Instant::now();
        if self.next > now {
            return;
        }
        let Some(addr) = self.waiting.pop_front() else { return };
        self.next = now + STAGGER;
        let outbound = self.outbound.clone();
        self.tries.spawn(async move {
            let addr = outbound.passable(addr).await;
            (addr, outbound.net.connect_tcp(addr).await)
        });
    }

    fn ended(
        &mut self,
        tried: Result<(SocketAddr, io::Result<Stream>), tokio::task::JoinError>,
    ) -> Option<(Stream, SocketAddr)> {
        // What has failed need not be waited for.
        self.next = Instant::now();
        let error = match tried {
            Ok((addr, Ok(stream))) => return Some((stream, addr)),
            Ok((_, Err(error))) => error,
            Err(error) => io::Error::other(error),
        };
        // That a family has no route says nothing of the server.
        if self.last.is_none() || !is_routeless(&error) {
            self.last = Some(error);
        }
        None
    }

    fn failed(&mut self, look_up: &LookUp) -> OutboundError {
        match self.last.take() {
            Some(error) => error.into(),
            None => OutboundError::Name(look_up.error()),
        }
    }
}

fn is_routeless(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::AddrNotAvailable
    )
}
