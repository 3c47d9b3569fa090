//! What the workspace promises about itself: which crate knows which, what `proto` may link and say, which
//! programs there are, what every file keeps to.
#![allow(clippy::disallowed_methods, reason = "a test reads files")]

#[path = "architecture/graph.rs"]
mod graph;
#[path = "architecture/licence.rs"]
mod licence;
#[path = "architecture/sources.rs"]
mod sources;

use graph::Workspace;
use licence::is_allowed;
use sources::{Source, words};

/// Everything that `proto` depends on, and what for.
const PROTO_MAY: [(&str, &str); 7] = [
    ("data-encoding", "the text forms of ids and tickets"),
    ("postcard", "messages as bytes"),
    ("rand_chacha", "randomness from a seed"),
    ("ring", "hashes, MACs, key derivation and signatures: computation alone"),
    ("serde", "messages as bytes"),
    ("stun-rs", "STUN messages as bytes"),
    ("thiserror", "errors"),
];

/// What may not come in by way of these either. An asterisk stands for any end. `libc` and `getrandom` come
/// with ring and stun-rs, which use them where no seed is given: `clippy.toml` bans those calls.
const PROTO_NEVER: [&str; 26] = [
    "tokio*",
    "quinn*",
    "hyper*",
    "async-*",
    "futures-executor",
    "smol*",
    "mio",
    "polling",
    "socket2",
    "nix",
    "rustix",
    "if-addrs",
    "rustls*",
    "openssl*",
    "native-tls",
    "reqwest",
    "ureq",
    "h2",
    "http",
    "tempfile",
    "walkdir",
    "redb",
    "clap",
    "tracing*",
    "chrono",
    "time",
];

/// Who may know whom within the workspace; `nat-sim` may know all, and nobody knows it.
const ARROWS: [(&str, &[&str]); 5] = [
    ("proto", &[]),
    ("relay", &["proto"]),
    ("rendezvous", &["relay", "proto"]),
    ("peer", &["rendezvous", "relay", "proto"]),
    ("nat-sim", &["peer", "rendezvous", "relay", "proto"]),
];

const PROGRAMS: [&str; 4] = ["peer", "rendezvous", "relay", "nat-sim"];

/// The machines of `proto`, which only their shells compose.
const MACHINES: [&str; 7] = ["session", "matchmaker", "doorman", "dial", "path", "public_udp", "relay"];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 9] =
    ["utils", "util", "common", "helper", "helpers", "manager", "misc", "shared", "stuff"];

/// Lines of one source file.
const MAX_LINES: usize = 700;

#[test]
fn proto_depends_on_what_is_listed_with_its_reason_and_on_nothing_else() {
    let mut direct = Workspace::load().dependencies("proto");
    direct.sort();
    let listed: Vec<_> = PROTO_MAY.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(direct, listed, "proto is pure: a dependency of it is listed here with its reason");
}

#[test]
fn proto_links_no_io_no_async_and_no_clock() {
    let is = |name: &str, pattern: &str| match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    };
    for (name, by) in Workspace::load().linked("proto") {
        let banned = PROTO_NEVER.iter().find(|pattern| is(&name, pattern));
        assert_eq!(banned, None, "proto links {name}, by way of {by}");
    }
}

#[test]
fn proto_draws_no_randomness_of_its_own() {
    for feature in Workspace::load().requested_features("proto", "rand_chacha") {
        assert!(!["default", "os_rng", "getrandom"].contains(&feature.as_str()), "rand_chacha/{feature}");
    }
}

#[test]
fn the_arrows_between_crates_point_one_way() {
    let workspace = Workspace::load();
    let members = workspace.members();
    for member in &members {
        let Some((_, may)) = ARROWS.iter().find(|(name, _)| name == member) else {
            panic!("{member} has no place among the arrows")
        };
        for known in workspace.all_dependencies(member) {
            let outside = !members.contains(&known);
            assert!(outside || may.contains(&known.as_str()), "{member} may not know {known}");
        }
    }
}

