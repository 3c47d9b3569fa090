//! Which external port a new binding gets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::policy::Allocation;
use crate::dice::Dice;

/// Random draws before the allocator looks at the ports in order.
const DRAWS: u32 = 32;

/// A port, and whether it is the one the policy promises or a makeshift after a clash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) port: u16,
    pub(super) clashed: bool,
}

/// The allocator's memory.
#[derive(Debug, Clone)]
pub(super) struct Ports {
    allocation: Allocation,
    range: RangeInclusive<u16>,
    last: Option<u16>,
    /// First port of each internal address's block.
    blocks: BTreeMap<IpAddr, u16>,
}

impl Ports {
    pub(super) fn new(allocation: Allocation, range: RangeInclusive<u16>) -> Self {
        Self { allocation, range, last: None, blocks: BTreeMap::new() }
    }

    /// A port for a new binding of `inner`, or none when all that it may have are in use.
    pub(super) fn choose(
        &mut self,
        inner: SocketAddr,
        dice: &mut Dice,
        is_free: impl Fn(u16) -> bool,
    ) -> Option<Chosen> {
        let promised = |port| Chosen { port, clashed: false };
        match self.allocation {
            Allocation::Preserving | Allocation::PreservingUntilClash if is_free(inner.port()) => {
                Some(promised(inner.port()))
            }
            Allocation::Preserving => {
                let port = scan(&self.range, inner.port(), 1, is_free)?;
                Some(Chosen { port, clashed: true })
            }
            Allocation::PreservingUntilClash => {
                let port = random(&self.range, dice, is_free)?;
                Some(Chosen { port, clashed: true })
            }
            Allocation::Sequential { step } => {
                let last = self.last.unwrap_or_else(|| dice.port(&self.range));
                let port = scan(&self.range, last, step, is_free)?;
                self.last = Some(port);
                Some(promised(port))
            }
            Allocation::Random => random(&self.range, dice, is_free).map(promised),
            Allocation::RandomInBlock { size } => {
                let block = self.block_of(inner.ip(), size.max(1), dice)?;
                random(&block, dice, is_free).map(promised)
            }
        }
    }

    /// Any free port of the range, for a flow that can't have its usual one.
    pub(super) fn makeshift(&self, dice: &mut Dice, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        random(&self.range, dice, is_free)
    }

    /// Lets a sequential allocator pass `count` ports, as flows of other hosts make it do.
    pub(super) fn skip(&mut self, count: u16, dice: &mut Dice) {
        if let Allocation::Sequential { step } = self.allocation {
            let last = self.last.unwrap_or_else(|| dice.port(&self.range));
            self.last = Some(stepped(&self.range, last, step, u32::from(count)));
        }
    }

    /// Forgets what was given out.
    pub(super) fn reset(&mut self) {
        self.last = None;
        self.blocks.clear();
    }

    fn block_of(&mut self, ip: IpAddr, size: u16, dice: &mut Dice) -> Option<RangeInclusive<u16>> {
        let first = match self.blocks.get(&ip) {
            Some(first) => *first,
            None => {
                let span = u32::from(self.range.end() - self.range.start()) + 1;
                let count = span / u32::from(size);
                let start = dice.below(count);
                let nth = |n: u32| self.range.start() + u16::try_from(n % count).unwrap_or(0) * size;
                let taken = |first: &u16| self.blocks.values().any(|other| other == first);
                let first = (0..count).map(|n| nth(start + n)).find(|first| !taken(first))?;
                self.blocks.insert(ip, first);
                first
            }
        };
        Some(first..=first + (size - 1))
    }
}

/// `count` steps on from `from`, wrapping within `range`.
fn stepped(range: &RangeInclusive<u16>, from: u16, step: i16, count: u32) -> u16 {
    let span = i64::from(range.end() - range.start()) + 1;
    let step = if step == 0 { 1 } else { i64::from(step) };
    let offset = i64::from(from) - i64::from(*range.start()) + step * i64::from(count);
    range.start() + u16::try_from(offset.rem_euclid(span)).unwrap_or(0)
}

