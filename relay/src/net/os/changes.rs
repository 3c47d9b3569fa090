//! Changes of this host's network, as Linux tells of them: rtnetlink(7) for addresses, links and routes, a
//! clock that goes on in suspend for sleep.
//!
//! No message of the kernel's is looked into: that one came is all it says, and whoever asks compares the
//! network with what it was.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use nix::sys::timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use crate::net::{BoxFuture, Change, NetworkChanges, QUIET};

/// The groups of rtnetlink that are listened to (`linux/rtnetlink.h`).
const GROUPS: u32 = LINK | IPV4_ADDRESS | IPV4_ROUTE | IPV6_ADDRESS | IPV6_ROUTE;
const LINK: u32 = 0x1;
const IPV4_ADDRESS: u32 = 0x10;
const IPV4_ROUTE: u32 = 0x40;
const IPV6_ADDRESS: u32 = 0x100;
const IPV6_ROUTE: u32 = 0x400;

/// How long a change may take to come to rest: a network that never does is told of as it is.
const RESTLESS: Duration = Duration::from_millis(500);

/// How often the clocks are compared. A timer of [`TimerClock::CLOCK_BOOTTIME`] that would have gone off in a
/// suspend does so at its end, so this delays only the news of a short one.
const LOOK: Duration = Duration::from_secs(15);

/// A shorter suspend changes nothing.
const NAP: Duration = Duration::from_secs(1);

/// Listens to the kernel.
#[derive(Debug)]
pub(super) struct OsChanges {
    netlink: AsyncFd<OwnedFd>,
    alarm: AsyncFd<OwnedFd>,
    slept: Duration,
}

impl OsChanges {
    /// Listens from here on.
    pub(super) fn listen() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, Some(SockProtocol::NetlinkRoute))?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        let alarm =
            TimerFd::new(TimerClock::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        alarm.set(Expiration::Interval(LOOK.into()), TimerSetTimeFlags::empty())?;
        Ok(Self { netlink: registered(netlink)?, alarm: registered(OwnedFd::from(alarm))?, slept: slept()? })
    }

    /// The next thing that the kernel says, which may be one of many of the same change.
    async fn next(&mut self) -> io::Result<Change> {
        loop {
            tokio::select! {
                biased;
                ready = self.alarm.readable() => {
                    ready?.try_io(|alarm| Ok(nix::unistd::read(alarm, &mut [0; 8])?)).ok();
                }
                ready = self.netlink.readable() => {
                    let heard = ready?.try_io(|netlink| Ok(heard(netlink.as_raw_fd())?));
                    if heard.is_ok_and(|heard: io::Result<()>| heard.is_ok()) {
                        return Ok(self.judge(slept()?).unwrap_or(Change::Network));
                    }
                }
            }
            if let Some(woken) = self.judge(slept()?) {
                return Ok(woken);
            }
        }
    }

    /// Whether the machine has slept since this was asked last.
    fn judge(&mut self, slept: Duration) -> Option<Change> {
        let before = std::mem::replace(&mut self.slept, slept);
        (slept.saturating_sub(before) > NAP).then_some(Change::Woken)
    }

    async fn settled(&mut self) -> io::Result<Change> {
        let mut change = self.next().await?;
        let end = Instant::now() + RESTLESS;
        while let Ok(next) = timeout_at(end.min(Instant::now() + QUIET), self.next()).await {
            change = change.max(next?);
        }
        Ok(change)
    }
}

impl NetworkChanges for OsChanges {
    fn changed(&mut self) -> BoxFuture<'_, Change> {
        Box::pin(async {
            match self.settled().await {
                Ok(change) => change,
                Err(error) => {
                    // Whoever asks would ask again at once, and for ever.
                    tracing::warn!(%error, "the system tells of no more network changes");
                    std::future::pending().await
                }
            }
        })
    }
}

/// tokio's newer constructor is `unsafe`, for it can't know that what it gets stays open. An [`OwnedFd`] does.
#[expect(deprecated, reason = "the only constructor without `unsafe`")]
fn registered(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// Takes all that is there. More than the socket could hold is a change too.
fn heard(netlink: i32) -> nix::Result<()> {
    let mut any = false;
    loop {
        match recv(netlink, &mut [0; 1], MsgFlags::MSG_TRUNC) {
            Ok(_) | Err(Errno::ENOBUFS) => any = true,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if any => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// How long the machine has slept since it was started.
fn slept() -> nix::Result<Duration> {
    let (awake, whole) = (clock_gettime(ClockId::CLOCK_MONOTONIC)?, clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    Ok(Duration::from(whole).saturating_sub(Duration::from(awake)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_suspend_is_told_once_and_a_nap_is_not() {
        let mut changes = OsChanges::listen().unwrap();
        let before = changes.slept;
        assert_eq!(changes.judge(before + Duration::from_millis(900)), None);
        assert_eq!(changes.judge(before + Duration::from_secs(3600)), Some(Change::Woken));
        assert_eq!(changes.judge(before + Duration::from_secs(3600)), None);
    }
}
