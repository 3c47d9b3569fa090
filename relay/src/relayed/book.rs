//! Which socket address stands for which process of which identity.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use proto::wire::relay::Address;

/// The addresses' prefix: unique local ones (RFC 4193), that nothing outside this process ever sees.
const PREFIX: [u16; 4] = [0xfd63, 0x756c, 0x7665, 0x7274];

/// The names of one link's remotes, in both directions. When it is full, the eighth that was used longest ago
/// is forgotten.
#[derive(Debug)]
pub struct Book {
    addresses: HashMap<SocketAddr, Entry>,
    addrs: HashMap<Address, SocketAddr>,
    next: u64,
    uses: u64,
    capacity: usize,
}

#[derive(Debug)]
struct Entry {
    address: Address,
    used: u64,
}

impl Book {
    /// An empty one for at most `capacity` remotes.
    pub fn new(capacity: usize) -> Self {
        Self { addresses: HashMap::new(), addrs: HashMap::new(), next: 1, uses: 0, capacity: capacity.max(8) }
    }

    /// The socket address that stands for `address`, from now on.
    pub fn addr(&mut self, address: Address) -> SocketAddr {
        if let Some(addr) = self.known(&address) {
            return addr;
        }
        if self.addrs.len() >= self.capacity {
            self.forget_oldest();
        }
        let n = self.next;
        self.next += 1;
        let addr = place(n);
        self.uses += 1;
        self.addresses.insert(addr, Entry { address, used: self.uses });
        self.addrs.insert(address, addr);
        addr
    }

    /// The one that stands for it already, if any does.
    pub fn known(&mut self, address: &Address) -> Option<SocketAddr> {
        let addr = *self.addrs.get(address)?;
        self.uses += 1;
        if let Some(entry) = self.addresses.get_mut(&addr) {
            entry.used = self.uses;
        }
        Some(addr)
    }

    /// For whom a socket address stands.
    pub fn address(&self, addr: SocketAddr) -> Option<Address> {
        self.addresses.get(&addr).map(|entry| entry.address)
    }

    /// It stands for nobody any more.
    pub fn forget(&mut self, addr: SocketAddr) {
        if let Some(entry) = self.addresses.remove(&addr) {
            self.addrs.remove(&entry.address);
        }
    }

    fn forget_oldest(&mut self) {
        let mut used: Vec<(u64, SocketAddr)> =
            self.addresses.iter().map(|(addr, entry)| (entry.used, *addr)).collect();
        used.sort_unstable();
        for (_, addr) in used.into_iter().take(self.capacity / 8) {
            self.forget(addr);
        }
    }
}

/// Whether an address stands for somebody at a relay.
pub fn is_relayed(addr: SocketAddr) -> bool {
    match addr.ip() {
        IpAddr::V6(ip) => ip.segments().starts_with(&PREFIX),
        IpAddr::V4(_) => false,
    }
}

fn place(n: u64) -> SocketAddr {
    let [a, b, c, d] = PREFIX;
    let host = |shift: u32| (n >> shift) as u16;
    (Ipv6Addr::new(a, b, c, d, host(48), host(32), host(16), host(0)), 1).into()
}

#[cfg(test)]
mod tests {
    use proto::id::{Instance, PeerId};

    use super::*;

    fn process(n: u8) -> Address {
        Address { peer: PeerId::from_bytes([n; 32]), instance: Instance([n; 8]) }
    }

    #[test]
    fn an_address_stands_for_one_process_and_stays() {
        let mut book = Book::new(100);
        let (a, b) = (book.addr(process(1)), book.addr(process(2)));
        assert_ne!(a, b);
        assert_eq!(book.addr(process(1)), a);
        assert!(is_relayed(a) && !is_relayed("[fd63::1]:1".parse().unwrap()));
        assert_eq!(book.address(b), Some(process(2)));
        assert_eq!(book.known(&process(3)), None);
        book.forget(a);
        assert_eq!(book.address(a), None);
        assert_ne!(book.addr(process(1)), a);
    }

    #[test]
    fn a_full_book_forgets_whom_it_has_not_met_for_longest() {
        let mut book = Book::new(16);
        for n in 0..16 {
            book.addr(process(n));
        }
        book.known(&process(0));
        book.addr(process(100));
        assert!(book.addrs.len() <= 16 && book.addresses.len() == book.addrs.len());
        assert_eq!(book.known(&process(1)), None);
        assert!(book.known(&process(0)).is_some() && book.known(&process(100)).is_some());
    }
}
