//! **Names**: whose a name is, and for how long.
//!
//! A name belongs to the key that claimed it first. It stays that key's for as long as somebody of it is
//! here, and long after; nobody else gets it in between. What is to be kept over a restart is told to the
//! shell, which answers a claim only when it is; what the disk does not take changes nothing of whose a name is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::label::{self, NotForYou};
use crate::id::PeerId;
use crate::limit::{Prefix, PrefixLimiter, PrefixParts, Rate};
use crate::name::ShareName;

/// What the machine allows.
#[derive(Debug, Clone)]
pub struct NamesConfig {
    /// Names of one key.
    pub each: usize,
    /// Names in all: a hundred bytes each.
    pub total: usize,
    /// Names that were claimed, or last used, from one network.
    pub of_network: usize,
    /// How long a name is held after its last use.
    pub held: Duration,
    /// How long one is that is not to be kept: a connection that is made again.
    pub held_briefly: Duration,
    /// New claims from one network. What is a key's already is no new claim.
    pub claims_each: Rate,
    /// New claims in all.
    pub claims: Rate,
}

impl Default for NamesConfig {
    fn default() -> Self {
        Self {
            each: 5,
            total: 100_000,
            of_network: 100_000 / 8,
            held: Duration::from_secs(30 * 24 * 3600),
            held_briefly: Duration::from_secs(60),
            claims_each: Rate { burst: 50, refill: Duration::from_secs(10) },
            claims: Rate { burst: 2000, refill: Duration::from_millis(100) },
        }
    }
}

/// A name's owner, as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Whose it is.
    pub owner: PeerId,
    /// When it was last used, in seconds since 1970.
    pub used: u64,
}

/// Why a claim is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Nobody can have it.
    NotForYou(NotForYou),
    /// Another key has it.
    Taken,
    /// The key has as many as it may have: these.
    TooMany(Vec<ShareName>),
    /// Too many in a short time, or in all.
    Busy,
}

/// What a claim that is granted asks of the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// Nothing: what is kept says enough.
    Now,
    /// The name is the owner's already; this use of it is to be noted, and nobody waits for that.
    Noted(Claim),
    /// To be kept before the owner is told: [`Names::handle_kept`] or [`Names::undo`] says what became of it.
    OnceKept(Claim),
}

/// When it is: on the clock of the process, and on that of the wall, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    /// Of the process.
    pub now: Instant,
    /// Of the wall.
    pub unix: u64,
}

/// How far a kept time of use may lag behind: next to the time that a name is held it is nothing, and a
/// connection that comes and goes writes nothing.
const GRAIN: u64 = 3600;

#[derive(Debug)]
struct Entry {
    claim: Claim,
    keep: bool,
    /// The time of use that is kept; none while nothing is.
    kept: Option<u64>,
    /// Whether the owner has been told that it has the name, be it for a while.
    told: bool,
    /// Whose part of all names it takes. Of one that was kept by an earlier run nothing is known until its owner
    /// is here again.
    network: Option<Prefix>,
    /// How many connections use it now, or wait for it to be kept.
    present: usize,
}

impl Entry {
    fn is_over(&self, config: &NamesConfig, unix: u64) -> bool {
        let held = if self.keep { config.held } else { config.held_briefly };
        self.present == 0 && unix >= self.claim.used.saturating_add(held.as_secs())
    }

    /// It is used; what is to be noted of that, beside what is kept already.
    fn use_at(&mut self, unix: u64) -> Option<Claim> {
        self.claim.used = self.claim.used.max(unix);
        if self.claim.used < self.kept?.saturating_add(GRAIN) {
            return None;
        }
        self.kept = Some(self.claim.used);
        Some(self.claim)
    }

    /// A claim of the owner's, which may want it kept.
    fn grant(&mut self, keep: bool, unix: u64) -> Granted {
        self.present += 1;
        let noted = self.use_at(unix);
        self.keep |= keep;
        if keep && self.kept.is_none() {
            return Granted::OnceKept(self.claim);
        }
        self.told = true;
        noted.map_or(Granted::Now, Granted::Noted)
    }
}

/// The machine.
#[derive(Debug)]
pub struct Names {
    config: NamesConfig,
    entries: BTreeMap<ShareName, Entry>,
    by_owner: BTreeMap<PeerId, BTreeSet<ShareName>>,
    networks: PrefixParts,
    limiter: PrefixLimiter,
}

impl Names {
    /// With the claims that were kept.
    pub fn new(
        config: NamesConfig,
        kept: impl IntoIterator<Item = (ShareName, Claim)>,
        now: Instant,
    ) -> Self {
        let limiter = PrefixLimiter::new(config.claims_each, config.claims, now);
        let networks = PrefixParts::new(config.of_network);
        let (entries, by_owner) = (BTreeMap::new(), BTreeMap::new());
        let mut names = Self { config, entries, by_owner, networks, limiter };
        for (name, claim) in kept {
            let kept = Some(claim.used);
            names.insert(name, Entry { claim, keep: true, kept, told: true, network: None, present: 0 });
        }
        names
    }

