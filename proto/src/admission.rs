//! Who may register at a server.

use std::collections::BTreeSet;
use std::fmt;

use ring::hmac;

use crate::id::PeerId;

const LABEL: &[u8] = b"culvert/1 admission token";

/// Who may register. The default is anybody; else whoever brings the token, or is named.
#[derive(Clone, Default)]
pub struct Admission {
    /// What recognises the token, and is not it.
    token: Option<[u8; 32]>,
    allow: BTreeSet<PeerId>,
}

impl Admission {
    /// Those who bring this token, and these identities.
    pub fn new(token: Option<&str>, allow: impl IntoIterator<Item = PeerId>) -> Self {
        let token = token.map(|token| {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(hmac::sign(&key(), token.as_bytes()).as_ref());
            bytes
        });
        Self { token, allow: allow.into_iter().collect() }
    }

    /// Whether this identity may register, with what it brought. How long it takes says nothing of the token.
    pub fn admits(&self, peer: &PeerId, token: Option<&str>) -> bool {
        let brought = match (&self.token, token) {
            (Some(known), Some(token)) => hmac::verify(&key(), token.as_bytes(), known).is_ok(),
            (Some(_) | None, None) | (None, Some(_)) => false,
        };
        !self.is_private() || brought || self.allow.contains(peer)
    }

    /// Whether not everybody may.
    pub fn is_private(&self) -> bool {
        self.token.is_some() || !self.allow.is_empty()
    }
}

fn key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, LABEL)
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = if self.token.is_some() { "a token" } else { "no token" };
        f.debug_struct("Admission").field("token", &token).field("allow", &self.allow).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_server_admits_whoever_has_the_token_or_is_named() {
        let (one, two) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let open = Admission::default();
        assert!(open.admits(&one, None) && open.admits(&one, Some("x")) && !open.is_private());
        let by_token = Admission::new(Some("secret"), []);
        assert!(by_token.admits(&one, Some("secret")));
        assert!(!by_token.admits(&one, Some("secre")) && !by_token.admits(&one, None));
        let by_name = Admission::new(None, [one]);
        assert!(by_name.admits(&one, None) && !by_name.admits(&two, None) && !by_name.admits(&two, Some("")));
        let both = Admission::new(Some("secret"), [one]);
        assert!(both.admits(&one, None) && both.admits(&two, Some("secret")) && !both.admits(&two, None));
        assert!(!format!("{both:?}").contains("secret"));
    }
}
