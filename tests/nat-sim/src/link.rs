//! One direction of a wire: delay, jitter, loss, reordering, duplicates, a rate with a queue, an MTU.
//!
//! Packets keep their order unless they are drawn to be overtaken. The same type serves virtual worlds and
//! real ones: it is asked when a packet of so many bytes would arrive, and never holds one.

use std::time::{Duration, Instant};

use crate::dice::Dice;

/// How packets get lost by chance.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Loss {
    /// They don't.
    #[default]
    None,
    /// Each with this probability, independently.
    Uniform(f64),
    /// In bursts, by Gilbert and Elliott: a good and a bad state, changed or not before each packet.
    Bursty {
        /// Probability per packet of leaving the good state.
        to_bad: f64,
        /// Probability per packet of leaving the bad state.
        to_good: f64,
        /// Loss in the good state.
        good: f64,
        /// Loss in the bad state.
        bad: f64,
    },
}

/// What one direction of a wire is like. The default is perfect: nothing is lost, late or too big.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Least time that a packet takes.
    pub delay: Duration,
    /// Most time that is added to it, uniformly.
    pub jitter: Duration,
    /// Loss by chance.
    pub loss: Loss,
    /// Probability that a packet is held back for `held_back`, while those behind it pass.
    pub reorder: f64,
    /// For how long.
    pub held_back: Duration,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Bytes per second; none for no limit.
    pub rate: Option<u64>,
    /// Bytes that may wait for the rate; a packet that finds more is dropped. Without a rate nothing waits.
    pub queue: u64,
    /// Largest IP packet, in bytes; larger ones are dropped.
    pub mtu: usize,
}

impl Quality {
    /// Perfect but for its delay.
    #[must_use]
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// Whether it changes nothing at all.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Quality {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Loss::None,
            reorder: 0.0,
            held_back: Duration::from_millis(10),
            duplicate: 0.0,
            rate: None,
            queue: 64 * 1024,
            mtu: 65_535,
        }
    }
}

/// Why a wire dropped a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cut {
    /// By chance.
    Lost,
    /// The queue was full.
    QueueFull,
    /// It was larger than the MTU.
    TooBig,
}

/// When a packet comes out of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// The packet.
    pub at: Instant,
    /// Its duplicate, if there is one.
    pub again: Option<Instant>,
}

/// One direction of a wire.
#[derive(Debug, Clone)]
pub struct Link {
    quality: Quality,
    dice: Dice,
    in_bad_state: bool,
    /// When the last byte accepted so far has left for the wire.
    drained: Option<Instant>,
    /// When the last packet in order comes out.
    latest: Option<Instant>,
}

impl Link {
    /// A wire of this quality.
    #[must_use]
    pub fn new(quality: Quality, dice: Dice) -> Self {
        Self { quality, dice, in_bad_state: false, drained: None, latest: None }
    }

    /// What it is like.
    #[must_use]
    pub fn quality(&self) -> &Quality {
        &self.quality
    }

    /// Makes it another wire, as a change of weather does. Packets on their way are not touched.
    pub fn set_quality(&mut self, quality: Quality) {
        self.quality = quality;
    }

    /// When an IP packet of `bytes`, put in at `now`, comes out. `now` must not go back between calls.
    ///
    /// # Errors
    /// The reason, when it doesn't come out.
    pub fn pass(&mut self, bytes: usize, now: Instant) -> Result<Passage, Cut> {
        if bytes > self.quality.mtu {
            return Err(Cut::TooBig);
        }
        let sent = self.queue(bytes, now)?;
        if self.loses() {
            return Err(Cut::Lost);
        }
        let at = self.arrival(sent);
        let again = self.dice.chance(self.quality.duplicate).then(|| self.arrival(sent));
        Ok(Passage { at, again })
    }

    /// When the packet has left for the wire, behind those that wait.
    fn queue(&mut self, bytes: usize, now: Instant) -> Result<Instant, Cut> {
        let Some(rate) = self.quality.rate else { return Ok(now) };
        let rate = rate.max(1);
        let start = self.drained.map_or(now, |drained| drained.max(now));
        let waiting = start.saturating_duration_since(now).as_nanos() * u128::from(rate) / 1_000_000_000;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if waiting + u128::from(bytes) > u128::from(self.quality.queue) {
            return Err(Cut::QueueFull);
        }
        let drained = start + Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        self.drained = Some(drained);
        Ok(drained)
    }

