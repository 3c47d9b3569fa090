//! The real nginx, as a plain reverse proxy.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

pub(crate) struct Nginx {
    child: Child,
    pub(crate) at: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// In front of `upstream`; `None` where there is no nginx here. In CI there must be one.
pub(crate) async fn start(upstream: SocketAddr) -> Option<Nginx> {
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nginx is missing (Debian: nginx-light)");
        eprintln!("without nginx (Debian: nginx-light) there is nothing to compare with");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    // nginx does not say which port it got: ask for a free one, and again should somebody have been quicker.
    for _ in 0..10 {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = free.local_addr().unwrap();
        drop(free);
        let conf = dir.path().join("nginx.conf");
        fs::write(&conf, configuration(dir.path(), at, upstream)).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(dir.path()).arg("-c").arg(&conf).stderr(Stdio::null()).stdin(Stdio::null());
        let mut child = command.spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            if TcpStream::connect(at).await.is_ok() && child.try_wait().unwrap().is_none() {
                return Some(Nginx { child, at, _dir: dir });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    panic!("nginx does not start: {}", fs::read_to_string(dir.path().join("errors")).unwrap_or_default());
}

fn configuration(dir: &std::path::Path, listen: SocketAddr, upstream: SocketAddr) -> String {
    let file = |name: &str| dir.join(name).display().to_string();
    format!(
        "daemon off;\nmaster_process off;\npid {pid};\nerror_log {errors};\nevents {{}}\nhttp {{\naccess_log off;\n\
         client_body_temp_path {body};\nproxy_temp_path {proxy};\nserver {{\nlisten {listen};\nserver_name \
         *.example.test;\nclient_max_body_size 0;\nlocation / {{\nproxy_pass http://{upstream};\n\
         proxy_http_version 1.1;\nproxy_set_header Host $http_host;\nproxy_set_header Upgrade $http_upgrade;\n\
         proxy_set_header Connection upgrade;\n}}\n}}\n}}\n",
        pid = file("pid"),
        errors = file("errors"),
        body = file("body"),
        proxy = file("proxy"),
    )
}