#[test]
fn the_programs_are_these_and_no_others() {
    let programs = Workspace::load().programs();
    for program in &programs {
        assert!(PROGRAMS.contains(&program.as_str()), "{program} is none of {PROGRAMS:?}");
    }
    for program in ["peer", "rendezvous"] {
        assert!(programs.iter().any(|it| it == program), "{program} is missing");
    }
}

#[test]
fn every_dependency_has_a_licence_that_deny_toml_allows() {
    let workspace = Workspace::load();
    let deny = sources::read(&workspace.root().join("deny.toml"));
    let allowed = licence::allowed(&deny);
    assert!(allowed.contains(&"MIT"), "{allowed:?}");
    for (name, expression) in workspace.licences() {
        assert!(is_allowed(&expression, &allowed), "{name}: {expression} is not in deny.toml's list");
    }
}

#[test]
fn nothing_comes_from_git() {
    let lock = sources::read(&Workspace::load().root().join("Cargo.lock"));
    let from: Vec<_> = lock.lines().filter(|line| line.contains("\"git+")).collect();
    assert!(from.is_empty(), "{from:?}");
}

#[test]
fn every_crate_has_the_workspaces_lints_and_unsafe_code_is_forbidden() {
    let workspace = Workspace::load();
    let root = sources::read(&workspace.root().join("Cargo.toml"));
    assert!(root.contains("\nunsafe_code = \"forbid\"\n"));
    for manifest in workspace.manifests() {
        let text = sources::read(&manifest);
        assert!(text.contains("[lints]\nworkspace = true"), "{} goes without", manifest.display());
    }
}

#[test]
fn no_file_is_too_long_unsafe_or_named_after_nothing() {
    let workspace = Workspace::load();
    let mut faults = Vec::new();
    for source in workspace.manifests().iter().flat_map(|manifest| Source::all_beside(manifest)) {
        let Source { path, text, .. } = &source;
        let lines = text.lines().count();
        if lines > MAX_LINES && !source.is_test() {
            faults.push(format!("{path} has {lines} lines; {MAX_LINES} are the limit: split it"));
        }
        let unsafe_line = text.lines().position(|line| words(line).any(|word| word == "unsafe"));
        if let Some(at) = unsafe_line {
            faults.push(format!("{path}:{} is unsafe", at + 1));
        }
        if let Some(name) = source.names().find(|name| EMPTY_NAMES.contains(name)) {
            faults.push(format!("{path}: `{name}` does not say what it is for"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn proto_asks_nobody_for_the_time() {
    for source in proto_sources() {
        for (at, line) in source.product_lines() {
            let code: String = line.split_whitespace().collect();
            for clock in ["Instant::now", "SystemTime::now", ".elapsed()", "rand::rng(", "thread_rng("] {
                assert!(!code.contains(clock), "{}:{at}: {clock}: it is a parameter here", source.path);
            }
        }
    }
}

#[test]
fn the_machines_of_proto_do_not_know_each_other() {
    for source in proto_sources() {
        // Its messages may be called as the machine is.
        let mut names = source.names().take_while(|name| *name != "wire");
        let Some(machine) = names.find(|name| MACHINES.contains(name)) else { continue };
        for (at, line) in source.product_lines() {
            for other in MACHINES.iter().filter(|other| **other != machine) {
                let known = line.contains(&format!("crate::{other}::"));
                assert!(!known, "{}:{at}: {machine} knows {other}; a shell composes them", source.path);
            }
        }
    }
}

fn proto_sources() -> Vec<Source> {
    let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let sources: Vec<_> =
        Source::all_beside(&manifest).into_iter().filter(|it| it.is_product() && !it.is_test()).collect();
    assert!(sources.len() > 15, "the sources are not where they were");
    sources
}
