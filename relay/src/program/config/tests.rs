use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::*;
use crate::program::GlobalArgs;

#[derive(Parser, Debug)]
#[command(name = "peer", version = "0.1.0 (abc)")]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand, Debug)]
enum Cmd {
    Share(Share),
    Connect(Connect),
    #[command(subcommand)]
    Ticket(Ticket),
}

#[derive(Args, Debug)]
struct Share {
    targets: Vec<String>,
    #[arg(long, default_value = "built-in")]
    server: String,
    #[arg(long)]
    public: bool,
    #[arg(long)]
    allow: Vec<String>,
    #[arg(long)]
    udp_port: Option<u16>,
    #[arg(long, hide = true, default_value = "shown to nobody")]
    secret_knob: String,
}

#[derive(Args, Debug)]
struct Connect {
    #[arg(long, required = true)]
    server: String,
    #[arg(long)]
    listen: Vec<SocketAddr>,
    #[arg(long, value_enum, default_value = "auto")]
    path: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    Auto,
    Direct,
}

#[derive(Subcommand, Debug)]
enum Ticket {
    New {
        #[arg(long)]
        label: Option<String>,
    },
}

/// A home with this file in its usual place, and these variables beside HOME.
struct Home {
    dir: tempfile::TempDir,
    env: HashMap<String, String>,
}

impl Home {
    fn new(toml: &str, env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut env: HashMap<String, String> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        env.insert("HOME".to_owned(), dir.path().to_str().unwrap().to_owned());
        let home = Self { dir, env };
        if !toml.is_empty() {
            std::fs::create_dir_all(home.file().parent().unwrap()).unwrap();
            std::fs::write(home.file(), toml).unwrap();
        }
        home
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join(".config/culvert/peer.toml")
    }

    fn parse(&self, line: &str) -> Result<Cli, Exit> {
        let args = ["peer"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        Loader::new("peer").env(|name| self.env.get(name).map(OsString::from)).parse(args)
    }

    fn share(&self, line: &str) -> Share {
        let Cmd::Share(share) = self.parse(line).unwrap().command else { panic!("not share") };
        share
    }

    fn connect(&self, line: &str) -> Connect {
        let Cmd::Connect(connect) = self.parse(line).unwrap().command else { panic!("not connect") };
        connect
    }

    /// What is said of a wrong file or environment, without the directory.
    fn error(&self, line: &str) -> String {
        let exit = self.parse(line).unwrap_err();
        assert_eq!(exit.code(), Code::Usage);
        exit.message().replace(&format!("{}/", self.file().parent().unwrap().display()), "")
    }
}

#[test]
fn the_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let both = ("server = 'file'", [("CULVERT_SERVER", "env")]);
    assert_eq!(Home::new(both.0, &both.1).share("share --server flag").server, "flag");
    assert_eq!(Home::new(both.0, &both.1).share("share").server, "env");
    assert_eq!(Home::new(both.0, &[]).share("share").server, "file");
    assert_eq!(Home::new("", &[]).share("share").server, "built-in");
    assert_eq!(Home::new("", &both.1).share("share --server=flag").server, "flag");
}

#[test]
fn an_empty_variable_is_none() {
    let home = Home::new("server = 'file'", &[("CULVERT_SERVER", ""), ("CULVERT_PUBLIC", "")]);
    assert_eq!(home.share("share").server, "file");
}

#[test]
fn flags_are_truth_values_in_file_and_environment() {
    assert!(Home::new("public = true", &[]).share("share").public);
    assert!(!Home::new("public = false", &[]).share("share").public);
    assert!(Home::new("public = false", &[]).share("share --public").public);
    for (text, on) in
        [("1", true), ("yes", true), ("On", true), ("0", false), ("false", false), ("off", false)]
    {
        let home = Home::new(&format!("public = {}", !on), &[("CULVERT_PUBLIC", text)]);
        assert_eq!(home.share("share").public, on, "{text}");
    }
    assert_eq!(
        Home::new("", &[("CULVERT_PUBLIC", "perhaps")]).error("share"),
        "CULVERT_PUBLIC in the environment must be true or false"
    );
}

