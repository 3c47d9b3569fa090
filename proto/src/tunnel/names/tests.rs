use super::*;
use crate::clock::start;

const DAY: u64 = 24 * 3600;

struct World {
    names: Names,
    start: Instant,
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn name(text: &str) -> ShareName {
    text.parse().unwrap()
}

impl World {
    fn new(config: NamesConfig, kept: Vec<(ShareName, Claim)>) -> Self {
        let start = start();
        Self { names: Names::new(config, kept, start), start }
    }

    fn claim(&mut self, text: &str, owner: u8, keep: bool, unix: u64) -> Result<Granted, Denied> {
        let time = Time { now: self.start + Duration::from_secs(unix), unix };
        self.names.claim(&name(text), peer(owner), ([192, 0, 2, owner], 1).into(), keep, time)
    }

    /// A claim that is to be kept, and is. Whether anything was to be written.
    fn keep(&mut self, text: &str, owner: u8, unix: u64) -> Result<bool, Denied> {
        let granted = self.claim(text, owner, true, unix)?;
        if let Granted::OnceKept(claim) = granted {
            self.names.handle_kept(&name(text), claim);
        }
        Ok(granted != Granted::Now)
    }
}

#[test]
fn a_name_is_the_first_ones_for_thirty_days_after_its_last_use() {
    let mut world = World::new(NamesConfig::default(), Vec::new());
    assert_eq!(world.keep("nas", 1, 0), Ok(true));
    assert_eq!(world.keep("nas", 2, 40 * DAY), Err(Denied::Taken), "it is in use");
    let kept = world.names.release(&name("nas"), 40 * DAY).unwrap();
    assert_eq!(kept, Claim { owner: peer(1), used: 40 * DAY });
    assert_eq!(world.keep("nas", 2, 70 * DAY - 1), Err(Denied::Taken));
    assert!(world.names.is_claimed(&name("nas"), 70 * DAY - 1));
    assert!(!world.names.is_claimed(&name("nas"), 70 * DAY));
    assert_eq!(world.keep("nas", 2, 70 * DAY), Ok(true));
    assert_eq!(world.keep("nas", 1, 70 * DAY), Err(Denied::Taken));
}

#[test]
fn the_same_key_takes_its_name_back_at_once_also_beside_itself() {
    let mut world = World::new(NamesConfig::default(), Vec::new());
    world.keep("nas", 1, 0).unwrap();
    assert_eq!(world.keep("nas", 1, 5), Ok(false), "nothing is new");
    assert_eq!(world.keep("nas", 1, 3600), Ok(true), "it was used an hour later");
    for _ in 0..3 {
        world.names.release(&name("nas"), 3601);
    }
    assert_eq!(world.keep("nas", 1, 29 * DAY), Ok(true));
}

#[test]
fn what_was_kept_is_known_after_a_restart() {
    let kept = vec![(name("nas"), Claim { owner: peer(1), used: 10 })];
    let mut world = World::new(NamesConfig::default(), kept);
    assert_eq!(world.keep("nas", 2, 20), Err(Denied::Taken));
    assert_eq!(world.keep("nas", 1, 20), Ok(false));
}

#[test]
fn a_name_that_is_not_kept_is_free_a_minute_later() {
    let mut world = World::new(NamesConfig::default(), Vec::new());
    assert_eq!(world.claim("brief", 1, false, 0), Ok(Granted::Now));
    assert_eq!(world.names.release(&name("brief"), 100), None);
    assert_eq!(world.keep("brief", 2, 159), Err(Denied::Taken));
    assert_eq!(world.keep("brief", 2, 160), Ok(true));
}

#[test]
fn a_key_has_five_names_and_is_told_which() {
    let mut world = World::new(NamesConfig::default(), Vec::new());
    for text in ["a1", "a2", "a3", "a4", "a5"] {
        world.keep(text, 1, 0).unwrap();
        world.names.release(&name(text), 0);
    }
    let own: Vec<_> = ["a1", "a2", "a3", "a4", "a5"].map(name).to_vec();
    assert_eq!(world.keep("a6", 1, 1), Err(Denied::TooMany(own)));
    assert_eq!(world.keep("a6", 2, 1), Ok(true));
    assert_eq!(world.keep("a7", 1, 30 * DAY), Ok(true), "the old ones are over");
    assert_eq!(world.names.len(), 2);
}

#[test]
fn some_names_are_nobodys() {
    let mut world = World::new(NamesConfig::default(), Vec::new());
    for text in ["relay", "constructor", "www", "xn--bcher-kva"] {
        assert!(matches!(world.keep(text, 1, 0), Err(Denied::NotForYou(_))), "{text}");
    }
}

#[test]
fn a_thousand_claims_of_one_name_have_one_winner() {
    let claims = Rate { burst: 2000, refill: Duration::from_secs(1) };
    let config = NamesConfig { claims_each: claims, ..NamesConfig::default() };
    let mut world = World::new(config, Vec::new());
    let winners = (0..1000_u32).filter(|n| world.keep("nas", (n % 250) as u8, 0).is_ok()).collect::<Vec<_>>();
    assert_eq!(winners, [0, 250, 500, 750], "one key, four times");
}

#[test]
fn strangers_fill_neither_the_memory_nor_the_disk() {
    let config = NamesConfig { total: 3, ..NamesConfig::default() };
    let mut world = World::new(config, Vec::new());
    for n in 1..=3 {
        world.keep(&format!("n{n}"), n, 0).unwrap();
    }
    assert_eq!(world.keep("n4", 4, 0), Err(Denied::Busy));
    world.names.release(&name("n1"), 0);
    assert_eq!(world.keep("n4", 4, 31 * DAY), Ok(true));
    let mut world = World::new(NamesConfig::default(), Vec::new());
    let allowed = (0..200_u32).filter(|n| world.keep(&format!("n{n}"), (n % 50) as u8, 0).is_ok());
    assert_eq!(allowed.count(), 50, "they are all of one network");
}

#[test]
fn one_network_does_not_have_all_names_and_gives_its_part_back() {
    let claims = Rate { burst: 2000, refill: Duration::from_secs(1) };
    let config = NamesConfig { of_network: 2, claims_each: claims, ..NamesConfig::default() };
    let kept = (0..3).map(|n| (name(&format!("k{n}")), claim(n, 0))).collect();
    let mut world = World::new(config, kept);
    // Names of an earlier run are their owners', wherever these are now, and count from then on.
    for n in 0..3 {
        assert_eq!(world.keep(&format!("k{n}"), n, 1), Ok(false));
    }
    assert_eq!(world.keep("new", 9, 1), Err(Denied::Busy), "whatever key");
    let elsewhere = Time { now: world.start, unix: 1 };
    let from = ([198, 51, 100, 1], 1).into();
    assert!(world.names.claim(&name("new"), peer(9), from, true, elsewhere).is_ok());
    world.names.release(&name("k0"), 1);
    world.names.refresh(31 * DAY);
    assert_eq!(world.keep("newer", 9, 31 * DAY), Ok(true));
    assert_eq!(world.keep("newest", 9, 31 * DAY), Err(Denied::Busy));
}

fn claim(owner: u8, used: u64) -> Claim {
    Claim { owner: peer(owner), used }
}

#[test]
fn a_claim_that_could_not_be_kept_was_none() {
    let mut world = World::new(NamesConfig::default(), Vec::new());
    assert_eq!(world.claim("nas", 1, true, 0), Ok(Granted::OnceKept(claim(1, 0))));
    world.names.undo(&name("nas"));
    assert_eq!(world.keep("nas", 2, 0), Ok(true));
}

#[test]
fn a_disk_that_takes_nothing_gives_away_no_name_that_is_somebodys() {
    let kept = vec![(name("nas"), claim(1, 0))];
    let mut world = World::new(NamesConfig::default(), kept);
    // The owner comes back: the use is to be noted, and no failure of that takes anything from it.
    assert_eq!(world.claim("nas", 1, true, DAY), Ok(Granted::Noted(claim(1, DAY))));
    assert_eq!(world.claim("nas", 1, true, DAY), Ok(Granted::Now));
    // A name had for a while stays had for a while, where it was to become more.
    assert_eq!(world.claim("brief", 1, false, DAY), Ok(Granted::Now));
    assert_eq!(world.claim("brief", 1, true, DAY), Ok(Granted::OnceKept(claim(1, DAY))));
    world.names.undo(&name("brief"));
    world.names.release(&name("brief"), DAY);
    assert_eq!(world.keep("brief", 2, DAY + 59), Err(Denied::Taken));
    assert_eq!(world.keep("brief", 2, DAY + 60), Ok(true));
    assert_eq!(world.keep("nas", 2, DAY), Err(Denied::Taken));
}

#[test]
fn nobody_is_told_of_a_name_before_it_is_kept() {
    let mut world = World::new(NamesConfig::default(), Vec::new());
    let pending = Ok(Granted::OnceKept(claim(1, 0)));
    assert_eq!(world.claim("nas", 1, true, 0), pending);
    assert_eq!(world.claim("nas", 1, true, 0), pending, "the first is not kept yet");
    assert_eq!(world.keep("nas", 2, 0), Err(Denied::Taken));
    world.names.undo(&name("nas"));
    assert_eq!(world.keep("nas", 2, 0), Err(Denied::Taken), "one still waits");
    world.names.handle_kept(&name("nas"), claim(1, 0));
    assert_eq!(world.claim("nas", 1, true, 0), Ok(Granted::Now));
    // And the other way round: what is kept for one is kept, whatever becomes of the other's write.
    assert_eq!(world.claim("tv", 1, true, 0), pending);
    assert_eq!(world.claim("tv", 1, true, 0), pending);
    world.names.handle_kept(&name("tv"), claim(1, 0));
    world.names.undo(&name("tv"));
    assert_eq!(world.names.release(&name("tv"), 3600), Some(claim(1, 3600)));
    assert_eq!(world.keep("tv", 2, 29 * DAY), Err(Denied::Taken));
}

#[test]
fn what_is_in_use_is_used_and_what_is_over_goes() {
    let mut world = World::new(NamesConfig::default(), Vec::new());
    world.keep("here", 1, 0).unwrap();
    world.keep("gone", 1, 0).unwrap();
    world.names.release(&name("gone"), 0);
    let (used, over) = world.names.refresh(30 * DAY);
    assert_eq!(used, [(name("here"), Claim { owner: peer(1), used: 30 * DAY })]);
    assert_eq!(over, [name("gone")]);
}
