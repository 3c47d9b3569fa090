//! How a NAT chooses ports, read from a few of its choices.

use super::{Allocation, PortRange};

/// Fewer samples show nothing: two or three random ports may look like anything.
const FEWEST: usize = 4;

/// The largest difference of neighbouring samples that a counting allocator makes: its step, and other hosts'
/// flows in between.
const MAX_STRIDE: i32 = 128;

/// How many mean gaps the range is assumed to go on beyond the outermost samples. From 16 of them it then holds
/// a uniform allocator's whole range in 9 cases of 10, and nearly all of it in the tenth.
const MARGIN: u32 = 3;

/// The largest block that is looked for: among more ports the samples show less clearly where it ends.
const LARGEST_BLOCK: u16 = 512;

/// The lowest port that a NAT gives out, if no sample shows another (RFC 4787 REQ-3: 0–1023 stay apart).
const LOWEST: u16 = 1024;

/// One mapping that was made: the ports of the socket and of the external endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortSample {
    /// The socket's own port.
    pub local: u16,
    /// The mapping's.
    pub mapped: u16,
}

/// How ports are chosen, from samples in the order in which their mappings were made, each a mapping of its own.
/// A lost sample does no harm, nor does one that was overtaken, or one that the allocator's range ended at.
/// `None` for fewer than four.
pub fn classify(samples: &[PortSample]) -> Option<Allocation> {
    if samples.len() < FEWEST {
        return None;
    }
    let preserved = samples.iter().filter(|sample| sample.local == sample.mapped).count();
    if preserved * 4 >= samples.len() * 3 {
        return Some(Allocation::Preserving);
    }
    let ports: Vec<u16> = samples.iter().map(|sample| sample.mapped).collect();
    Some(match step(&ports) {
        Some(step) => Allocation::Sequential { step },
        None => Allocation::Random { range: range(&ports) },
    })
}

/// The step of a counting allocator, where three of four differences are small and of one direction. Flows of
/// others make a difference a multiple of the step, so it is what they all have in common.
fn step(ports: &[u16]) -> Option<i16> {
    let strides: Vec<i32> = ports.windows(2).map(|pair| i32::from(pair[1]) - i32::from(pair[0])).collect();
    [1, -1].into_iter().find_map(|sign| {
        let regular: Vec<i32> =
            strides.iter().map(|stride| stride * sign).filter(|s| (1..=MAX_STRIDE).contains(s)).collect();
        if regular.len() < FEWEST - 1 || regular.len() * 4 < strides.len() * 3 {
            return None;
        }
        let common = regular.into_iter().fold(0, common_divisor);
        i16::try_from(common * sign).ok()
    })
}

fn common_divisor(a: i32, b: i32) -> i32 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// Where a random allocator's ports are likely to lie: in the block that carriers would cut there, if one holds all
/// samples, else a little around them.
fn range(ports: &[u16]) -> PortRange {
    let (low, high) = ports.iter().fold((u16::MAX, 0), |(low, high), port| (low.min(*port), high.max(*port)));
    if let Some(block) = block(low, high) {
        return block;
    }
    let gap = u32::from(high - low) / (ports.len() as u32 - 1);
    let margin = u16::try_from(gap * MARGIN).unwrap_or(u16::MAX);
    let floor = LOWEST.min(low);
    PortRange::new(low.saturating_sub(margin).max(floor), high.saturating_add(margin))
}