#[test]
fn a_repeatable_option_is_an_array_in_the_file_and_comma_separated_in_the_environment() {
    let toml = "allow = ['a', 'b']";
    assert_eq!(Home::new(toml, &[]).share("share").allow, ["a", "b"]);
    assert_eq!(Home::new("allow = 'a,b'", &[]).share("share").allow, ["a,b"], "a string in the file is one");
    let env = [("CULVERT_ALLOW", "c, d,")];
    assert_eq!(Home::new(toml, &env).share("share").allow, ["c", "d"]);
    assert_eq!(Home::new(toml, &env).share("share --allow e").allow, ["e"], "nearer places replace, not add");
    assert!(Home::new("allow = []", &[]).share("share").allow.is_empty());
}

#[test]
fn a_table_is_for_its_command_and_beats_the_top() {
    let home = Home::new("server = 'top'\n[share]\nserver = 'shared'\n[ticket.new]\nlabel = 'mine'", &[]);
    assert_eq!(home.share("share").server, "shared");
    assert_eq!(home.connect("connect").server, "top");
    let Cmd::Ticket(Ticket::New { label }) = home.parse("ticket new").unwrap().command else {
        panic!("not ticket")
    };
    assert_eq!(label.as_deref(), Some("mine"));
}

#[test]
fn a_top_level_key_goes_to_whichever_command_has_it() {
    let home = Home::new("listen = ['127.0.0.1:1', '[::1]:2']\npath = 'direct'\nserver = 's'", &[]);
    let connect = home.connect("connect");
    assert_eq!(connect.listen.len(), 2);
    assert_eq!(connect.path, Way::Direct);
    assert_eq!(home.share("share").server, "s");
}

#[test]
fn what_is_required_may_come_from_file_or_environment() {
    assert_eq!(Home::new("[connect]\nserver = 's'", &[]).connect("connect").server, "s");
    assert_eq!(Home::new("", &[("CULVERT_SERVER", "s")]).connect("connect --path direct").server, "s");
    let exit = Home::new("", &[]).parse("connect").unwrap_err();
    assert_eq!(exit.code(), Code::Usage);
    assert!(exit.message().contains("--server"), "{}", exit.message());
}

#[test]
fn global_options_are_layered_too_in_any_table() {
    let json = |toml: &str, env: &[(&str, &str)], line: &str| {
        let global = Home::new(toml, env).parse(line).unwrap().global;
        (global.json, global.verbose)
    };
    assert_eq!(json("json = true\nverbose = 2", &[], "share"), (true, 2));
    assert_eq!(json("[share]\njson = true", &[], "share"), (true, 0));
    assert_eq!(json("[connect]\njson = true", &[], "share"), (false, 0));
    assert_eq!(json("verbose = 2", &[("CULVERT_JSON", "on"), ("CULVERT_VERBOSE", "3")], "share"), (true, 3));
    assert_eq!(json("verbose = 2", &[], "share -v"), (false, 1));
    assert_eq!(json("", &[], "--json -v share -v --json"), (true, 1));
}

#[test]
fn an_unknown_key_names_file_line_and_the_nearest_known_key() {
    for (toml, expected) in [
        ("\n# x\nservr = 'a'", "peer.toml:3: unknown key `servr`; the nearest known one is `server`"),
        ("[share]\nallwo = []", "peer.toml:2: unknown key `allwo`; the nearest known one is `allow`"),
        (
            "[share]\n\nudp_port = 1",
            "peer.toml:3: unknown key `udp_port`; the nearest known one is `udp-port`",
        ),
        ("share.publik = true", "peer.toml:1: unknown key `publik`; the nearest known one is `public`"),
        ("[share]\nlisten = []", "peer.toml:2: unknown key `listen`; the nearest known one is `json`"),
        (
            "\n\n[shaer]\npublic = true",
            "peer.toml:3: unknown table `shaer`; the nearest known one is `share`",
        ),
        ("config = 'x'", "peer.toml:1: unknown key `config`; the nearest known one is `json`"),
        ("help = true", "peer.toml:1: unknown key `help`; the nearest known one is `allow`"),
    ] {
        assert_eq!(Home::new(toml, &[]).error("connect"), expected);
    }
}

