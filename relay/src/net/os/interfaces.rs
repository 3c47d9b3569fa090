//! Our own interfaces, and what the system tells of them: on Linux by files under `/sys/class/net`, and elsewhere no
//! more than their names, prefixes and whether they are point-to-point.

use std::io;
use std::path::{Path, PathBuf};

use if_addrs::{IfAddr, Interface};
use proto::interface::{Device, OwnAddress};

/// Where Linux describes each device in a folder of its own.
const DEVICES: &str = "/sys/class/net";

/// The type of a device without link-layer addresses, as WireGuard's (`ARPHRD_NONE` in the kernel's `if_arp.h`).
const TYPE_NONE: u32 = 65534;

/// How the devices of container engines and virtual machines are named, for where nothing else tells.
const BRIDGES: [&str; 7] = ["docker", "br-", "veth", "virbr", "cni", "podman", "lxcbr"];

/// The addresses of the interfaces that are up, without loopback.
pub(super) fn list() -> io::Result<Vec<OwnAddress>> {
    let interfaces = if_addrs::get_if_addrs()?;
    let others = interfaces.iter().filter(|interface| interface.is_oper_up() && !interface.is_loopback());
    Ok(others.map(own_address).collect())
}

fn own_address(interface: &Interface) -> OwnAddress {
    let prefix = match &interface.addr {
        IfAddr::V4(v4) => v4.prefixlen,
        IfAddr::V6(v6) => v6.prefixlen,
    };
    let folder = Path::new(DEVICES).join(&interface.name);
    let device = Device {
        name: interface.name.clone(),
        is_point_to_point: interface.is_p2p(),
        ..described(&folder, &interface.name)
    };
    OwnAddress { ip: interface.ip(), prefix: Some(prefix), device }
}

/// What the files of a device say. Where there are none, its name is all there is.
fn described(folder: &Path, name: &str) -> Device {
    if !folder.is_dir() {
        let is_bridge = BRIDGES.iter().any(|begin| name.starts_with(begin));
        return Device { is_bridge, ..Device::default() };
    }
    let is_hardware = is_hardware(folder);
    Device {
        mtu: number(&folder.join("mtu")),
        is_hardware,
        is_bridge: folder.join("bridge").is_dir() && !joins_hardware(folder),
        is_tunnel: folder.join("tun_flags").exists() || number(&folder.join("type")) == Some(TYPE_NONE),
        ..Device::default()
    }
}

fn is_hardware(folder: &Path) -> bool {
    folder.join("device").exists()
}

/// Whether a bridge leads out of this machine: then it is an Ethernet like any other.
fn joins_hardware(folder: &Path) -> bool {
    let Ok(ports) = folder.join("brif").read_dir() else { return false };
    let beside = |name| folder.parent().map(|devices: &Path| devices.join::<PathBuf>(name));
    ports.flatten().filter_map(|port| beside(port.file_name().into())).any(|port| is_hardware(&port))
}

fn number(file: &Path) -> Option<u32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder as Linux has it, with these files; a name that ends with a slash is a folder.
    fn devices(entries: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in entries {
            let path = root.path().join(name);
            if name.ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        }
        root
    }

    fn read(root: &tempfile::TempDir, name: &str) -> Device {
        described(&root.path().join(name), name)
    }

    #[test]
    fn a_device_is_known_by_its_files() {
        let root = devices(&[
            ("eth0/device/", ""),
            ("eth0/mtu", "1500\n"),
            ("eth0/type", "1\n"),
            ("zt0/tun_flags", "0x1002\n"),
            ("zt0/mtu", "2800\n"),
            ("wg0/type", "65534\n"),
            ("docker0/bridge/", ""),
            ("br0/bridge/", ""),
            ("br0/brif/eth0/", ""),
        ]);
        let eth0 = read(&root, "eth0");
        assert!(eth0.is_hardware && !eth0.is_tunnel && !eth0.is_bridge && eth0.mtu == Some(1500));
        assert!(read(&root, "zt0").is_tunnel && read(&root, "wg0").is_tunnel);
        assert!(read(&root, "docker0").is_bridge);
        assert!(!read(&root, "br0").is_bridge, "it leads out by hardware");
    }

    #[test]
    fn a_device_without_files_is_known_by_its_name() {
        let root = devices(&[]);
        assert!(read(&root, "docker0").is_bridge && read(&root, "br-8f21").is_bridge);
        assert_eq!(read(&root, "en0"), Device::default());
    }
}
