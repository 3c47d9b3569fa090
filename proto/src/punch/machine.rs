//! **Punch**: the strategies for hard NATs, for one exchange.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::bracket::Bracket;
use super::context::{Context, PunchAction};
use super::scatter::Scatter;
use super::search::{AIMED, Opening, Seeking};
use super::spare::Spare;
use super::volley::Volley;
use super::{Method, method};
use crate::candidate::{Scope, canonical, scope};
use crate::machine::earliest;
use crate::nat::NatProfile;
use crate::path::LinkId;

/// How long the plain ways have for themselves, before a port is guessed and before anything is said of a NAT that
/// keeps its ports.
const PLAIN: Duration = Duration::from_millis(150);

/// How long the remote has from then on to tell of its NAT. One that knows nothing of this never does.
const SILENT: Duration = Duration::from_millis(450);

/// How long the plain ways have before they are given up where nothing helps, if one of the NATs is only assumed to give
/// each remote endpoint another port: two attempts.
const ASSUMED: Duration = Duration::from_secs(3);

#[derive(Debug)]
enum State {
    /// Nothing to do yet, or ever.
    Waiting,
    Bracket(Bracket),
    Volley(Volley),
    Opening(Opening),
    Seeking(Seeking),
    Scatter(Scatter),
    Over,
}

/// What is known of both NATs as an exchange begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// Ours.
    pub ours: Option<NatProfile>,
    /// What the remote was told of ours with our offer or answer.
    pub told: Option<NatProfile>,
    /// What it told of its own with its answer or offer.
    pub theirs: Option<NatProfile>,
}

/// The machine.
#[derive(Debug)]
pub struct Punch {
    context: Context,
    ours: Option<NatProfile>,
    /// With the round that it was told for: 0 where it is no more than what was known.
    theirs: Option<(NatProfile, u8)>,
    began: Instant,
    /// When the plain ways have had their time.
    begins: Instant,
    is_plain_over: bool,
    has_told: bool,
    has_given_up: bool,
    /// Whether this process may search: it does so for one remote at a time.
    may_search: bool,
    /// A socket to search from.
    spare: Option<Spare>,
    state: State,
}

impl Punch {
    /// For the exchange that `probe` is a check of ([`crate::path::PathAgent::probe`]), with a remote that the
    /// server sees at `remote`. `None` where that is no address of a NAT's.
    pub fn new(
        probe: Vec<u8>,
        server: SocketAddr,
        remote: SocketAddr,
        known: Known,
        seed: [u8; 32],
        now: Instant,
    ) -> Option<Self> {
        let (server, remote) = (canonical(server), canonical(remote));
        if !remote.is_ipv4() || !server.is_ipv4() || scope(remote) != Scope::Global {
            return None;
        }
        let rng = ChaCha12Rng::from_seed(seed);
        let mut punch = Self {
            context: Context { probe, server, remote, rng, actions: VecDeque::new(), owned: BTreeSet::new() },
            ours: known.ours,
            theirs: known.theirs.map(|theirs| (theirs, 0)),
            began: now,
            begins: now + PLAIN,
            is_plain_over: false,
            has_told: known.told.is_some() && known.told == known.ours,
            has_given_up: false,
            may_search: false,
            spare: None,
            state: State::Waiting,
        };
        punch.begin(now);
        Some(punch)
    }

    /// What [`super::Survey`] found out.
    pub fn handle_profile(&mut self, ours: NatProfile, now: Instant) {
        self.ours.get_or_insert(ours);
        self.begin(now);
    }

    /// What the remote told of its NAT, and for which round.
    pub fn handle_told(&mut self, theirs: NatProfile, round: u8, now: Instant) {
        self.theirs = Some((theirs, round));
        match &mut self.state {
            State::Volley(volley) => volley.handle_told(theirs.latest, round, &mut self.context),
            State::Scatter(scatter) if round > 0 => scatter.handle_told(now),
            State::Opening(opening) => {
                if let Some(port) = searched_from(&theirs, round) {
                    opening.aim(port);
                }
            }
            State::Waiting | State::Bracket(_) => self.begin(now),
            State::Scatter(_) | State::Seeking(_) | State::Over => {}
        }
    }

