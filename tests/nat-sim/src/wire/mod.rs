//! The laboratory's NAT for real programs: one process that is the router between two or more veths.
//!
//! It opens a raw socket on each interface, answers ARP there as the router would (the kernel has no address
//! on them), and passes IPv4 between LANs and WAN through the very [`crate::nat::Nat`] that virtual worlds
//! use, with a [`crate::link::Link`] for each direction. So real programs meet NATs that the kernel doesn't
//! have, and delay, jitter, loss and reordering where the kernel has no netem.
//!
//! What a router of this kind does not do: fragments, ICMP errors from others, IPv6. SIGHUP is a power cut: it
//! loses all state and all packets under way, and says so on its output.

mod gateway;
mod neighbours;
mod options;
mod packet;
mod port;
mod queue;

use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;

pub use gateway::{Forwarded, Gateway, Side, Subnet};
pub use neighbours::{Mac, Neighbours, Received};
pub use options::{Command, LanPort, Options, WanPort};
pub use packet::{Complaint, Packet, Protocol};
use port::Port;
use queue::Queue;

use crate::dice::Dice;
use crate::link::{Link, Quality};
use crate::oracle::{Between, Row, expectations};

/// Frames taken from one interface before the others have their turn.
const BURST: usize = 64;

/// The dice's streams for the two directions.
const STREAMS: (u64, u64) = (0, 1);

/// Does what `nat-sim wire` says.
///
/// # Errors
/// When an interface can't be opened, or a socket or the output fails.
pub fn run(command: &Command) -> io::Result<()> {
    match command {
        Command::Router(options) => be_router(options),
        Command::Expectations => print_expectations(),
    }
}

fn print_expectations() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for Row { a, b, between, remedy } in expectations() {
        let between = match between {
            Between::Core => "core",
            Between::SharedLink => "shared-link",
        };
        writeln!(out, r#"{{"a":"{a}","b":"{b}","between":"{between}","remedy":"{remedy}"}}"#)?;
    }
    Ok(())
}

/// Runs until the process is ended. Prints one line of JSON when the router is on.
fn be_router(options: &Options) -> io::Result<()> {
    let mut wire = Wire::open(options)?;
    say("ready", options)?;
    loop {
        while wire.power_cuts.read_signal()?.is_some() {
            wire.gateway.reboot();
            wire.queue.clear();
            say("rebooted", options)?;
        }
        wire.turn()?;
    }
}