/// The smallest block of a power of two that begins at a multiple of its size and holds both ports, up to
/// [`LARGEST_BLOCK`].
fn block(low: u16, high: u16) -> Option<PortRange> {
    let sizes = std::iter::successors(Some(1_u16), |size| size.checked_mul(2));
    let sizes = sizes.take_while(|size| *size <= LARGEST_BLOCK);
    let blocks = sizes.map(|size| PortRange::new(low & !(size - 1), low | (size - 1)));
    let mut holding = blocks.filter(|block| block.contains(high));
    holding.next()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

    use super::*;

    fn of(ports: &[u16]) -> Option<Allocation> {
        let samples: Vec<_> = ports.iter().map(|mapped| PortSample { local: 7, mapped: *mapped }).collect();
        classify(&samples)
    }

    #[test]
    fn a_counting_allocator_is_known_by_its_step_either_way() {
        for step in [1_i16, 2, 3, 8, -1, -2, -5] {
            let ports: Vec<u16> = (0..8).map(|n| (30_000 + i32::from(step) * n) as u16).collect();
            assert_eq!(of(&ports), Some(Allocation::Sequential { step }), "{ports:?}");
        }
    }

    #[test]
    fn flows_of_others_losses_an_overtaking_and_a_wrap_hide_no_step() {
        let step = |ports: &[u16]| of(ports);
        let two = Some(Allocation::Sequential { step: 2 });
        assert_eq!(step(&[2000, 2002, 2008, 2010, 2012, 2018]), two, "others' flows");
        assert_eq!(step(&[2000, 2002, 2012, 2014, 2016]), two, "losses");
        assert_eq!(step(&[2000, 2002, 2006, 2004, 2008, 2010, 2012, 2014, 2016]), two, "an overtaking");
        assert_eq!(step(&[65_530, 65_532, 65_534, 1024, 1026, 1028, 1030]), two, "a wrap");
        assert_eq!(step(&[21_022, 21_023, 20_000, 20_001, 20_002]), Some(Allocation::Sequential { step: 1 }));
    }

    #[test]
    fn kept_ports_are_told_from_counted_ones() {
        let samples: Vec<_> = (5000..5008).map(|port| PortSample { local: port, mapped: port }).collect();
        assert_eq!(classify(&samples), Some(Allocation::Preserving));
        let mut clashed = samples;
        clashed[3].mapped = 61_000;
        assert_eq!(classify(&clashed), Some(Allocation::Preserving));
    }

    #[test]
    fn three_samples_show_nothing() {
        assert_eq!(of(&[2000, 2001, 2002]), None);
    }

    /// Random samples, `n` at a time, from a range: how many of a thousand times they were taken for a sequence,
    /// and the shares of the range that the estimates hold.
    fn drawn(n: usize, first: u16, size: u32) -> (usize, Vec<f64>) {
        let mut rng = ChaCha12Rng::from_seed([3; 32]);
        let (mut sequences, mut shares) = (0, Vec::new());
        for _ in 0..1000 {
            let ports: Vec<u16> = (0..n).map(|_| first + (rng.next_u32() % size) as u16).collect();
            match of(&ports) {
                Some(Allocation::Random { range }) => {
                    let (low, high) = (range.first().max(first), range.last().min(first + (size - 1) as u16));
                    shares.push(f64::from(PortRange::new(low, high).size()) / f64::from(size));
                }
                Some(Allocation::Sequential { .. } | Allocation::Preserving) | None => sequences += 1,
            }
        }
        (sequences, shares)
    }

    #[test]
    fn random_ports_are_no_sequence_and_their_range_is_hardly_missed() {
        for (n, first, size) in [(8, 1024, 64_512), (16, 1024, 64_512), (16, 40_960, 512), (16, 2048, 1008)] {
            let (sequences, mut shares) = drawn(n, first, size);
            shares.sort_by(f64::total_cmp);
            assert!(sequences <= 2, "{sequences} of 1000 for {n} of {size}");
            let whole = shares.iter().filter(|share| **share >= 1.0).count();
            assert!(whole * 10 >= shares.len() * 8, "{whole} whole for {n} of {size}");
            // The rare worst case: one in fifty.
            let worst = shares[shares.len() / 50];
            assert!(worst > if n < 16 { 0.75 } else { 0.85 }, "{worst} for {n} of {size}");
        }
    }

    #[test]
    fn a_block_of_512_ports_that_begins_at_a_multiple_of_that_is_known_exactly() {
        let mut rng = ChaCha12Rng::from_seed([4; 32]);
        let mut exact = 0;
        for _ in 0..1000 {
            let ports: Vec<u16> = (0..16).map(|_| 40_960 + (rng.next_u32() % 512) as u16).collect();
            exact +=
                i32::from(of(&ports) == Some(Allocation::Random { range: PortRange::new(40_960, 41_471) }));
        }
        assert!(exact >= 998, "{exact} of 1000");
    }

    #[test]
    fn a_small_block_is_not_taken_for_the_whole_space() {
        let Some(Allocation::Random { range }) =
            of(&[41_000, 41_400, 41_100, 41_350, 41_010, 41_470, 41_222, 41_300])
        else {
            panic!("these are random")
        };
        assert!(range.size() < 1100 && range.contains(41_000) && range.contains(41_470), "{range:?}");
    }
}
