//! Which names may be asked for, and which are given to those who ask for none.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::RngCore as _;

use crate::name::{MAX_NAME, ShareName};

/// The shortest name that can be asked for.
const MIN_ASKED: usize = 4;

/// Names that nobody gets: the server's own paths, hosts that programs take for something else, and words
/// that some code confuses with its own.
#[rustfmt::skip]
const RESERVED: [&str; 52] = [
    "abuse", "account", "accounts", "admin", "administrator", "alpha", "api", "apex", "assets", "auth", "autoconfig",
    "autodiscover", "beta", "billing", "broadcasthost", "cdn", "constructor", "culvert", "dashboard", "docs", "email",
    "gateway", "health", "healthz", "help", "host", "hostmaster", "imap", "isatap", "localdomain", "localhost", "login",
    "mail", "metrics", "mta-sts", "postmaster", "proto", "readyz", "register", "relay", "rendezvous", "root", "security",
    "smtp", "ssladmin", "static", "status", "stun", "support", "turn", "wpad", "www",
];

/// Letters and digits that are not mistaken for each other.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Why a name is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotForYou {
    /// It is none, or shorter than a name that can be asked for.
    #[error("Invalid subdomain. Subdomains must be lowercase and between 4 and 63 alphanumeric characters.")]
    Invalid,
    /// It is reserved.
    #[error("This subdomain is reserved. Ask for another one.")]
    Reserved,
}

/// The name that is asked for.
///
/// # Errors
/// It can't be had by anybody.
pub fn asked_for(text: &str) -> Result<ShareName, NotForYou> {
    let name: ShareName = text.parse().map_err(|_| NotForYou::Invalid)?;
    if is_reserved(&name) {
        return Err(NotForYou::Reserved);
    }
    // An international name (RFC 5890) may look like another one.
    if text.len() < MIN_ASKED || text.len() > MAX_NAME || text.starts_with("xn--") {
        return Err(NotForYou::Invalid);
    }
    Ok(name)
}

/// Whether a key can claim the name.
///
/// # Errors
/// Nobody can have it.
pub fn claimable(name: &ShareName) -> Result<(), NotForYou> {
    if is_reserved(name) {
        return Err(NotForYou::Reserved);
    }
    if name.as_str().starts_with("xn--") { Err(NotForYou::Invalid) } else { Ok(()) }
}

/// Whether nobody gets this name.
pub fn is_reserved(name: &ShareName) -> bool {
    RESERVED.contains(&name.as_str())
}

/// A name for somebody who asked for none. It has 53 random bits: whoever is not told it does not find it.
pub fn unguessable(rng: &mut ChaCha12Rng) -> ShareName {
    loop {
        let mut text = ShareName::random(rng).to_string();
        text.push('-');
        for _ in 0..7 {
            let letter = ALPHABET.get(rng.next_u32() as usize % ALPHABET.len()).copied().unwrap_or(b'a');
            text.push(char::from(letter));
        }
        if let Ok(name) = text.parse() {
            return name;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn names_are_lower_case_labels_of_four_characters_or_more() {
        for name in ["forwstest", "a-bcd", "1234", "a--b", &"a".repeat(63)] {
            assert_eq!(asked_for(name).unwrap().as_str(), name);
        }
        for name in [
            "",
            "abc",
            "Forws",
            "-abcd",
            "abcd-",
            "a.bcd",
            "a_bcd",
            "bücher",
            "xn--bcher-kva",
            &"a".repeat(64),
        ] {
            assert_eq!(asked_for(name), Err(NotForYou::Invalid), "{name}");
        }
        for name in ["constructor", "relay", "api", "www"] {
            assert_eq!(asked_for(name), Err(NotForYou::Reserved), "{name}");
        }
    }

    #[test]
    fn random_names_differ_and_could_be_asked_for() {
        let mut rng = ChaCha12Rng::from_seed([3; 32]);
        let names: BTreeSet<_> = (0..2000).map(|_| unguessable(&mut rng)).collect();
        assert_eq!(names.len(), 2000);
        assert!(names.iter().all(|name| asked_for(name.as_str()).is_ok()));
    }
}