    /// Sockets that were asked for, as many as there are.
    pub fn handle_opened(&mut self, links: &[LinkId], now: Instant) {
        self.context.owned.extend(links);
        if let Some(spare) = self.spare.as_mut().filter(|spare| spare.awaits_socket()) {
            return spare.handle_opened(links, &mut self.context, now);
        }
        match &mut self.state {
            State::Bracket(bracket) => bracket.handle_opened(links, &mut self.context, now),
            State::Volley(volley) => volley.handle_opened(links, &mut self.context, now),
            State::Opening(opening) => opening.handle_opened(links, now),
            State::Scatter(scatter) => scatter.handle_opened(links, now),
            State::Waiting | State::Seeking(_) | State::Over => self.context.close_all(),
        }
    }

    /// Whether it was an answer of the server's to one of these sockets.
    pub fn handle_answer(&mut self, link: LinkId, from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        if canonical(from) != self.context.server || !self.owns(link) {
            return false;
        }
        if let (Some(spare), Some(ours)) = (&mut self.spare, self.ours)
            && spare.handle_answer(link, datagram, ours, &mut self.context)
        {
            return true;
        }
        match (&mut self.state, &mut self.ours) {
            (State::Bracket(bracket), _) => bracket.handle_answer(link, datagram, &mut self.context),
            (State::Volley(volley), Some(ours)) => {
                volley.handle_answer(link, datagram, ours, &mut self.context, now)
            }
            (State::Volley(_), None)
            | (State::Waiting | State::Opening(_) | State::Seeking(_) | State::Scatter(_) | State::Over, _) => {
                false
            }
        }
    }

    /// Whether a socket is one of these.
    pub fn owns(&self, link: LinkId) -> bool {
        self.context.owned.contains(&link)
    }

    /// The remote was heard on one of these sockets: it is a link of the agent's from here on.
    pub fn release(&mut self, link: LinkId) {
        self.context.owned.remove(&link);
    }

    /// There is a path, or the exchange is over: every socket that is still open is closed.
    pub fn stop(&mut self) {
        (self.state, self.spare) = (State::Over, None);
        self.context.close_all();
    }

    /// Whether it is about to search, which one exchange of a process may do at a time:
    /// see [`Self::begin_search`].
    pub fn wants_to_search(&self, now: Instant) -> bool {
        !self.may_search && self.begins <= now && matches!(self.state, State::Waiting) && self.is_search()
    }

    /// It may.
    pub fn begin_search(&mut self, now: Instant) {
        self.may_search = true;
        self.begin(now);
    }