    fn loses(&mut self) -> bool {
        match self.quality.loss {
            Loss::None => false,
            Loss::Uniform(p) => self.dice.chance(p),
            Loss::Bursty { to_bad, to_good, good, bad } => {
                let turn = if self.in_bad_state { to_good } else { to_bad };
                self.in_bad_state ^= self.dice.chance(turn);
                self.dice.chance(if self.in_bad_state { bad } else { good })
            }
        }
    }

    fn arrival(&mut self, sent: Instant) -> Instant {
        let at = sent + self.quality.delay + self.dice.up_to(self.quality.jitter);
        if self.dice.chance(self.quality.reorder) {
            return at + self.quality.held_back;
        }
        let at = self.latest.map_or(at, |latest| latest.max(at));
        self.latest = Some(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn link(quality: Quality) -> Link {
        Link::new(quality, Dice::new(5, 0))
    }

    /// Outcomes of `count` packets of 100 bytes, `gap` apart.
    fn run(quality: Quality, count: u32, gap: Duration) -> Vec<Result<Duration, Cut>> {
        let start = Instant::now();
        let mut link = link(quality);
        let pass = |n| link.pass(100, start + gap * n).map(|passage| passage.at - start);
        (0..count).map(pass).collect()
    }

    #[test]
    fn a_perfect_wire_takes_its_delay_and_no_more() {
        assert_eq!(run(Quality::delayed(20 * MS), 2, MS), [Ok(20 * MS), Ok(21 * MS)]);
        assert!(Quality::default().is_perfect());
    }

    #[test]
    fn jitter_spreads_arrivals_and_keeps_their_order() {
        let quality = Quality { jitter: 50 * MS, ..Quality::delayed(10 * MS) };
        let arrivals: Vec<Duration> = run(quality, 1_000, MS).into_iter().map(Result::unwrap).collect();
        assert!(arrivals.windows(2).all(|pair| pair[0] <= pair[1]));
        let took: Vec<Duration> = arrivals.iter().zip(0..).map(|(at, n)| *at - MS * n).collect();
        assert!(took.iter().all(|took| (10 * MS..=60 * MS).contains(took)));
        assert!(took.iter().any(|took| *took < 40 * MS) && took.iter().any(|took| *took > 55 * MS));
    }

    #[test]
    fn a_packet_that_is_held_back_is_overtaken() {
        let quality = Quality { reorder: 0.1, held_back: 5 * MS, ..Quality::delayed(MS) };
        let arrivals: Vec<Duration> = run(quality, 1_000, MS).into_iter().map(Result::unwrap).collect();
        let overtaken = arrivals.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!((60..140).contains(&overtaken), "{overtaken} of 1000 at 10 %");
    }

    #[test]
    fn uniform_loss_has_its_rate_and_bursty_loss_comes_in_runs() {
        let lost = |quality| run(quality, 200_000, MS).iter().map(Result::is_err).collect::<Vec<_>>();
        let uniform = lost(Quality { loss: Loss::Uniform(0.05), ..Quality::default() });
        let loss = Loss::Bursty { to_bad: 0.01, to_good: 0.19, good: 0.0, bad: 1.0 };
        let bursty = lost(Quality { loss, ..Quality::default() });
        let count = |lost: &[bool]| lost.iter().filter(|lost| **lost).count();
        let pairs = |lost: &[bool]| lost.windows(2).filter(|pair| pair[0] && pair[1]).count();
        assert!((9_600..10_400).contains(&count(&uniform)), "{}", count(&uniform));
        assert!((8_800..11_200).contains(&count(&bursty)), "{}", count(&bursty));
        assert!(pairs(&bursty) > 8 * pairs(&uniform), "{} against {}", pairs(&bursty), pairs(&uniform));
    }

    #[test]
    fn a_rate_queues_packets_and_drops_what_the_queue_has_no_room_for() {
        let quality = Quality { rate: Some(100_000), queue: 300, ..Quality::default() };
        let burst = run(quality, 5, Duration::ZERO);
        assert_eq!(burst, [Ok(MS), Ok(2 * MS), Ok(3 * MS), Err(Cut::QueueFull), Err(Cut::QueueFull)]);
        assert!(run(quality, 50, MS).iter().all(Result::is_ok), "at its rate it drops nothing");
    }

    #[test]
    fn duplicates_arrive_and_too_big_packets_do_not() {
        let start = Instant::now();
        let mut link = link(Quality { duplicate: 1.0, mtu: 1_280, ..Quality::default() });
        assert!(link.pass(1_280, start).unwrap().again.is_some());
        assert_eq!(link.pass(1_281, start), Err(Cut::TooBig));
    }
}