/// The first free port in steps from `from`, `from` itself last.
fn scan(range: &RangeInclusive<u16>, from: u16, step: i16, is_free: impl Fn(u16) -> bool) -> Option<u16> {
    let span = u32::from(range.end() - range.start()) + 1;
    (1..=span).map(|count| stepped(range, from, step, count)).find(|port| is_free(*port))
}

fn random(range: &RangeInclusive<u16>, dice: &mut Dice, is_free: impl Fn(u16) -> bool) -> Option<u16> {
    for _ in 0..DRAWS {
        let port = dice.port(range);
        if is_free(port) {
            return Some(port);
        }
    }
    scan(range, dice.port(range), 1, is_free)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(allocation: Allocation, inner: &str, used: &[u16]) -> Option<Chosen> {
        let mut ports = Ports::new(allocation, 2000..=2009);
        ports.choose(inner.parse().unwrap(), &mut Dice::new(1, 1), |port| !used.contains(&port))
    }

    #[test]
    fn a_preserved_port_that_is_in_use_gives_way_to_the_next_one_above() {
        let all = Allocation::Preserving;
        assert_eq!(chosen(all, "10.0.0.1:2003", &[]), Some(Chosen { port: 2003, clashed: false }));
        assert_eq!(chosen(all, "10.0.0.1:2003", &[2003, 2004]), Some(Chosen { port: 2005, clashed: true }));
        assert_eq!(chosen(all, "10.0.0.1:2009", &[2009]).map(|chosen| chosen.port), Some(2000));
    }

    #[test]
    fn sequential_ports_keep_their_step_either_way_and_wrap() {
        for step in [1_i16, 2, -1, 3] {
            let mut ports = Ports::new(Allocation::Sequential { step }, 2000..=2009);
            let mut dice = Dice::new(3, 3);
            let inner = "10.0.0.1:5".parse().unwrap();
            let given: Vec<i32> =
                (0..6).map(|_| i32::from(ports.choose(inner, &mut dice, |_| true).unwrap().port)).collect();
            for pair in given.windows(2) {
                assert_eq!((pair[1] - pair[0] - i32::from(step)).rem_euclid(10), 0, "{given:?}");
            }
        }
    }

    #[test]
    fn flows_of_other_hosts_move_a_sequential_allocator_on() {
        let mut ports = Ports::new(Allocation::Sequential { step: 1 }, 2000..=2999);
        let mut dice = Dice::new(3, 3);
        let inner = "10.0.0.1:5".parse().unwrap();
        let first = ports.choose(inner, &mut dice, |_| true).unwrap().port;
        ports.skip(4, &mut dice);
        let second = ports.choose(inner, &mut dice, |_| true).unwrap().port;
        assert_eq!((i32::from(second) - i32::from(first)).rem_euclid(1000), 5);
    }

    #[test]
    fn a_block_holds_all_ports_of_one_address_and_none_of_another() {
        let mut ports = Ports::new(Allocation::RandomInBlock { size: 100 }, 2000..=2999);
        let mut dice = Dice::new(9, 9);
        let mut block_of = |inner: &str| {
            let inner = inner.parse().unwrap();
            let blocks: Vec<u16> =
                (0..50).map(|_| ports.choose(inner, &mut dice, |_| true).unwrap().port / 100).collect();
            assert!(blocks.windows(2).all(|pair| pair[0] == pair[1]), "{blocks:?}");
            blocks[0]
        };
        assert_ne!(block_of("10.0.0.1:1"), block_of("10.0.0.2:1"));
    }

    #[test]
    fn when_every_port_is_in_use_there_is_none() {
        let all: Vec<u16> = (2000..=2009).collect();
        for allocation in [
            Allocation::Preserving,
            Allocation::PreservingUntilClash,
            Allocation::Random,
            Allocation::Sequential { step: 1 },
            Allocation::RandomInBlock { size: 5 },
        ] {
            assert_eq!(chosen(allocation, "10.0.0.1:2003", &all), None, "{allocation:?}");
        }
    }
}
