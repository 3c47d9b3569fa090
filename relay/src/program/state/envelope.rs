//! The first line of a file of state: what it is, its format's version, and a checksum of both and of the rest.

/// Files of [`super::StateFile`].
pub(super) const STATE: &str = "culvert-state";

/// Files of [`super::load_or_create_secret`].
pub(super) const SECRET: &str = "culvert-secret";

const VERSION: u32 = 1;

/// Why there is nothing to be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Not as it was written.
    Damaged,
    /// As it was written, in a format we do not know.
    OtherVersion(u32),
}

pub(super) fn seal(body: &[u8], kind: &str) -> Vec<u8> {
    let mut bytes = header(body, kind, VERSION).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

pub(super) fn open<'a>(bytes: &'a [u8], kind: &str) -> Result<&'a [u8], Broken> {
    let end = bytes.iter().take(256).position(|byte| *byte == b'\n').ok_or(Broken::Damaged)?;
    let (line, body) = bytes.split_at(end + 1);
    let line = std::str::from_utf8(line).map_err(|_| Broken::Damaged)?;
    let version = line.split(' ').nth(1).and_then(|version| version.parse().ok()).ok_or(Broken::Damaged)?;
    if line != header(body, kind, version) {
        return Err(Broken::Damaged);
    }
    if version == VERSION { Ok(body) } else { Err(Broken::OtherVersion(version)) }
}

fn header(body: &[u8], kind: &str, version: u32) -> String {
    let name = format!("{kind} {version}");
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    digest.update(name.as_bytes());
    digest.update(b"\n");
    digest.update(body);
    let sum: String = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name} sha256={sum}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_damage() {
        let whole = seal(b"{\"a\": \"some text\"}\n", STATE);
        assert_eq!(open(&whole, STATE), Ok(&b"{\"a\": \"some text\"}\n"[..]));
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(open(&flipped, STATE), Err(Broken::Damaged), "bit {bit} of byte {at}");
            }
            assert_eq!(open(&whole[..at], STATE), Err(Broken::Damaged), "cut at {at}");
        }
        assert_eq!(open(&[&whole[..], b"x"].concat(), STATE), Err(Broken::Damaged));
    }

    #[test]
    fn another_version_is_not_damage_and_another_kind_is() {
        let newer = [header(b"body", STATE, 2).as_bytes(), b"body"].concat();
        assert_eq!(open(&newer, STATE), Err(Broken::OtherVersion(2)));
        assert_eq!(open(&seal(b"body", SECRET), STATE), Err(Broken::Damaged));
    }
}