#[test]
fn hidden_options_are_no_keys_and_no_variables() {
    let message = Home::new("secret-knob = 'x'", &[]).error("share");
    assert!(message.starts_with("peer.toml:1: unknown key `secret-knob`"), "{message}");
    let home = Home::new("", &[("CULVERT_SECRET_KNOB", "x")]);
    assert_eq!(home.share("share").secret_knob, "shown to nobody");
}

#[test]
fn a_wrong_value_names_file_and_line() {
    for (toml, expected) in [
        ("public = 'yes'", "peer.toml:1: `public` must be true or false"),
        ("\n[share]\nserver = 5", "peer.toml:3: `server` must be a string, in quotes"),
        ("allow = ['a',\n 5]", "peer.toml:2: `allow` must be a string, in quotes"),
        ("server = ['a']", "peer.toml:1: `server` takes one value, not an array"),
        ("[server]\nx = 1", "peer.toml:1: `server` is an option, not a table"),
        ("share = true", "peer.toml:1: `share` is a command: its options belong in a table `[share]`"),
        ("udp-port = 70000", "peer.toml:1: `udp-port` is not valid: 70000 is not in 0..=65535"),
        (
            "listen = [\n  '127.0.0.1:1',\n  'nowhere',\n]",
            "peer.toml:3: `listen` is not valid: invalid socket address syntax",
        ),
        ("path = 'sideways'", "peer.toml:1: `path` must be auto or direct"),
        ("server = 1979-05-27", "peer.toml:1: `server` must be a string or a number"),
        ("verbose = 'much'", "peer.toml:1: `verbose` must be a whole number"),
        ("a = 1\na = 2", "peer.toml:2: duplicate key"),
    ] {
        assert_eq!(Home::new(toml, &[]).error("connect"), expected);
    }
    assert_eq!(Home::new("udp-port = '8080'", &[]).share("share").udp_port, Some(8080));
    assert_eq!(Home::new("udp-port = 8080", &[]).share("share").udp_port, Some(8080));
}

#[test]
fn a_file_that_is_no_toml_or_no_text_names_the_line() {
    let message = Home::new("server = 'x'\npublic = = true", &[]).error("share");
    assert!(message.starts_with("peer.toml:2: ") && !message.contains('\n'), "{message}");
    let home = Home::new("x", &[]);
    std::fs::write(home.file(), b"server = 'x'\n# \xff").unwrap();
    assert_eq!(home.error("share"), "peer.toml:2: is not UTF-8");
}

#[test]
fn a_wrong_variable_is_named_and_its_value_is_not() {
    for (name, value, expected) in [
        (
            "CULVERT_UDP_PORT",
            "70000",
            "CULVERT_UDP_PORT in the environment is not valid: 70000 is not in 0..=65535",
        ),
        (
            "CULVERT_LISTEN",
            "127.0.0.1:1,x",
            "CULVERT_LISTEN in the environment is not valid: invalid socket address syntax",
        ),
        ("CULVERT_PATH", "secret", "CULVERT_PATH in the environment must be auto or direct"),
    ] {
        let command = if name == "CULVERT_UDP_PORT" { "share" } else { "connect --server s" };
        assert_eq!(Home::new("", &[(name, value)]).error(command), expected);
    }
}

