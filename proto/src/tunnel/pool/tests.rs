use super::*;
use crate::clock::start;

const SECOND: Duration = Duration::from_secs(1);
const CLIENT: &str = "192.0.2.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn name(text: &str) -> ShareName {
    text.parse().unwrap()
}

struct World {
    pool: Pool,
    now: Instant,
}

impl World {
    fn new(config: PoolConfig) -> Self {
        Self { pool: Pool::new(config, [7; 32]), now: start() }
    }

    fn register(&mut self, asked: &str, from: &str) -> Registered {
        self.pool.register(Some(name(asked)), ip(from), self.now).unwrap()
    }

    fn connect(&mut self, tunnel: TunnelKey) -> ConnectionKey {
        self.pool.handle_connection(tunnel, ip(CLIENT)).unwrap()
    }

    fn visit(&mut self, to: &str) -> VisitorKey {
        self.pool.handle_visitor(&name(to), self.now)
    }

    fn actions(&mut self) -> Vec<PoolAction> {
        std::iter::from_fn(|| self.pool.poll_action()).collect()
    }

    /// Goes to the next timeout, and says how long that took.
    fn wait(&mut self) -> Duration {
        let then = self.pool.poll_timeout().unwrap();
        let waited = then - self.now;
        self.now = then;
        self.pool.handle_timeout(then);
        waited
    }

    fn close(&mut self, connection: ConnectionKey) {
        self.pool.handle_closed(connection, self.now);
    }
}

#[test]
fn a_connection_is_lent_once() {
    let mut world = World::new(PoolConfig::default());
    let tunnel = world.register("forwstest", CLIENT).tunnel;
    let (old, new) = (world.connect(tunnel), world.connect(tunnel));
    let (a, b) = (world.visit("forwstest"), world.visit("forwstest"));
    assert_eq!(world.actions(), [PoolAction::Lend(a, new), PoolAction::Lend(b, old)]);
    let c = world.visit("forwstest");
    assert_eq!(world.actions(), []);
    world.close(old);
    assert_eq!(world.actions(), []);
    let third = world.connect(tunnel);
    assert_eq!(world.actions(), [PoolAction::Lend(c, third)]);
    assert_eq!(world.pool.connections_of(&name("forwstest")), Some(2));
}

#[test]
fn who_waits_is_told_why_in_vain_and_in_time() {
    let mut world = World::new(PoolConfig::default());
    let nobody = world.visit("nobody-here");
    assert_eq!(world.actions(), [PoolAction::Refuse(nobody, Refusal::Unknown)]);

    let tunnel = world.register("forwstest", CLIENT).tunnel;
    world.now += SECOND * 3;
    let early = world.visit("forwstest");
    assert_eq!(world.wait(), Duration::from_millis(500));
    assert_eq!(world.actions(), [PoolAction::Refuse(early, Refusal::Away)]);

    let connection = world.connect(tunnel);
    let _served = world.visit("forwstest");
    world.actions();
    let late = world.visit("forwstest");
    assert_eq!(world.wait(), SECOND * 10);
    assert_eq!(world.actions(), [PoolAction::Refuse(late, Refusal::Busy)]);

    let left = world.visit("forwstest");
    world.now += SECOND;
    world.close(connection);
    assert_eq!(world.wait(), Duration::from_millis(500));
    assert_eq!(world.actions(), [PoolAction::Refuse(left, Refusal::Away)]);
}

#[test]
fn a_server_that_speaks_first_is_no_web_server() {
    let mut world = World::new(PoolConfig::default());
    let tunnel = world.register("forwstest", CLIENT).tunnel;
    let connection = world.connect(tunnel);
    world.pool.handle_unasked(connection, world.now);
    let visitor = world.visit("forwstest");
    assert_eq!(world.wait(), Duration::from_millis(500));
    assert_eq!(world.actions(), [PoolAction::Refuse(visitor, Refusal::NotHttp)]);
    // Its connections are left alone, and so is its name.
    assert_eq!(world.pool.poll_timeout(), None);
    let silent = world.connect(tunnel);
    let visitor = world.visit("forwstest");
    assert_eq!(world.actions(), [PoolAction::Lend(visitor, silent)]);
}

