//! Names of shares.

use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::RngCore as _;

/// The longest name, in bytes: a DNS label (RFC 1035 §2.3.4).
pub const MAX_NAME: usize = 63;

/// A share's name: a lower-case DNS label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareName(String);

/// Why a text is not a share's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to 63 letters a-z, digits and hyphens, and no hyphen at either end")]
pub struct InvalidName;

impl ShareName {
    /// Three random words, as in `calm-otter-lamp`.
    pub fn random(rng: &mut ChaCha12Rng) -> Self {
        let mut pick = |words: &[&'static str]| words[rng.next_u32() as usize % words.len()];
        Self(format!("{}-{}-{}", pick(&QUALITIES), pick(&ANIMALS), pick(&THINGS)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ShareName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let ends = text.starts_with('-') || text.ends_with('-');
        if text.is_empty() || text.len() > MAX_NAME || !plain || ends {
            return Err(InvalidName);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ShareName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[rustfmt::skip]
const QUALITIES: [&str; 64] = [
    "amber", "ample", "bold", "brave", "bright", "brisk", "calm", "candid", "clear", "clever", "cosy", "crisp",
    "deft", "early", "easy", "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand",
    "green", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky",
    "mellow", "merry", "mild", "misty", "modest", "neat", "nimble", "noble", "open", "patient", "plain", "prompt",
    "proud", "quick", "quiet", "rapid", "ready", "royal", "rustic", "silent", "silver", "sunny", "swift", "tidy",
    "true", "vivid", "warm", "wise",
];
#[rustfmt::skip]
const ANIMALS: [&str; 64] = [
    "ant", "badger", "bat", "bear", "beaver", "bee", "bison", "bittern", "boar", "camel", "carp", "cat",
    "cod", "crab", "crane", "crow", "deer", "dove", "duck", "eagle", "eel", "egret", "elk", "falcon",
    "finch", "fox", "frog", "gecko", "goat", "goose", "gull", "hare", "hawk", "heron", "horse", "ibis",
    "jay", "koala", "lark", "lemur", "lion", "llama", "lynx", "mink", "mole", "moose", "moth", "mouse",
    "newt", "otter", "owl", "panda", "perch", "puffin", "quail", "rabbit", "raven", "robin", "seal", "swan",
    "tern", "toad", "trout", "wren",
];
#[rustfmt::skip]
const THINGS: [&str; 64] = [
    "anchor", "anvil", "apple", "arch", "arrow", "barn", "basin", "beacon", "bell", "bench", "boat", "bridge",
    "brook", "cabin", "candle", "canoe", "castle", "cedar", "cloud", "compass", "copper", "coral", "cove", "drum",
    "fern", "field", "flute", "forest", "forge", "garden", "gate", "harbor", "hill", "island", "kettle", "kite",
    "ladder", "lake", "lamp", "lantern", "maple", "meadow", "mill", "mirror", "orchard", "paddle", "pebble",
    "pillar", "pine", "pond", "quill", "reef", "ridge", "river", "saddle", "shore", "spring", "stone", "tower",
    "valley", "violin", "wheel", "willow", "window",
];

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng as _;

    #[test]
    fn random_names_are_names() {
        let mut rng = ChaCha12Rng::from_seed([1; 32]);
        for _ in 0..1000 {
            let name = ShareName::random(&mut rng);
            assert_eq!(name.as_str().parse(), Ok(name.clone()));
            assert_eq!(name.as_str().split('-').count(), 3);
        }
    }

    #[test]
    fn what_is_no_dns_label_is_no_name() {
        for text in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"a".repeat(64)] {
            assert_eq!(text.parse::<ShareName>(), Err(InvalidName), "{text}");
        }
        assert!("a".repeat(63).parse::<ShareName>().is_ok());
    }
}
