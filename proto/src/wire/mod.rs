//! Messages: postcard inside a length-prefixed frame, one file per conversation.
//!
//! `docs/PROTOCOL.md` draws the bytes; the tests of each file pin them.

use serde::Serialize;
use serde::de::DeserializeOwned;

pub mod gateway;
pub mod peer;
pub mod relay;
pub mod session;
pub mod signal;

/// The version that every first message of a conversation names.
pub const VERSION: u8 = 1;

/// The largest frame body, in bytes. An offer with eight candidates and a relay is under 700.
pub const MAX_FRAME: usize = 4096;

/// Why bytes are not the message that they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The frame's length field is over [`MAX_FRAME`].
    #[error("a frame of {0} bytes is over the limit of {MAX_FRAME}")]
    TooLong(usize),
    /// The body is not the postcard form of the expected message.
    #[error("a frame does not hold the expected message")]
    Undecodable,
    /// The message decoded, and a field of it breaks a limit.
    #[error("{0} is out of bounds")]
    OutOfBounds(&'static str),
}

/// A message whose fields have limits beyond their types.
pub trait Bounded {
    /// Checks the limits.
    ///
    /// # Errors
    /// [`Malformed::OutOfBounds`] with the first field that breaks one.
    fn check_bounds(&self) -> Result<(), Malformed>;
}

/// The message as one frame: its length in two bytes, big-endian, then postcard.
pub fn frame<T: Serialize>(message: &T) -> Vec<u8> {
    let body = body(message);
    debug_assert!(body.len() <= MAX_FRAME, "our own messages keep the limit");
    let mut bytes = Vec::with_capacity(2 + body.len());
    bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// The message's postcard form, unframed: what MACs are computed over.
pub fn body<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_allocvec(message).expect("serialising to memory has no way to fail")
}

/// Reads one message from a frame's body. Bytes behind it are ignored, so that a later minor version
/// can append fields.
///
/// # Errors
/// [`Malformed`] when the bytes are another message, or one that breaks a limit.
pub fn parse<T: DeserializeOwned + Bounded>(body: &[u8]) -> Result<T, Malformed> {
    if body.len() > MAX_FRAME {
        return Err(Malformed::TooLong(body.len()));
    }
    let (message, _rest) = postcard::take_from_bytes::<T>(body).map_err(|_| Malformed::Undecodable)?;
    message.check_bounds()?;
    Ok(message)
}

/// For a field that was appended to a message: absent, it is no bytes at all, and where the bytes end before it,
/// or are none of it, it is absent.
pub(crate) mod tail {
    use serde::de::{Deserialize, Deserializer};
    use serde::ser::{Serialize, Serializer};

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_unit(),
        }
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        Ok(T::deserialize(deserializer).ok())
    }
}

/// Cuts a byte stream into frame bodies.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: Vec<u8>,
}

impl Deframer {
    /// Takes what arrived. The buffer never holds more than one read beyond one frame, as long as
    /// [`Self::next_frame`] is called until it answers `None`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame's body, if it is here.
    ///
    /// # Errors
    /// [`Malformed::TooLong`]: the stream is beyond repair.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        let Some(head) = self.buffer.first_chunk::<2>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*head));
        if length > MAX_FRAME {
            return Err(Malformed::TooLong(length));
        }
        if self.buffer.len() < 2 + length {
            return Ok(None);
        }
        let rest = self.buffer.split_off(2 + length);
        let mut whole = std::mem::replace(&mut self.buffer, rest);
        Ok(Some(whole.split_off(2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Small(u8, String);

    impl Bounded for Small {
        fn check_bounds(&self) -> Result<(), Malformed> {
            if self.1.len() > 3 { Err(Malformed::OutOfBounds("text")) } else { Ok(()) }
        }
    }

    #[test]
    fn a_frame_is_a_length_and_a_body() {
        assert_eq!(frame(&Small(7, "ab".into())), [0, 4, 7, 2, b'a', b'b']);
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let mut bytes = frame(&Small(1, "a".into()));
        bytes.extend(frame(&Small(2, "bc".into())));
        let mut deframer = Deframer::default();
        let mut seen = Vec::new();
        for byte in bytes {
            deframer.push(&[byte]);
            while let Some(body) = deframer.next_frame().unwrap() {
                seen.push(parse::<Small>(&body).unwrap());
            }
        }
        assert_eq!(seen, [Small(1, "a".into()), Small(2, "bc".into())]);
    }

    #[test]
    fn an_oversized_frame_is_refused_before_it_is_buffered() {
        let mut deframer = Deframer::default();
        deframer.push(&[0xff, 0xff]);
        assert_eq!(deframer.next_frame(), Err(Malformed::TooLong(65535)));
    }

    #[test]
    fn a_field_over_its_limit_is_refused() {
        let bytes = body(&Small(0, "abcd".into()));
        assert_eq!(parse::<Small>(&bytes), Err(Malformed::OutOfBounds("text")));
    }

    #[test]
    fn appended_fields_are_ignored() {
        let mut bytes = body(&Small(0, "abc".into()));
        bytes.extend([1, 2, 3]);
        assert!(parse::<Small>(&bytes).is_ok());
    }
}