#[test]
fn a_name_waits_for_its_client_and_for_nobody_else() {
    let mut world = World::new(PoolConfig::default());
    let first = world.register("forwstest", CLIENT);
    assert_eq!((first.name.as_str(), first.resumed), ("forwstest", false));
    let connection = world.connect(first.tunnel);
    let _served = world.visit("forwstest");
    world.actions();
    // A second one, from wherever, gets another name.
    for from in [CLIENT, "198.51.100.1"] {
        let other = world.register("forwstest", from);
        assert!(other.name != first.name && other.tunnel != first.tunnel);
        world.pool.release(other.tunnel);
    }
    world.actions();
    world.close(connection);
    world.now += SECOND * 59;
    world.pool.handle_timeout(world.now);
    let other = world.register("forwstest", "198.51.100.1");
    assert_ne!(other.name, first.name);
    world.pool.release(other.tunnel);
    assert_eq!(world.register("forwstest", CLIENT), Registered { resumed: true, ..first.clone() });
    // Registering starts the grace again, and its end frees the name.
    world.now += SECOND * 59;
    world.pool.handle_timeout(world.now);
    assert_eq!(world.pool.connections_of(&first.name), Some(0));
    assert_eq!(world.wait(), SECOND);
    assert_eq!(world.actions().last(), Some(&PoolAction::Release(first.tunnel)));
    let other = world.register("forwstest", "198.51.100.1");
    assert_eq!((other.name, other.resumed), (first.name, false));
}

#[test]
fn a_client_that_comes_back_has_its_name_also_where_its_old_connections_have_not_ended() {
    let mut world = World::new(PoolConfig::default());
    let first = world.register("forwstest", CLIENT);
    let (ghost, spoiled) = (world.connect(first.tunnel), world.connect(first.tunnel));
    world.pool.handle_unasked(spoiled, world.now);
    assert_ne!(world.register("forwstest", "198.51.100.1").name, first.name);
    world.actions();
    let again = world.register("forwstest", CLIENT);
    assert_eq!((&again.name, again.resumed), (&first.name, false));
    assert_eq!(world.actions(), [PoolAction::Release(first.tunnel)], "on a port of its own");
    assert_eq!(world.pool.handle_connection(first.tunnel, ip(CLIENT)), Err(NotLetIn::Gone));
    // The end of what is forgotten changes nothing any more.
    world.close(ghost);
    let connection = world.connect(again.tunnel);
    let visitor = world.visit("forwstest");
    assert_eq!(world.actions(), [PoolAction::Lend(visitor, connection)]);
}

#[test]
fn only_the_registering_source_connects_and_not_too_often() {
    let config = PoolConfig { connections_let_in: 2, ..PoolConfig::default() };
    let mut world = World::new(config.clone());
    let tunnel = world.register("forwstest", CLIENT).tunnel;
    let refused = world.pool.handle_connection(tunnel, ip("198.51.100.1"));
    assert_eq!(refused, Err(NotLetIn::Stranger));
    world.connect(tunnel);
    world.connect(tunnel);
    assert_eq!(world.pool.handle_connection(tunnel, ip(CLIENT)), Err(NotLetIn::Full));
    world.pool.release(tunnel);
    assert_eq!(world.pool.handle_connection(tunnel, ip(CLIENT)), Err(NotLetIn::Gone));
    assert_eq!(world.pool.connections(), 0);

    let mut open = World::new(PoolConfig { open: true, ..config });
    let tunnel = open.register("forwstest", CLIENT).tunnel;
    assert!(open.pool.handle_connection(tunnel, ip("198.51.100.1")).is_ok());
}