    /// `owner`, who is at `from`, uses this name from now on, until [`Self::release`]. What is
    /// to be done before the owner is told. `keep` holds it over the owner's absence.
    ///
    /// # Errors
    /// It can't have it.
    pub fn claim(
        &mut self,
        name: &ShareName,
        owner: PeerId,
        from: std::net::SocketAddr,
        keep: bool,
        time: Time,
    ) -> Result<Granted, Denied> {
        label::claimable(name).map_err(Denied::NotForYou)?;
        self.drop_if_over(name, time.unix);
        if let Some(entry) = self.entries.get_mut(name) {
            if entry.claim.owner != owner {
                return Err(Denied::Taken);
            }
            let network = Prefix::of(from.ip());
            if entry.network.is_none() && self.networks.take(network) {
                entry.network = Some(network);
            }
            return Ok(entry.grant(keep, time.unix));
        }
        let network = Some(self.make_room(owner, from, time)?);
        let claim = Claim { owner, used: time.unix };
        let mut entry = Entry { claim, keep, kept: None, told: false, network, present: 0 };
        let granted = entry.grant(keep, time.unix);
        self.insert(name.clone(), entry);
        Ok(granted)
    }

    /// The network whose part the name takes. What costs time comes behind the rates.
    fn make_room(&mut self, owner: PeerId, from: std::net::SocketAddr, time: Time) -> Result<Prefix, Denied> {
        let own = self.by_owner.get(&owner).cloned().unwrap_or_default();
        if own.len() >= self.config.each {
            own.iter().for_each(|name| self.drop_if_over(name, time.unix));
            let left: Vec<_> = own.into_iter().filter(|name| self.entries.contains_key(name)).collect();
            if left.len() >= self.config.each {
                return Err(Denied::TooMany(left));
            }
        }
        if !self.limiter.allow(from, time.now) {
            return Err(Denied::Busy);
        }
        if self.entries.len() >= self.config.total {
            self.drop_all_over(time.unix);
        }
        let network = Prefix::of(from.ip());
        if self.entries.len() >= self.config.total || !self.networks.take(network) {
            return Err(Denied::Busy);
        }
        Ok(network)
    }

    /// One connection of the owner's uses the name no more. What is to be kept of it.
    pub fn release(&mut self, name: &ShareName, unix: u64) -> Option<Claim> {
        let entry = self.entries.get_mut(name)?;
        entry.present = entry.present.saturating_sub(1);
        entry.use_at(unix)
    }

    /// What a claim asked to be kept is kept, and its owner may be told.
    pub fn handle_kept(&mut self, name: &ShareName, kept: Claim) {
        if let Some(entry) = self.entries.get_mut(name)
            && entry.claim.owner == kept.owner
        {
            (entry.keep, entry.told) = (true, true);
            entry.kept = entry.kept.max(Some(kept.used));
        }
    }

    /// A claim that was to be kept could not be: it is as if it had not been made.
    pub fn undo(&mut self, name: &ShareName) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.present = entry.present.saturating_sub(1);
        entry.keep = entry.kept.is_some();
        if entry.present == 0 && !entry.told {
            self.remove(name);
        }
    }

    /// Whether the name is somebody's.
    pub fn is_claimed(&self, name: &ShareName, unix: u64) -> bool {
        self.entries.get(name).is_some_and(|entry| !entry.is_over(&self.config, unix))
    }

    /// What is in use has been used now: what is to be kept of it, and the names that are nobody's any more.
    pub fn refresh(&mut self, unix: u64) -> (Vec<(ShareName, Claim)>, Vec<ShareName>) {
        let over = self.drop_all_over(unix);
        let mut used = Vec::new();
        for (name, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.present > 0) {
            used.extend(entry.use_at(unix).map(|claim| (name.clone(), claim)));
        }
        (used, over)
    }

    /// How many names are somebody's.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no name is anybody's.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn insert(&mut self, name: ShareName, entry: Entry) {
        self.by_owner.entry(entry.claim.owner).or_default().insert(name.clone());
        self.entries.insert(name, entry);
    }

    fn remove(&mut self, name: &ShareName) {
        let Some(entry) = self.entries.remove(name) else { return };
        if let Some(network) = entry.network {
            self.networks.give_back(network);
        }
        if let Some(own) = self.by_owner.get_mut(&entry.claim.owner) {
            own.remove(name);
            if own.is_empty() {
                self.by_owner.remove(&entry.claim.owner);
            }
        }
    }

    fn drop_if_over(&mut self, name: &ShareName, unix: u64) {
        if self.entries.get(name).is_some_and(|entry| entry.is_over(&self.config, unix)) {
            self.remove(name);
        }
    }

    fn drop_all_over(&mut self, unix: u64) -> Vec<ShareName> {
        let over = self.entries.iter().filter(|(_, entry)| entry.is_over(&self.config, unix));
        let over: Vec<_> = over.map(|(name, _)| name.clone()).collect();
        over.iter().for_each(|name| self.remove(name));
        over
    }
}

#[cfg(test)]
mod tests;