#[test]
fn a_named_file_must_be_there_and_the_usual_one_need_not() {
    let home = Home::new("", &[]);
    assert!(home.parse("share").is_ok());
    let message = home.error("share --config /nowhere/x.toml");
    assert!(message.starts_with("/nowhere/x.toml: there is no such file"), "{message}");
    let home = Home::new("server = 'usual'", &[]);
    let named = home.dir.path().join("named.toml");
    std::fs::write(&named, "server = 'named'").unwrap();
    assert_eq!(home.share(&format!("share --config {}", named.display())).server, "named");
    assert_eq!(home.share(&format!("--config={} share", named.display())).server, "named");
    let by_env = Home::new("server = 'usual'", &[("CULVERT_CONFIG", named.to_str().unwrap())]);
    assert_eq!(by_env.share("share").server, "named");
    assert_eq!(by_env.parse("share").unwrap().global.config.as_deref(), Some(named.as_path()));
    assert!(Home::new("", &[("CULVERT_CONFIG", "/nowhere")]).parse("share").is_err());
}

#[test]
fn the_usual_file_follows_xdg() {
    let home = Home::new("server = 'home'", &[]);
    let xdg = tempfile::tempdir().unwrap();
    std::fs::create_dir(xdg.path().join("culvert")).unwrap();
    std::fs::write(xdg.path().join("culvert/peer.toml"), "server = 'xdg'").unwrap();
    let mut home = home;
    home.env.insert("XDG_CONFIG_HOME".to_owned(), xdg.path().to_str().unwrap().to_owned());
    assert_eq!(home.share("share").server, "xdg");
    home.env.insert("XDG_CONFIG_HOME".to_owned(), "relative".to_owned());
    assert_eq!(home.share("share").server, "home");
}

#[test]
fn help_and_version_work_even_with_a_broken_file_and_exit_0() {
    let home = Home::new("broken = = =", &[]);
    for line in ["--help", "--version", "share --help", "help share"] {
        assert_eq!(home.parse(line).unwrap_err().code(), Code::Done, "{line}");
    }
    for line in ["share --bogus", "bogus", ""] {
        assert_eq!(home.parse(line).unwrap_err().code(), Code::Usage, "{line}");
    }
    let message = home.parse("share --bogus").unwrap_err().message();
    assert_eq!(message, "unexpected argument '--bogus' found");
}

#[derive(Parser, Debug)]
#[command(name = "rendezvous", version)]
struct Server {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: ServerCmd,
}

#[derive(Subcommand, Debug)]
enum ServerCmd {
    Serve {
        #[arg(long)]
        domain: Option<String>,
    },
    #[command(alias = "tidy")]
    Clean,
}

#[test]
fn the_default_subcommand_is_inserted_where_none_is_named() {
    let command = <Server as clap::CommandFactory>::command();
    for (line, expected) in [
        ("", "serve"),
        ("--domain x", "serve --domain x"),
        ("--json -vv --domain x", "--json -vv serve --domain x"),
        ("--config serve", "--config serve serve"),
        ("--config=a -v", "--config=a -v serve"),
        ("serve --domain x", "serve --domain x"),
        ("-v serve", "-v serve"),
        ("clean", "clean"),
        ("tidy", "tidy"),
        ("help", "help"),
        ("--help", "--help"),
        ("-V", "-V"),
        ("--json --version", "--json --version"),
        ("--config", "--config serve"),
        ("-x", "serve -x"),
        ("-vx", "serve -vx"),
        ("-- x", "serve -- x"),
    ] {
        let words = |line: &str| -> Vec<OsString> {
            ["rendezvous"].into_iter().chain(line.split_whitespace()).map(OsString::from).collect()
        };
        let mut args = words(line);
        insert_subcommand(&command, &mut args, "serve");
        assert_eq!(args, words(expected), "{line}");
    }
}

#[test]
fn the_default_subcommand_reads_its_table() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.toml");
    std::fs::write(&file, "[serve]\ndomain = 'example.com'").unwrap();
    let args = |file: &Path| ["rendezvous".into(), "--config".into(), file.as_os_str().to_owned()];
    let loader = Loader::new("rendezvous").default_subcommand("serve").env(|_| None);
    let cli: Server = loader.parse(args(&file)).unwrap();
    assert!(!cli.global.json);
    assert!(matches!(cli.command, ServerCmd::Serve { domain: Some(d) } if d == "example.com"));
}
