//! Peers that lack one remedy each, to show that the laboratory notices. A mutation stands between an
//! unchanged agent and its world: it alters what the agent sends, or keeps a wish of its from the shell.

use proto::candidate::{Candidate, CandidateKind};
use proto::path::{CheckTransmit, PathStats};
use proto::stun::{Preview, preview};

/// What a peer does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// Its first checks don't die on the way: they are full ones.
    SkipsThePrime,
    /// Once it has heard the other side it asks nothing more, though it still answers.
    StopsAfterTheFirstReceipt,
    /// It sends to where the other side said it would be, and not to where it was seen.
    AnswersToTheCandidate,
    /// It never opens another local port.
    NeverChangesThePort,
    /// It guesses no port, neither its own nor the other side's.
    GuessesNoPort,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::SkipsThePrime,
        Self::StopsAfterTheFirstReceipt,
        Self::AnswersToTheCandidate,
        Self::NeverChangesThePort,
        Self::GuessesNoPort,
    ];

    /// What becomes of something that the agent wants sent, where `named` are the remote's own candidates.
    pub(super) fn alter(
        self,
        mut transmit: CheckTransmit,
        stats: PathStats,
        named: &[Candidate],
    ) -> Option<CheckTransmit> {
        match self {
            Self::SkipsThePrime => transmit.ttl = None,
            Self::StopsAfterTheFirstReceipt => {
                let has_heard = stats.checks_received + stats.answers_received > 0;
                if has_heard && matches!(preview(&transmit.payload), Some(Preview::Check(_))) {
                    return None;
                }
            }
            Self::AnswersToTheCandidate => {
                let remote = transmit.path.remote;
                if !named.iter().any(|candidate| candidate.addr == remote) {
                    let mut usual =
                        named.iter().filter(|candidate| candidate.addr.is_ipv4() == remote.is_ipv4());
                    let reflexive = |candidate: &&Candidate| candidate.kind == CandidateKind::Reflexive;
                    let instead = usual.clone().find(reflexive).or_else(|| usual.next())?;
                    transmit.path.remote = instead.addr;
                }
            }
            Self::NeverChangesThePort | Self::GuessesNoPort => {}
        }
        Some(transmit)
    }
}
