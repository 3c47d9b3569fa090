//! Who has how many connections.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use proto::limit::Prefix;

/// The places of a listener.
#[derive(Debug)]
pub(crate) struct Places {
    all: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    each: BTreeMap<Prefix, usize>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// All are taken.
    Full,
    /// This source has its share.
    FullEach,
}

impl Places {
    pub(crate) fn new(all: usize, each: usize) -> Self {
        Self { all, each, taken: Mutex::default() }
    }

    /// A place, until it is dropped. `shared` is an address behind which there are many.
    pub(crate) fn take(self: &Arc<Self>, ip: IpAddr, shared: bool) -> Result<Place, NoPlace> {
        let prefix = Prefix::of(ip);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.all {
            return Err(NoPlace::Full);
        }
        let each = taken.each.entry(prefix).or_default();
        if *each >= self.each && !shared {
            return Err(NoPlace::FullEach);
        }
        *each += 1;
        taken.all += 1;
        Ok(Place { places: Arc::clone(self), prefix })
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    prefix: Prefix,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        match taken.each.get_mut(&self.prefix) {
            Some(each) if *each > 1 => *each -= 1,
            Some(_) | None => drop(taken.each.remove(&self.prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_does_not_get_every_place_and_a_place_comes_back() {
        let places = Arc::new(Places::new(3, 2));
        let take = |text: &str, shared| places.take(text.parse().unwrap(), shared);
        let (first, _second) = (take("192.0.2.1", false).unwrap(), take("192.0.2.2", false).unwrap());
        assert_eq!(take("192.0.2.3", false).unwrap_err(), NoPlace::FullEach);
        let _third = take("192.0.2.3", true).unwrap();
        assert_eq!(take("203.0.113.1", false).unwrap_err(), NoPlace::Full);
        drop(first);
        assert_eq!(places.taken(), 2);
        assert!(take("203.0.113.1", false).is_ok());
        assert_eq!(places.taken(), 2);
    }
}