#[test]
fn a_neighbour_in_the_same_network_is_a_stranger_and_counts_as_the_same_source() {
    let config = PoolConfig { tunnels_each: 1, ..PoolConfig::default() };
    let mut world = World::new(config);
    let (client, neighbour) = ("2001:db8::1", "2001:db8::2");
    let tunnel = world.register("forwstest", client).tunnel;
    assert_eq!(world.pool.handle_connection(tunnel, ip(neighbour)), Err(NotLetIn::Stranger));
    assert!(world.pool.handle_connection(tunnel, ip(client)).is_ok());
    assert_eq!(world.pool.register(None, ip(neighbour), world.now), None);
}

#[test]
fn a_source_has_a_bounded_number_of_tunnels_and_loses_what_it_left_first() {
    let config = PoolConfig { tunnels: 3, tunnels_each: 2, waiting: 1, ..PoolConfig::default() };
    let mut world = World::new(config);
    let first = world.register("first", CLIENT);
    world.now += SECOND;
    let second = world.register("second", CLIENT);
    let third = world.register("third", CLIENT);
    assert_eq!(world.actions(), [PoolAction::Release(first.tunnel)]);
    world.connect(second.tunnel);
    world.connect(third.tunnel);
    assert_eq!(world.pool.register(None, ip(CLIENT), world.now), None);
    assert!(world.pool.register(None, ip("198.51.100.1"), world.now).is_some());
    assert_eq!(world.pool.register(None, ip("203.0.113.1"), world.now), None);
    assert_eq!(world.pool.tunnels(), 3);

    let _served = world.visit("second");
    let waits = world.visit("second");
    let too_many = world.visit("second");
    assert_eq!(world.actions().last(), Some(&PoolAction::Refuse(too_many, Refusal::Busy)));
    assert_eq!(world.pool.waiting(), 1);
    world.pool.handle_visitor_gone(waits);
    assert_eq!(world.pool.waiting(), 0);
}

#[test]
fn whatever_happens_every_visitor_is_answered_once_and_nothing_is_left() {
    use rand_chacha::rand_core::RngCore as _;
    for seed in 0..200 {
        let mut dice = ChaCha12Rng::seed_from_u64(seed);
        let mut world = World::new(PoolConfig { waiting: 4, connections_let_in: 5, ..PoolConfig::default() });
        let (mut open, mut asked, mut answered) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let tunnel = world.register("forwstest", CLIENT).tunnel;
        for _ in 0..300 {
            match dice.next_u32() % 6 {
                0 => open.extend(world.pool.handle_connection(tunnel, ip(CLIENT))),
                1 if !open.is_empty() => {
                    let gone = open.swap_remove(dice.next_u32() as usize % open.len());
                    world.close(gone);
                }
                2 if !open.is_empty() => world.pool.handle_unasked(open[0], world.now),
                3 => world.now += Duration::from_millis(u64::from(dice.next_u32() % 3000)),
                4 => world.pool.handle_timeout(world.now),
                _ => {
                    asked.insert(world.visit("forwstest"));
                }
            }
            for action in world.actions() {
                if let PoolAction::Lend(visitor, _) | PoolAction::Refuse(visitor, _) = action {
                    assert!(asked.contains(&visitor) || visitor > 0);
                    assert!(answered.insert(visitor), "answered twice");
                }
            }
        }
        open.into_iter().for_each(|connection| world.close(connection));
        while world.pool.poll_timeout().is_some() {
            world.wait();
            for action in world.actions() {
                if let PoolAction::Lend(visitor, _) | PoolAction::Refuse(visitor, _) = action {
                    assert!(answered.insert(visitor));
                }
            }
        }
        assert_eq!(
            (&answered, world.pool.tunnels(), world.pool.connections(), world.pool.waiting()),
            (&asked, 0, 0, 0)
        );
    }
}
