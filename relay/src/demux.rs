//! Who a datagram on the shared UDP port is for, by its first bytes (RFC 9443 §3).
//!
//! STUN and QUIC can't be confused while every endpoint refuses QUIC's bit greasing
//! ([`crate::quic::endpoint_config`]): each QUIC packet then has the fixed bit 0x40 set.

use quinn::udp::RecvMeta;

/// The magic cookie at offset 4 of every STUN message (RFC 8489 §5).
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// The size of a STUN message without attributes (RFC 8489 §5).
const STUN_HEADER: usize = 20;

/// What a datagram is, as far as its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A STUN message.
    Stun,
    /// A QUIC packet, with a long header or a short one.
    Quic,
    /// Neither.
    Other,
}

/// Tells what `datagram` is.
pub fn classify(datagram: &[u8]) -> Class {
    match datagram {
        [0..=3, ..] if datagram.len() >= STUN_HEADER && datagram[4..8] == MAGIC_COOKIE => Class::Stun,
        [64..=255, ..] => Class::Quic,
        _ => Class::Other,
    }
}

/// Takes what is not QUIC out of a receive buffer.
///
/// The kernel may coalesce datagrams of one sender, equal in size but for a shorter last one, into one buffer
/// of `meta.len` bytes, `meta.stride` each, whatever protocol they are. `f` sees each datagram that is not
/// QUIC; the others are moved together in place, in their order, and `meta.len` is what they take. 0 means
/// that none is left, and quinn skips such a buffer. A `meta` that doesn't fit its buffer leaves nothing.
pub fn split(buf: &mut [u8], meta: &mut RecvMeta, mut f: impl FnMut(Class, &[u8])) {
    if meta.len > buf.len() || meta.stride == 0 {
        meta.len = 0;
        return;
    }
    let mut kept = 0;
    let mut start = 0;
    while start < meta.len {
        let end = meta.len.min(start + meta.stride);
        match classify(&buf[start..end]) {
            Class::Quic => {
                if kept != start {
                    buf.copy_within(start..end, kept);
                }
                kept += end - start;
            }
            class @ (Class::Stun | Class::Other) => f(class, &buf[start..end]),
        }
        start = end;
    }
    meta.len = kept;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stun(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[4..8].copy_from_slice(&MAGIC_COOKIE);
        bytes
    }

    fn meta(len: usize, stride: usize) -> RecvMeta {
        RecvMeta { len, stride, ..RecvMeta::default() }
    }

    #[test]
    fn the_first_bytes_tell_stun_from_quic() {
        assert_eq!(classify(&stun(20)), Class::Stun);
        assert_eq!(classify(&[0x40]), Class::Quic);
        assert_eq!(classify(&[0xff; 1200]), Class::Quic);
    }

    #[test]
    fn a_stun_message_has_its_whole_header_and_its_cookie() {
        assert_eq!(classify(&stun(20)[..19]), Class::Other);
        assert_eq!(classify(&[0; 20]), Class::Other);
        let mut channel_data = stun(20);
        channel_data[0] = 0x3f;
        assert_eq!(classify(&channel_data), Class::Other);
        assert_eq!(classify(&[]), Class::Other);
    }

    #[test]
    fn a_buffer_that_belies_its_meta_is_emptied() {
        let mut too_long = meta(9, 9);
        split(&mut [0xc0; 8], &mut too_long, |_, _| panic!("nothing to hand out"));
        assert_eq!(too_long.len, 0);
        let mut no_stride = meta(8, 0);
        split(&mut [0xc0; 8], &mut no_stride, |_, _| panic!("nothing to hand out"));
        assert_eq!(no_stride.len, 0);
    }

    /// A datagram of the given class and size, recognisable by its number.
    fn datagram(class: Class, number: u8, len: usize) -> Vec<u8> {
        let mut bytes = match class {
            Class::Stun => stun(len),
            Class::Quic => vec![0x40; len],
            Class::Other => vec![0x10; len],
        };
        bytes[len - 1] = number;
        bytes
    }

    fn any_class() -> impl Strategy<Value = Class> {
        prop_oneof![Just(Class::Stun), Just(Class::Quic), Just(Class::Other)]
    }

    proptest! {
        #[test]
        fn every_datagram_of_a_batch_goes_its_own_way(
            classes in prop::collection::vec(any_class(), 0..20),
            stride in 40_usize..80,
            tail in 20_usize..80,
        ) {
            let last = classes.len().saturating_sub(1);
            let batch: Vec<(Class, Vec<u8>)> = (0_u8..)
                .zip(&classes)
                .map(|(n, &class)| {
                    let len = if usize::from(n) == last { tail.min(stride) } else { stride };
                    (class, datagram(class, n, len))
                })
                .collect();
            let of = |quic: bool| batch.iter().filter(move |(c, _)| (*c == Class::Quic) == quic).cloned();

            let mut buf: Vec<u8> = batch.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            let mut meta = meta(buf.len(), stride);
            // What the kernel did not write is not looked at.
            buf.extend_from_slice(&[0x40; 7]);
            let mut handed_out = Vec::new();
            split(&mut buf, &mut meta, |class, bytes| handed_out.push((class, bytes.to_vec())));

            prop_assert_eq!(handed_out, of(false).collect::<Vec<_>>());
            let kept: Vec<Vec<u8>> = buf[..meta.len].chunks(stride).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(kept, of(true).map(|(_, bytes)| bytes).collect::<Vec<_>>());
        }
    }
}
