use data_encoding::HEXLOWER;

use super::*;

const REMOTE: Address = Address { peer: PeerId::from_bytes([0xaa; 32]), instance: Instance([0xbb; 8]) };

fn samples() -> Vec<(Frame<'static>, String)> {
    let a = "aa".repeat(32);
    let remote = format!("{a}bbbbbbbbbbbbbbbb");
    let relay = PeerId::from_bytes([0xaa; 32]);
    let data = Data { remote: REMOTE, ecn: 2, segment: 0x05ac, packets: b"\x40packets" };
    vec![
        (Frame::Challenge(Challenge { relay, challenge: [0xcc; 32] }), format!("00{a}{}", "cc".repeat(32))),
        (
            Frame::Login(Login { from: REMOTE, signature: [0xdd; 64] }),
            format!("01{remote}{}", "dd".repeat(64)),
        ),
        (Frame::Welcome, "02".to_owned()),
        (Frame::Denied(Denial::Slow), "0306".to_owned()),
        (Frame::Data(data), format!("04{remote}0205ac407061636b657473")),
        (Frame::Check(Check { remote: REMOTE, datagram: b"stun" }), format!("05{remote}7374756e")),
        (Frame::Allow { from: REMOTE, seconds: 60 }, format!("06{remote}3c")),
        (Frame::Ping([1; 8]), format!("07{}", "01".repeat(8))),
        (Frame::Pong([2; 8]), format!("08{}", "02".repeat(8))),
        (Frame::Gone(REMOTE), format!("09{remote}")),
        (Frame::Restarting(1500), "0a05dc".to_owned()),
    ]
}

#[test]
fn the_bytes_of_every_frame_are_pinned() {
    for (frame, pin) in samples() {
        assert_eq!(HEXLOWER.encode(&frame.encode()), pin, "{frame:?}");
        assert_eq!(Frame::parse(&frame.encode()), Ok(frame));
    }
    let numbers: Vec<_> = samples().iter().map(|(frame, _)| frame.encode()[0]).collect();
    assert_eq!(numbers, (0..=10).collect::<Vec<_>>());
    assert_eq!(Frame::parse(&[11]), Err(BadFrame::UnknownKind(11)));
    assert_eq!(Denial::ALL.map(|why| why as u8), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_frame_that_ends_early_is_none() {
    for (frame, _) in samples() {
        let bytes = frame.encode();
        let payload = match frame {
            Frame::Data(data) => data.packets.len() - 1,
            Frame::Check(check) => check.datagram.len() - 1,
            Frame::Challenge(_)
            | Frame::Login(_)
            | Frame::Welcome
            | Frame::Denied(_)
            | Frame::Allow { .. }
            | Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Gone(_)
            | Frame::Restarting(_) => 0,
        };
        for len in 0..bytes.len() - payload {
            assert!(Frame::parse(&bytes[..len]).is_err(), "{frame:?} cut to {len}");
        }
    }
}

#[test]
fn bytes_behind_a_frame_of_fixed_length_are_ignored_within_the_limit() {
    for (frame, _) in samples() {
        if matches!(frame, Frame::Data(_) | Frame::Check(_)) {
            continue;
        }
        let mut bytes = frame.encode();
        bytes.extend([7, 7, 7]);
        assert_eq!(Frame::parse(&bytes), Ok(frame));
        bytes.resize(MAX_GREETING + 1, 0);
        assert_eq!(Frame::parse(&bytes), Err(BadFrame::TooLong(MAX_GREETING + 1)));
    }
}

#[test]
fn fields_over_their_limits_are_refused() {
    let parse = |frame: Frame<'_>| Frame::parse(&frame.encode()).err();
    let packets = [0; MAX_BATCH + 1];
    let data = |ecn, segment, len: usize| {
        parse(Frame::Data(Data { remote: REMOTE, ecn, segment, packets: &packets[..len] }))
    };
    let check = |len: usize| parse(Frame::Check(Check { remote: REMOTE, datagram: &packets[..len] }));
    let allow = |seconds| parse(Frame::Allow { from: REMOTE, seconds });
    assert_eq!(data(3, 1200, MAX_BATCH), None);
    assert_eq!(data(0, u16::MAX, MAX_BATCH), None);
    assert_eq!(data(0, 1, MAX_SEGMENTS), None);
    assert_eq!(data(0, 1, MAX_SEGMENTS + 1), Some(BadFrame::OutOfBounds("the number of packets")));
    assert_eq!(data(4, 1200, 1), Some(BadFrame::OutOfBounds("the ECN codepoint")));
    assert_eq!(data(0, 0, 1), Some(BadFrame::OutOfBounds("the length of a packet")));
    assert_eq!(data(0, 1200, 0), Some(BadFrame::OutOfBounds("the length of a batch")));
    assert_eq!(data(0, 1200, MAX_BATCH + 1), Some(BadFrame::TooLong(MAX_FRAME + 1)));
    assert_eq!((check(1), check(MAX_CHECK)), (None, None));
    assert_eq!(check(0), Some(BadFrame::OutOfBounds("the length of a check")));
    assert_eq!(check(MAX_CHECK + 1), Some(BadFrame::TooLong(CHECK_HEAD + MAX_CHECK + 1)));
    assert_eq!((allow(1), allow(60)), (None, None));
    assert!(allow(0).is_some() && allow(61).is_some());
    assert_eq!(Frame::parse(&[3, 8]), Err(BadFrame::OutOfBounds("the reason of a denial")));
}

#[test]
fn a_readdressed_frame_differs_in_its_address_alone() {
    let other = Address { peer: PeerId::from_bytes([1; 32]), instance: Instance([2; 8]) };
    let packets = &[9; 100];
    let mut bytes = Frame::Data(Data { remote: REMOTE, ecn: 1, segment: 50, packets }).encode();
    readdress(&mut bytes, &other);
    assert_eq!(Frame::parse(&bytes), Ok(Frame::Data(Data { remote: other, ecn: 1, segment: 50, packets })));
    readdress(&mut [], &other);
}

proptest::proptest! {
    #[test]
    fn no_bytes_break_the_parser_and_what_it_reads_it_writes(
        kind in 0_u8..13,
        rest in proptest::collection::vec(0_u8.., 0..2000),
    ) {
        let bytes = [&[kind][..], &rest].concat();
        if let Ok(frame) = Frame::parse(&bytes) {
            let written = frame.encode();
            proptest::prop_assert_eq!(&written[..], &bytes[..written.len()]);
        }
    }
}
