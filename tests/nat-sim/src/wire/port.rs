//! A raw socket on one Ethernet interface. It needs no root, but the rights of its network namespace.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};

use super::neighbours::Neighbours;

/// Room for a burst; the kernel gives as much as it allows.
const BUFFER: usize = 4 * 1024 * 1024;

/// The largest frame that is read: veths have MTU 1500.
const FRAME_MAX: usize = 2_048;

/// An interface, and who is on its cable.
#[derive(Debug)]
pub(super) struct Port {
    socket: OwnedFd,
    pub(super) neighbours: Neighbours,
}

impl Port {
    /// Opens the interface of this name. `address` is ours there; the kernel must have none.
    pub(super) fn open(interface: &str, address: Ipv4Addr) -> io::Result<Self> {
        let missing =
            || io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {interface}"));
        let link = link_address(interface)?.ok_or_else(missing)?;
        let mac = link.addr().ok_or_else(missing)?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        // The address says no protocol, which leaves the socket's own: all of them.
        bind(socket.as_raw_fd(), &link)?;
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
        setsockopt(&socket, sockopt::SndBuf, &BUFFER)?;
        let port = Self { socket, neighbours: Neighbours::new(mac, address) };
        // Until it was bound it heard every interface.
        while port.receive()?.is_some() {}
        Ok(port)
    }

    /// The next frame that came, if there is one.
    pub(super) fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut frame = vec![0; FRAME_MAX];
        match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(length) => {
                frame.truncate(length);
                Ok(Some(frame))
            }
            // An interface that went down says so once.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a frame; where there is no room, or the cable is cut, it is lost.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_)
            | Err(
                Errno::EAGAIN
                | Errno::EINTR
                | Errno::ENOBUFS
                | Errno::ENETDOWN
                | Errno::EMSGSIZE
                | Errno::ENXIO,
            ) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The interface's index and hardware address, as one address of the packet family.
fn link_address(interface: &str) -> io::Result<Option<LinkAddr>> {
    let mut all = getifaddrs()?.filter(|each| each.interface_name == interface);
    Ok(all.find_map(|each| each.address?.as_link_addr().copied()))
}
