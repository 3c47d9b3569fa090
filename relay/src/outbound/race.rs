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

/// How long a family that has not answered is waited for once all addresses of the other one have failed.
const OTHER_FAMILY: Duration = Duration::from_secs(1);

struct Race<'a> {
    outbound: &'a Outbound,
    /// Addresses whose turn has not come.
    waiting: VecDeque<SocketAddr>,
    /// When the next one's comes.
    next: Instant,
    tries: JoinSet<(SocketAddr, io::Result<Stream>)>,
    last: Option<io::Error>,
}

/// Connects to what the look-up finds.
///
/// # Errors
/// The name has no address, or none answers.
pub(super) async fn race(
    outbound: &Outbound,
    mut look_up: LookUp,
) -> Result<(Stream, SocketAddr), OutboundError> {
    let mut race =
        Race { outbound, waiting: VecDeque::new(), next: Instant::now(), tries: JoinSet::new(), last: None };
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
                Some(found) => race.waiting.extend(found),
                None => is_over = true,
            },
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

impl Race<'_> {
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