fn say(event: &str, options: &Options) -> io::Result<()> {
    let Options { kind, seed, .. } = options;
    writeln!(io::stdout(), r#"{{"event":"{event}","kind":"{kind}","seed":{seed}}}"#)
}

/// SIGHUPs, to be read like frames.
fn power_cuts() -> io::Result<SignalFd> {
    let signals = SigSet::from(Signal::SIGHUP);
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

#[derive(Debug)]
struct Wire {
    gateway: Gateway,
    lans: Vec<Port>,
    wan: Port,
    /// Who is on the WAN's link.
    nearby: Subnet,
    /// The next hop to all others there.
    upstream: Ipv4Addr,
    up: Link,
    down: Link,
    /// Packets on their way up, towards the WAN, and down, not yet translated.
    queue: Queue<(Direction, Packet)>,
    power_cuts: SignalFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Wire {
    fn open(options: &Options) -> io::Result<Self> {
        let Options { kind, lan: lans, wan, seed, .. } = options;
        let open = |lan: &LanPort| Port::open(&lan.interface, lan.subnet.address);
        let link = |stream| Link::new(options.quality(), Dice::new(*seed, stream));
        let subnets = lans.iter().map(|lan| lan.subnet).collect();
        Ok(Self {
            gateway: Gateway::new(*kind, subnets, wan.subnet.address, *seed),
            lans: lans.iter().map(open).collect::<io::Result<_>>()?,
            wan: Port::open(&wan.interface, wan.subnet.address)?,
            nearby: wan.subnet,
            upstream: wan.upstream,
            up: link(STREAMS.0),
            down: link(STREAMS.1),
            queue: Queue::default(),
            power_cuts: power_cuts()?,
        })
    }

    /// Waits for frames, or for a packet to come out of a link, and passes on all there is.
    fn turn(&mut self) -> io::Result<()> {
        let wait = self.queue.next_at().map(|at| at.saturating_duration_since(Instant::now()));
        let sockets = self.lans.iter().chain([&self.wan]).map(|port| port.as_fd());
        let mut waited: Vec<PollFd<'_>> =
            sockets.chain([self.power_cuts.as_fd()]).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match ppoll(&mut waited, wait.map(TimeSpec::from), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        for lan in 0..self.lans.len() {
            self.take(Side::Lan(lan))?;
        }
        self.take(Side::Wan)?;
        while let Some((direction, packet)) = self.queue.pop_due(Instant::now()) {
            self.come_out(direction, packet)?;
        }
        Ok(())
    }

    /// Takes a burst of frames from an interface.
    fn take(&mut self, side: Side) -> io::Result<()> {
        for _ in 0..BURST {
            let port = self.port(side);
            let Some(frame) = port.receive()? else { break };
            match port.neighbours.receive(&frame) {
                Received::Packet(packet) => self.route(side, packet)?,
                Received::Frames(frames) => {
                    frames.iter().try_for_each(|frame| self.port(side).send(frame))?
                }
            }
        }
        Ok(())
    }

    fn route(&mut self, from: Side, packet: Packet) -> io::Result<()> {
        match from {
            Side::Lan(lan) => match self.gateway.outbound(lan, packet, Instant::now()) {
                Some((Side::Wan, packet)) => self.put_in(Direction::Up, packet),
                Some((side @ Side::Lan(_), packet)) => self.send(side, packet),
                None => Ok(()),
            },
            Side::Wan => self.put_in(Direction::Down, packet),
        }
    }

    /// Puts a packet on a link.
    fn put_in(&mut self, direction: Direction, packet: Packet) -> io::Result<()> {
        let link = match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        };
        let now = Instant::now();
        // What the link drops is gone without a word.
        let Ok(passage) = link.pass(packet.bytes().len(), now) else { return Ok(()) };
        if let Some(again) = passage.again {
            self.queue.push(again, (direction, packet.clone()));
        }
        if passage.at <= now {
            return self.come_out(direction, packet);
        }
        self.queue.push(passage.at, (direction, packet));
        Ok(())
    }

    fn come_out(&mut self, direction: Direction, packet: Packet) -> io::Result<()> {
        let forwarded = match direction {
            Direction::Up => Some((Side::Wan, packet)),
            Direction::Down => self.gateway.inbound(packet, Instant::now()),
        };
        forwarded.map_or(Ok(()), |(side, packet)| self.send(side, packet))
    }

    fn send(&mut self, side: Side, packet: Packet) -> io::Result<()> {
        let dst = packet.dst_address();
        let next_hop = if side == Side::Wan && !self.nearby.contains(dst) { self.upstream } else { dst };
        let port = self.port(side);
        match port.neighbours.send(next_hop, packet) {
            Some(frame) => port.send(&frame),
            None => Ok(()),
        }
    }

    fn port(&mut self, side: Side) -> &mut Port {
        match side {
            Side::Lan(lan) => &mut self.lans[lan],
            Side::Wan => &mut self.wan,
        }
    }
}

impl Options {
    /// What both directions are like.
    fn quality(&self) -> Quality {
        use crate::link::Loss;
        Quality {
            delay: self.delay,
            jitter: self.jitter,
            loss: if self.loss > 0.0 { Loss::Uniform(self.loss) } else { Loss::None },
            reorder: self.reorder,
            duplicate: self.duplicate,
            rate: self.rate,
            mtu: self.mtu,
            ..Quality::default()
        }
    }
}
