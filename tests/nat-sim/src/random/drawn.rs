//! What a seed stands for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::dice::Dice;
use crate::kind::Kind;
use crate::link::{Loss, Quality};
use crate::nat::{Expiry, Refresh};
use crate::node::Actor;
use crate::oracle::{Between, Remedy, direct_path_possible_across};
use crate::world::{Plan, World};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

/// Something that happens to a home.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Its routers lose their state.
    Reboot(&'static str),
    /// Its line is redialled and has another address.
    Redial(&'static str, IpAddr),
    /// Its host moves to another home.
    Roam(&'static str),
    /// Its wires become these, up and down.
    Weather(&'static str, Box<(Quality, Quality)>),
}

/// A world as drawn.
#[derive(Debug, Clone)]
pub struct Drawn {
    seed: u64,
    kinds: [Kind; 2],
    cafe: Kind,
    wires: [(Quality, Quality); 2],
    expiry: [Option<Expiry>; 2],
    server_rtts: [Duration; 2],
    direct_rtt: Duration,
    hops: u8,
    between: Between,
    /// In order of time.
    faults: Vec<(Duration, Fault)>,
    /// How often `a` sends data, if it does.
    data_every: Option<Duration>,
}

impl Drawn {
    /// The world of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 3_000);
        let kinds = Kind::all();
        let mut kind = || kinds[dice.below(kinds.len() as u32) as usize];
        let (kinds, cafe) = ([kind(), kind()], Kind::PORT_RESTRICTED);
        let wires = [(); 2].map(|()| (wire(&mut dice), wire(&mut dice)));
        let expiry = [(); 2].map(|()| dice.chance(0.3).then(|| expiry(&mut dice)));
        let server_rtts = [(); 2].map(|()| dice.up_to(300 * MS));
        let direct_rtt = dice.up_to(300 * MS);
        let hops = 2 + u8::try_from(dice.below(9)).unwrap_or(0);
        let is_shared = dice.chance(0.05) && kinds.iter().all(|kind| !kind.shares_a_router());
        let between = if is_shared { Between::SharedLink } else { Between::Core };
        let mut faults: Vec<(Duration, Fault)> =
            (0..dice.below(4)).map(|_| (5 * SEC + dice.up_to(55 * SEC), fault(&mut dice))).collect();
        faults.sort_by_key(|(at, _)| *at);
        let data_every = dice.chance(0.5).then(|| 20 * MS + dice.up_to(SEC));
        Self { seed, kinds, cafe, wires, expiry, server_rtts, direct_rtt, hops, between, faults, data_every }
    }

    /// The plan of it.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let mut plan = World::plan(self.seed).direct_rtt(self.direct_rtt).core_hops(self.hops);
        for (n, name) in ["a", "b"].into_iter().enumerate() {
            let (up, down) = self.wires[n];
            plan = plan.home(name, self.kinds[n]).over(up, down).at_server_rtt(self.server_rtts[n]);
            if let Some(expiry) = self.expiry[n] {
                plan = plan.whose_routers(move |policy| policy.expiry = expiry);
            }
        }
        if self.between == Between::SharedLink {
            plan = plan.on_one_link(2);
        }
        plan.empty_home("cafe", self.cafe).server("s")
    }

    /// Lets it happen, until the weather clears.
    pub fn play(&self, world: &mut World<Actor>, clears: Duration) {
        world.run_until(2 * SEC, |_| false);
        world.with_node("a", |node, now| node.peer_mut().dial(now));
        let mut faults = self.faults.iter().peekable();
        let tick = self.data_every.unwrap_or(SEC);
        while world.elapsed() < clears {
            world.run_for(tick);
            while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= world.elapsed()) {
                fault.strike(world);
            }
            if self.data_every.is_some() {
                world.with_node("a", |node, now| node.peer_mut().send_data(now));
            }
        }
        for home in ["a", "b", "cafe"] {
            world.set_quality(home, Quality::default(), Quality::default());
        }
    }

    /// What the pair needs in the end.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        let moved = |name| self.faults.iter().any(|(_, fault)| *fault == Fault::Roam(name));
        match ["a", "b"].map(moved) {
            [false, false] => direct_path_possible_across(self.between, self.kinds[0], self.kinds[1]),
            // One café has one router, without a hairpin, and one LAN for each guest behind it.
            [true, true] => Remedy::RelayOnly,
            [true, false] => direct_path_possible_across(Between::Core, self.cafe, self.kinds[1]),
            [false, true] => direct_path_possible_across(Between::Core, self.kinds[0], self.cafe),
        }
    }
}

impl Fault {
    fn strike(&self, world: &mut World<Actor>) {
        match self {
            Self::Reboot(home) => world.reboot_routers(home),
            Self::Redial(home, address) => world.change_public_address(home, *address),
            Self::Roam(host) => world.roam(host, "cafe"),
            Self::Weather(home, wires) => world.set_quality(home, wires.0, wires.1),
        }
    }
}

fn fault(dice: &mut Dice) -> Fault {
    let home = if dice.chance(0.5) { "a" } else { "b" };
    match dice.below(4) {
        0 => Fault::Reboot(home),
        1 => {
            // No two homes ever have one address.
            let first = if home == "a" { 100 } else { 150 };
            let low = u8::try_from(first + dice.below(50)).unwrap_or(100);
            Fault::Redial(home, IpAddr::V4(Ipv4Addr::new(198, 51, 100, low)))
        }
        2 => Fault::Roam(home),
        _ => Fault::Weather(home, Box::new((wire(dice), wire(dice)))),
    }
}

fn wire(dice: &mut Dice) -> Quality {
    if dice.chance(0.3) {
        return Quality::delayed(dice.up_to(50 * MS));
    }
    let loss = match dice.below(3) {
        0 => Loss::None,
        1 => Loss::Uniform(f64::from(dice.below(100)) / 1000.0),
        _ => Loss::Bursty { to_bad: 0.02, to_good: 0.3, good: 0.01, bad: 0.8 },
    };
    Quality {
        delay: dice.up_to(50 * MS),
        jitter: dice.up_to(50 * MS),
        loss,
        reorder: if dice.chance(0.3) { 0.05 } else { 0.0 },
        duplicate: if dice.chance(0.3) { 0.02 } else { 0.0 },
        rate: dice.chance(0.2).then_some(100_000),
        ..Quality::default()
    }
}

fn expiry(dice: &mut Dice) -> Expiry {
    let refresh = [Refresh::Outbound, Refresh::Inbound, Refresh::Either, Refresh::PerDirection];
    let refresh = refresh[dice.below(4) as usize];
    Expiry::after(20 * SEC + dice.up_to(280 * SEC), refresh)
}

impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.kinds;
        let [server_a, server_b] = self.server_rtts.map(|rtt| rtt.as_millis());
        write!(f, "{a} x {b}, {}, R {server_a}/{server_b} ms", self.remedy())?;
        write!(f, ", D {} ms, {} hops", self.direct_rtt.as_millis(), self.hops)?;
        if self.between == Between::SharedLink {
            f.write_str(", on one link")?;
        }
        for (at, fault) in &self.faults {
            let what = match fault {
                Fault::Reboot(home) => format!("{home}'s routers reboot"),
                Fault::Redial(home, _) => format!("{home} redials"),
                Fault::Roam(host) => format!("{host} roams"),
                Fault::Weather(home, ..) => format!("{home}'s weather changes"),
            };
            write!(f, "; {:.1} s {what}", at.as_secs_f64())?;
        }
        match self.data_every {
            Some(every) => write!(f, "; data every {} ms", every.as_millis()),
            None => Ok(()),
        }
    }
}
