//! **Lineup**: which connection gets a name's visitors, where its owner has several.
//!
//! The newest has them. The one before it stays, is told, and has them again when the newest goes: an owner
//! that comes back over a new connection is served there at once, whatever became of the old one.

use std::collections::BTreeMap;

use crate::name::ShareName;

/// Names a sharer's connection among those of this server, never reused.
pub type SharerKey = u64;

/// The machine.
#[derive(Debug, Default)]
pub struct Lineup {
    /// The newest last; never empty.
    lines: BTreeMap<ShareName, Vec<SharerKey>>,
}

impl Lineup {
    /// The connection has the name's visitors from now on. Which one had them before, if it was another.
    pub fn join(&mut self, name: &ShareName, sharer: SharerKey) -> Option<SharerKey> {
        let line = self.lines.entry(name.clone()).or_default();
        let before = line.last().copied().filter(|last| *last != sharer);
        line.retain(|other| *other != sharer);
        line.push(sharer);
        before
    }

    /// The connection has left. Which one has the visitors again, if this changes that.
    pub fn leave(&mut self, name: &ShareName, sharer: SharerKey) -> Option<SharerKey> {
        let line = self.lines.get_mut(name)?;
        let was_newest = line.last() == Some(&sharer);
        line.retain(|other| *other != sharer);
        let heir = line.last().copied();
        if line.is_empty() {
            self.lines.remove(name);
        }
        heir.filter(|_| was_newest)
    }

    /// Who has the name's visitors.
    pub fn current(&self, name: &ShareName) -> Option<SharerKey> {
        self.lines.get(name)?.last().copied()
    }

    /// How many names have somebody to serve them.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether no name has.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_connection_has_the_visitors_and_the_one_before_is_its_heir() {
        let (mut lineup, name) = (Lineup::default(), "nas".parse().unwrap());
        assert_eq!(lineup.join(&name, 1), None);
        assert_eq!(lineup.join(&name, 2), Some(1));
        assert_eq!(lineup.join(&name, 2), None);
        assert_eq!(lineup.join(&name, 3), Some(2));
        assert_eq!(lineup.leave(&name, 2), None);
        assert_eq!(lineup.current(&name), Some(3));
        assert_eq!(lineup.leave(&name, 3), Some(1));
        assert_eq!(lineup.leave(&name, 3), None);
        assert_eq!(lineup.leave(&name, 1), None);
        assert!(lineup.is_empty() && lineup.current(&name).is_none());
    }
}