    /// Whether it searches.
    pub const fn is_searching(&self) -> bool {
        self.may_search && !matches!(self.state, State::Waiting | State::Over)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.begin(now);
        if let Some(spare) = &mut self.spare {
            spare.handle_timeout(&mut self.context, now);
        }
        let is_over = match (&mut self.state, &self.ours) {
            (State::Bracket(bracket), _) => bracket.handle_timeout(&mut self.context, now),
            (State::Volley(volley), _) => volley.handle_timeout(&mut self.context, now),
            (State::Opening(opening), Some(ours)) => opening.handle_timeout(ours, &mut self.context, now),
            (State::Seeking(seeking), _) => seeking.handle_timeout(&mut self.context, now),
            (State::Scatter(scatter), Some(ours)) => scatter.handle_timeout(ours, &mut self.context, now),
            (State::Opening(_) | State::Scatter(_), None) | (State::Waiting | State::Over, _) => false,
        };
        if is_over {
            self.stop();
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = match &self.state {
            State::Waiting | State::Over => None,
            State::Bracket(bracket) => bracket.poll_timeout(),
            State::Volley(volley) => volley.poll_timeout(),
            State::Opening(opening) => Some(opening.poll_timeout()),
            State::Seeking(seeking) => Some(seeking.poll_timeout()),
            State::Scatter(scatter) => Some(scatter.poll_timeout()),
        };
        let due = match (&self.state, self.method()) {
            (State::Over, _) | (_, None) => None,
            (_, Some(Method::Hopeless)) if self.has_given_up || self.is_searching() => None,
            (_, Some(Method::Hopeless)) => Some(self.gives_up_at()),
            _ if !self.is_plain_over => Some(self.begins),
            (State::Waiting, Some(Method::Bracket { .. })) => Some(self.begins + SILENT),
            _ => None,
        };
        earliest(earliest(next, due), self.spare.as_ref().and_then(Spare::poll_timeout))
    }

    /// What the shell must do next.
    pub fn poll_action(&mut self) -> Option<PunchAction> {
        self.context.actions.pop_front()
    }

    fn method(&self) -> Option<Method> {
        Some(method(self.ours.as_ref()?, self.theirs.as_ref().map(|(theirs, _)| theirs)))
    }

    fn is_search(&self) -> bool {
        let is_open = self.theirs.is_some_and(|(_, round)| round > 0);
        match self.method() {
            Some(Method::Open | Method::Scatter { .. }) => true,
            Some(Method::Seek { .. }) => is_open,
            Some(Method::Plain | Method::Bracket { .. } | Method::Volley { .. } | Method::Hopeless)
            | None => false,
        }
    }

    /// Tells what is known, and begins what that calls for.
    fn begin(&mut self, now: Instant) {
        let (Some(ours), Some(method)) = (self.ours, self.method()) else { return };
        if matches!(self.state, State::Over) {
            return;
        }
        if self.is_searching() {
            // What is under way is brought to its end, whatever is told meanwhile.
            return;
        }
        let is_hard = ours.is_symmetric() || self.theirs.is_some_and(|(theirs, _)| theirs.is_symmetric());
        if !self.has_told && (is_hard || now >= self.begins) {
            self.has_told = true;
            self.context.actions.push_back(PunchAction::Tell(ours, 0));
        }
        if method == Method::Hopeless {
            if now >= self.gives_up_at() {
                self.give_up();
            }
            return;
        }
        self.has_given_up = false;
        let is_first_told = self.theirs.is_some_and(|(_, round)| round == 0);
        if is_first_told && self.spare.is_none() && matches!(method, Method::Seek { .. }) {
            self.spare = Some(Spare::new(&mut self.context));
        }
        self.is_plain_over |= now >= self.begins;
        if !self.is_plain_over || !self.may_begin(method, now) {
            return;
        }
        let context = &mut self.context;
        self.state = match method {
            Method::Bracket { step } => State::Bracket(Bracket::new(step, now)),
            Method::Volley { step } => {
                context.close_all();
                let mut volley = Volley::new(step, context, now);
                if let Some((theirs, round)) = self.theirs {
                    volley.handle_told(theirs.latest, round, context);
                }
                State::Volley(volley)
            }
            Method::Open => {
                let aim = self.theirs.and_then(|(theirs, round)| searched_from(&theirs, round));
                State::Opening(Opening::new(aim, context, now))
            }
            Method::Seek { range } => {
                let is_aimed = self.theirs.is_some_and(|(_, round)| round >= AIMED);
                let spare = self.spare.take().and_then(|spare| spare.told()).filter(|_| is_aimed);
                if spare.is_none() {
                    context.close_all();
                }
                State::Seeking(Seeking::new(spare.unwrap_or(LinkId::MAIN), range, context, now))
            }
            Method::Scatter { ours, theirs } => {
                let is_other_open = self.theirs.is_some_and(|(_, round)| round > 0);
                State::Scatter(Scatter::new((ours, theirs), is_other_open, context, now))
            }
            Method::Plain | Method::Hopeless => return,
        };
    }

    /// When the plain ways are given up where nothing helps.
    fn gives_up_at(&self) -> Instant {
        let theirs = self.theirs.map(|(theirs, _)| theirs);
        let is_assumed = self.ours.iter().chain(&theirs).any(NatProfile::is_assumed);
        self.began + if is_assumed { ASSUMED } else { Duration::ZERO }
    }

    /// What is known leaves no way. Should more become known, it goes on.
    fn give_up(&mut self) {
        self.state = State::Waiting;
        (self.may_search, self.spare) = (false, None);
        self.context.close_all();
        if !std::mem::replace(&mut self.has_given_up, true) {
            self.context.actions.push_back(PunchAction::GiveUp);
        }
    }

    /// Whether this method takes the place of what is under way.
    fn may_begin(&self, method: Method, now: Instant) -> bool {
        match (&self.state, method) {
            (State::Waiting, Method::Open | Method::Seek { .. } | Method::Scatter { .. }) => {
                self.may_search && self.is_search()
            }
            (State::Waiting, Method::Bracket { .. }) => self.theirs.is_some() || now >= self.begins + SILENT,
            (State::Waiting, _) => true,
            // It began when nothing was known of the remote's NAT, which turns out to count as well.
            (State::Bracket(_), Method::Volley { .. }) => true,
            (
                State::Bracket(_)
                | State::Volley(_)
                | State::Opening(_)
                | State::Seeking(_)
                | State::Scatter(_)
                | State::Over,
                _,
            ) => false,
        }
    }
}

/// The port that a side whose NAT keeps ports has told of, to search from it.
fn searched_from(theirs: &NatProfile, round: u8) -> Option<u16> {
    Some(theirs.latest).filter(|port| round > 0 && *port > 0)
}
