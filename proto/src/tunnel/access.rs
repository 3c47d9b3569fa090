//! Who may visit a share: checked before a byte of a request reaches its sharer.

use std::fmt;
use std::net::IpAddr;

use data_encoding::BASE64;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::proxy::Cidr;
use crate::id::ShareId;

/// The most networks that a share lets in.
pub const MAX_ALLOWED: usize = 64;

/// The longest Authorization that is looked at, in bytes.
const MAX_AUTHORIZATION: usize = 1024;

const LABEL: &[u8] = b"culvert/1 basic auth";

/// What a gateway knows of a share's user and password (RFC 7617): enough to recognise them.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Password([u8; 32]);

impl Password {
    /// Of `credentials`, which are `user:password`, for this share.
    pub fn new(share: &ShareId, credentials: &str) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, LABEL), &covered(share, credentials));
        let mut bytes = [0; 32];
        bytes.copy_from_slice(tag.as_ref());
        Self(bytes)
    }

    /// Whether these are the credentials. How long it takes says nothing of them.
    fn is(&self, share: &ShareId, credentials: &str) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, LABEL);
        hmac::verify(&key, &covered(share, credentials), &self.0).is_ok()
    }
}

fn covered(share: &ShareId, credentials: &str) -> Vec<u8> {
    [&share.0[..], credentials.as_bytes()].concat()
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// Who may visit a share. The default is everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    allow: Vec<Cidr>,
    password: Option<Password>,
}

/// What a gateway does with a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Lets it in.
    Allowed,
    /// Does not let this address in.
    Forbidden,
    /// Asks for user and password.
    Unauthorized {
        /// Whether a user and a password were given, and are wrong.
        guessed: bool,
    },
}

impl Access {
    /// Visitors of these networks alone, or everybody where there are none; with this password.
    pub const fn new(allow: Vec<Cidr>, password: Option<Password>) -> Self {
        Self { allow, password }
    }

    /// The networks that are let in.
    pub fn allowed(&self) -> &[Cidr] {
        &self.allow
    }

    /// Whether a password is wanted. It is meant for the gateway, and the local server does not get it.
    pub const fn wants_password(&self) -> bool {
        self.password.is_some()
    }

    /// Judges a visitor at `address` whose request has these `Authorization` fields.
    pub fn judge<'a>(
        &self,
        share: &ShareId,
        address: IpAddr,
        mut authorization: impl Iterator<Item = &'a str>,
    ) -> Admission {
        if !self.allow.is_empty() && !self.allow.iter().any(|net| net.contains(address)) {
            return Admission::Forbidden;
        }
        let Some(password) = &self.password else { return Admission::Allowed };
        match guess(&mut authorization) {
            Some(guess) if password.is(share, &guess) => Admission::Allowed,
            guess => Admission::Unauthorized { guessed: guess.is_some() },
        }
    }

    /// Whether these `Authorization` fields are a try at the password. What belongs to the local server, or to
    /// nobody, is none.
    pub fn is_tried<'a>(&self, mut authorization: impl Iterator<Item = &'a str>) -> bool {
        self.password.is_some() && guess(&mut authorization).is_some()
    }
}

/// User and password, where there is one Basic authorization and nothing else.
fn guess<'a>(authorization: &mut impl Iterator<Item = &'a str>) -> Option<String> {
    match (authorization.next(), authorization.next()) {
        (Some(field), None) => credentials(field),
        (None | Some(_), _) => None,
    }
}

/// User and password of a Basic authorization.
fn credentials(field: &str) -> Option<String> {
    let (scheme, encoded) = field.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > MAX_AUTHORIZATION {
        return None;
    }
    String::from_utf8(BASE64.decode(encoded.trim_matches(' ').as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: ShareId = ShareId([1; 8]);

    fn judge(access: &Access, address: &str, authorization: &[&str]) -> Admission {
        access.judge(&SHARE, address.parse().unwrap(), authorization.iter().copied())
    }

    #[test]
    fn everybody_is_let_in_where_nothing_is_said() {
        assert_eq!(judge(&Access::default(), "192.0.2.1", &["Bearer x"]), Admission::Allowed);
    }

    #[test]
    fn addresses_of_other_networks_are_not_let_in_whatever_they_know() {
        let nets = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let access = Access::new(nets, Some(Password::new(&SHARE, "me:secret")));
        let good = format!("Basic {}", BASE64.encode(b"me:secret"));
        assert_eq!(judge(&access, "10.1.2.3", &[&good]), Admission::Allowed);
        assert_eq!(judge(&access, "::ffff:10.1.2.3", &[&good]), Admission::Allowed);
        assert_eq!(judge(&access, "2001:db8::1", &[&good]), Admission::Allowed);
        assert_eq!(judge(&access, "11.0.0.1", &[&good]), Admission::Forbidden);
    }

    #[test]
    fn only_the_password_of_this_share_opens_it() {
        let access = Access::new(Vec::new(), Some(Password::new(&SHARE, "me:sec:ret")));
        let basic = |text: &str| format!("bAsIc {}", BASE64.encode(text.as_bytes()));
        assert_eq!(judge(&access, "::1", &[&basic("me:sec:ret")]), Admission::Allowed);
        assert_eq!(judge(&access, "::1", &[]), Admission::Unauthorized { guessed: false });
        let good = basic("me:sec:ret");
        for wrong in [basic("me:sec:re"), basic("")] {
            let wrong = [wrong.as_str()];
            assert_eq!(judge(&access, "::1", &wrong), Admission::Unauthorized { guessed: true }, "{wrong:?}");
            assert!(access.is_tried(wrong.into_iter()));
        }
        for none in
            [&[good.as_str(), &good][..], &["Basic"], &["Basic !!"], &["Bearer bWU6c2VjOnJldA=="], &[""]]
        {
            assert_eq!(judge(&access, "::1", none), Admission::Unauthorized { guessed: false }, "{none:?}");
            assert!(!access.is_tried(none.iter().copied()));
        }
        let elsewhere = ShareId([2; 8]);
        assert_ne!(Password::new(&SHARE, "a:b"), Password::new(&elsewhere, "a:b"));
        assert_eq!(format!("{access:?}"), "Access { allow: [], password: Some(Password) }");
    }
}
