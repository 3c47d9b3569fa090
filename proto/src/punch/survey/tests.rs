use super::*;
use crate::clock::start;
use crate::stun::BindingRequest;

const SERVER: &str = "203.0.113.1:3478";
const BESIDE: &str = "203.0.113.1:3479";
const ELSEWHERE: &str = "203.0.113.2:3478";
const OBSERVED: &str = "198.51.100.7:4000";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What a survey finds that asks `alternates`, and when. `mapped` is where the server's address sees a socket with a local
/// port, if it answers; the main socket has port 4000.
fn find(
    alternates: &[&str],
    mapped: impl Fn(SocketAddr, u16) -> Option<SocketAddr>,
) -> (NatProfile, Duration) {
    let begin = start();
    let alternates: Vec<_> = alternates.iter().map(|text| addr(text)).collect();
    let mut survey = Survey::new(addr(SERVER), &alternates, addr(OBSERVED), [1; 32], begin).unwrap();
    let mut now = begin;
    loop {
        while let Some(action) = survey.poll_action() {
            match action {
                SurveyAction::Known(profile) => return (profile, now - begin),
                SurveyAction::Open(count) => {
                    let sockets: Vec<_> = (1..=count).map(|n| (LinkId(n), 5000 + n)).collect();
                    survey.handle_opened(&sockets, now);
                }
                SurveyAction::Send(CheckTransmit { path, payload, .. }) => {
                    let local = if path.link == LinkId::MAIN { 4000 } else { 5000 + path.link.0 };
                    if let Some(seen) = mapped(path.remote, local) {
                        let answer = BindingRequest::read(&payload).unwrap().answer(seen, None, None);
                        survey.handle_answer(path.link, path.remote, &answer, now);
                    }
                }
                SurveyAction::Close(_) => {}
            }
        }
        now = survey.poll_timeout().expect("there is something to wait for");
        survey.handle_timeout(now);
    }
}

fn at(port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::new(addr(OBSERVED).ip(), port))
}

/// A port that follows no rule.
const fn drawn(local: u16) -> u16 {
    20_000 + local.wrapping_mul(7919) % 40_000
}

#[test]
fn one_mapping_at_all_addresses_is_endpoint_independent() {
    for alternates in [&[BESIDE][..], &[ELSEWHERE], &[BESIDE, ELSEWHERE]] {
        let (profile, took) = find(alternates, |_, local| at(local));
        assert_eq!((profile.mapping, profile.allocation), (Dependence::EndpointIndependent, None));
        assert_eq!(took, Duration::ZERO, "{alternates:?}");
    }
}

#[test]
fn another_mapping_at_one_of_them_shows_the_allocator() {
    let (profile, took) = find(&[BESIDE, ELSEWHERE], |server, local| match local {
        4000 if server == addr(BESIDE) => at(4000),
        local => at(drawn(local)),
    });
    assert_eq!(profile.mapping, Dependence::AddressAndPortDependent);
    assert!(matches!(profile.allocation, Some(Allocation::Random { .. })), "{profile:?}");
    assert_eq!(took, Duration::ZERO);
}

#[test]
fn where_the_other_addresses_are_silent_the_main_one_shows_the_allocator() {
    let (profile, took) =
        find(&[BESIDE, ELSEWHERE], |server, local| at(drawn(local)).filter(|_| server == addr(SERVER)));
    assert!(profile.is_assumed(), "nothing shows on what it depends: {profile:?}");
    assert!(matches!(profile.allocation, Some(Allocation::Random { .. })), "{profile:?}");
    assert_eq!(took, SILENT);
    let (profile, _) = find(&[BESIDE], |server, local| at(local).filter(|_| server == addr(SERVER)));
    assert_eq!(profile.mapping, Dependence::EndpointIndependent, "a NAT that keeps the ports");
}

#[test]
fn a_silent_address_elsewhere_does_not_hide_what_the_one_beside_saw() {
    let (profile, took) =
        find(&[BESIDE, ELSEWHERE], |server, local| at(local).filter(|_| server != addr(ELSEWHERE)));
    assert_eq!((profile.mapping, took), (Dependence::EndpointIndependent, SILENT));
}

#[test]
fn an_answer_that_comes_after_the_samples_began_counts_all_the_same() {
    let now = start();
    for (elsewhere, mapping) in
        [(4000, Dependence::EndpointIndependent), (4001, Dependence::AddressAndPortDependent)]
    {
        let mut survey = Survey::new(addr(SERVER), &[addr(BESIDE)], addr(OBSERVED), [1; 32], now).unwrap();
        let Some(SurveyAction::Send(question)) = survey.poll_action() else { panic!("nothing was asked") };
        survey.handle_timeout(now + SILENT);
        let sockets: Vec<_> = (1..=SAMPLES).map(|n| (LinkId(n), 5000 + n)).collect();
        survey.handle_opened(&sockets, now + SILENT);
        let answer =
            BindingRequest::read(&question.payload).unwrap().answer(at(elsewhere).unwrap(), None, None);
        assert!(survey.handle_answer(LinkId::MAIN, addr(BESIDE), &answer, now + SILENT));
        survey.handle_timeout(now + SILENT + PATIENCE);
        let known = std::iter::from_fn(|| survey.poll_action()).find_map(|action| match action {
            SurveyAction::Known(profile) => Some(profile.mapping),
            SurveyAction::Open(_) | SurveyAction::Send(_) | SurveyAction::Close(_) => None,
        });
        assert_eq!((known, survey.poll_timeout()), (Some(mapping), None));
    }
}

#[test]
fn where_nothing_answers_nothing_is_claimed() {
    let mut now = start();
    let mut survey = Survey::new(addr(SERVER), &[addr(BESIDE)], addr(OBSERVED), [1; 32], now).unwrap();
    let mut open = 0;
    while let Some(at) = survey.poll_timeout() {
        now = at;
        survey.handle_timeout(now);
        while let Some(action) = survey.poll_action() {
            match action {
                SurveyAction::Open(count) => {
                    let sockets: Vec<_> = (1..=count).map(|n| (LinkId(n), 5000 + n)).collect();
                    survey.handle_opened(&sockets, now);
                    open += count;
                }
                SurveyAction::Close(_) => open -= 1,
                SurveyAction::Send(_) => {}
                SurveyAction::Known(profile) => panic!("{profile:?}"),
            }
        }
    }
    assert_eq!(open, 0, "every socket is closed");
}
