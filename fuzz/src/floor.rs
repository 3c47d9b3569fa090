//! What `relay` reads: batches of datagrams, and files of state.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use quinn::udp::RecvMeta;
use relay::demux::{Class, classify, split};
use relay::program::state::{Error, StateFile, load_secret};

/// The targets here, by the names of their corpora.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[("demux", demux), ("state_file", state_file)];

/// A receive buffer: the first four bytes are what the kernel says of it.
pub fn demux(data: &[u8]) {
    let [len_high, len_low, stride_high, stride_low, bytes @ ..] = data else { return };
    let len = usize::from(u16::from_be_bytes([*len_high, *len_low]));
    let stride = usize::from(u16::from_be_bytes([*stride_high, *stride_low]));
    let mut meta = RecvMeta { len, stride, ..RecvMeta::default() };
    let mut buffer = bytes.to_vec();
    let mut others = 0;
    split(&mut buffer, &mut meta, |class, datagram| {
        assert!(class != Class::Quic && classify(datagram) == class);
        others += datagram.len();
    });
    if len > bytes.len() || stride == 0 {
        assert_eq!((meta.len, others), (0, 0));
        return;
    }
    assert_eq!(meta.len + others, len, "bytes are lost");
    let kept: Vec<u8> =
        bytes[..len].chunks(stride).filter(|it| classify(it) == Class::Quic).flatten().copied().collect();
    assert_eq!(buffer[..meta.len], kept);
}

/// A file of state and a secret's file, with a first line that fits their content where the first byte is odd.
pub fn state_file(data: &[u8]) {
    let Some((first, content)) = data.split_first() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    check_state(&directory.path().join("state"), &sealed(first % 2 == 1, "culvert-state", content));
    check_secret(&directory.path().join("secret"), &sealed(first % 2 == 1, "culvert-secret", content));
}

fn sealed(seal: bool, kind: &str, content: &[u8]) -> Vec<u8> {
    if !seal {
        return content.to_vec();
    }
    let named = [format!("{kind} 1\n").as_bytes(), content].concat();
    let sum = ring::digest::digest(&ring::digest::SHA256, &named);
    let hex: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let line = format!("{kind} 1 sha256={hex}\n");
    [line.as_bytes(), content].concat()
}

/// What is read can be saved and read again; what is damaged is kept, byte for byte.
fn check_state(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("it is written");
    let file = StateFile::<BTreeMap<String, String>>::new(path);
    match file.load() {
        Ok(Some(value)) => {
            file.save(&value).expect("it is saved");
            assert_eq!(file.load().expect("it is read"), Some(value));
        }
        Ok(None) => panic!("the file is there"),
        Err(Error::Damaged { kept_as, .. }) => {
            assert_eq!(fs::read(kept_as).expect("it is kept"), bytes);
            assert_eq!(file.load().expect("nothing is in its place"), None);
        }
        Err(Error::OtherVersion { .. }) => assert_eq!(fs::read(path).expect("it is left"), bytes),
        Err(error) => panic!("{error}"),
    }
}

fn check_secret(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("it is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    match load_secret(path) {
        Ok(Some(secret)) => assert!(bytes.ends_with(&secret)),
        Ok(None) => panic!("the file is there"),
        Err(Error::DamagedSecret { .. } | Error::OtherVersion { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    assert_eq!(fs::read(path).expect("it is left"), bytes);
}
