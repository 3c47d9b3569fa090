//! The real nginx, in a directory and at an address of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// An nginx that runs until this is dropped.
pub(crate) struct Nginx {
    child: Child,
    /// Where it listens.
    pub(crate) at: SocketAddr,
    dir: tempfile::TempDir,
}

impl Nginx {
    /// Starts one with what `http` says inside of `http { … }`, given a directory for files and the address to listen
    /// at. `None` where there is no nginx here; in CI there must be one.
    ///
    /// The address is bound before nginx starts, which takes the socket over as it does from an older nginx that it
    /// replaces: nobody else can be quicker, and a client may connect at once.
    pub(crate) fn start(http: impl FnOnce(&Path, SocketAddr) -> String) -> Option<Self> {
        if is_missing() {
            return None;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (at, dir) = (listener.local_addr().unwrap(), tempfile::tempdir().unwrap());
        let conf = dir.path().join("nginx.conf");
        fs::write(&conf, configuration(dir.path(), &http(dir.path(), at))).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(dir.path()).arg("-c").arg(&conf).stderr(Stdio::null());
        // Descriptor 0 is a socket to listen on.
        command.env("NGINX", "0;").stdin(OwnedFd::from(listener));
        Some(Self { child: command.spawn().unwrap(), at, dir })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its master ends its worker.
        let _gone = Command::new("kill").arg(self.child.id().to_string()).status();
        let _gone = self.child.wait();
        if std::thread::panicking() {
            eprintln!("nginx: {}", fs::read_to_string(self.dir.path().join("errors")).unwrap_or_default());
        }
    }
}

fn is_missing() -> bool {
    let missing = Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err();
    if missing {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nginx is missing (Debian: nginx-light)");
        eprintln!("skipped: nginx is missing (Debian: nginx-light)");
    }
    missing
}

fn configuration(dir: &Path, http: &str) -> String {
    let file = |name: &str| dir.join(name).display().to_string();
    format!(
        "daemon off;\nworker_processes 1;\npid {pid};\nerror_log {errors};\nevents {{}}\nhttp {{\naccess_log off;\n\
         client_body_temp_path {body};\nproxy_temp_path {proxy};\n{http}\n}}\n",
        pid = file("pid"),
        errors = file("errors"),
        body = file("body"),
        proxy = file("proxy"),
    )
}
