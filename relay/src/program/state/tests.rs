use std::collections::BTreeMap;

use super::*;

type Names = BTreeMap<String, u32>;

fn names() -> Names {
    [("alder".to_owned(), 1), ("birch".to_owned(), 2)].into()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn listing(dir: &Path) -> Vec<String> {
    let mut all: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

#[test]
fn what_is_saved_is_loaded_and_only_its_owner_can_read_it() {
    let tmp = tempfile::tempdir().unwrap();
    let file = StateFile::<Names>::new(tmp.path().join("deep/er/names.json"));
    assert_eq!(file.load().unwrap(), None);
    file.save(&names()).unwrap();
    assert_eq!(file.load().unwrap(), Some(names()));
    file.save(&Names::new()).unwrap();
    assert_eq!(file.load().unwrap(), Some(Names::new()));
    assert_eq!(mode(file.path()), 0o600);
    assert_eq!(mode(&tmp.path().join("deep/er")), 0o700);
    assert_eq!(listing(&tmp.path().join("deep/er")), ["names.json"]);
}

#[test]
fn the_file_is_readable_text_under_a_checksum() {
    let tmp = tempfile::tempdir().unwrap();
    let file = StateFile::<Names>::new(tmp.path().join("names.json"));
    file.save(&names()).unwrap();
    let text = fs::read_to_string(file.path()).unwrap();
    let (header, body) = text.split_once('\n').unwrap();
    assert!(header.starts_with("culvert-state 1 sha256="), "{header}");
    assert_eq!(serde_json::from_str::<Names>(body).unwrap(), names());
}

#[test]
fn a_flipped_bit_anywhere_moves_the_file_aside_and_says_so() {
    let tmp = tempfile::tempdir().unwrap();
    let file = StateFile::<Names>::new(tmp.path().join("names.json"));
    file.save(&names()).unwrap();
    let whole = fs::read(file.path()).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(file.path(), &flipped).unwrap();
        match file.load() {
            Err(Error::Damaged { path, kept_as }) => {
                assert_eq!(path, file.path());
                assert!(kept_as.to_string_lossy().contains("names.json.damaged-"), "{kept_as:?}");
                assert_eq!(fs::read(&kept_as).unwrap(), flipped, "kept as it was");
            }
            other => panic!("byte {at}: {other:?}"),
        }
        assert_eq!(file.load().unwrap(), None, "nothing stands in its place");
    }
    assert_eq!(listing(tmp.path()).len(), whole.len(), "none was overwritten by the next");
}

#[test]
fn a_good_file_that_replaced_a_damaged_one_meanwhile_is_put_back() {
    let tmp = tempfile::tempdir().unwrap();
    let file = StateFile::<Names>::new(tmp.path().join("names.json"));
    file.save(&names()).unwrap();
    assert_eq!(file.set_aside(b"what we read before").unwrap(), None);
    assert_eq!(file.load().unwrap(), Some(names()));
    assert_eq!(listing(tmp.path()), ["names.json"]);
}

#[test]
fn a_file_of_another_shape_is_refused_and_left_alone() {
    let tmp = tempfile::tempdir().unwrap();
    StateFile::<Vec<u32>>::new(tmp.path().join("x")).save(&vec![1]).unwrap();
    let error = StateFile::<Names>::new(tmp.path().join("x")).load().unwrap_err();
    assert!(matches!(error, Error::OtherVersion { .. }), "{error:?}");
    assert_eq!(listing(tmp.path()), ["x"]);
}

#[test]
fn a_save_that_fails_leaves_the_old_file_and_no_litter() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("taken");
    fs::create_dir_all(path.join("by a directory")).unwrap();
    let error = StateFile::<Names>::new(&path).save(&names()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert_eq!(listing(tmp.path()), ["taken"]);
}

#[test]
fn readers_during_saves_see_whole_files_only() {
    let tmp = tempfile::tempdir().unwrap();
    let file = StateFile::<Vec<u32>>::new(tmp.path().join("counts"));
    file.save(&vec![0; 1000]).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (1..30).for_each(|i| file.save(&vec![i; 1000]).unwrap()));
        while !writer.is_finished() {
            let seen = file.load().unwrap().unwrap();
            assert!(seen.len() == 1000 && seen.iter().all(|n| *n == seen[0]));
        }
    });
}

#[test]
fn a_secret_is_made_once_and_kept() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("own/key");
    let secret = load_or_create_secret(&path, || vec![0, 10, 255]).unwrap();
    assert_eq!(secret, [0, 10, 255]);
    assert_eq!(load_or_create_secret(&path, || panic!("there is one")).unwrap(), secret);
    assert_eq!((mode(&path), mode(&tmp.path().join("own"))), (0o600, 0o700));
    assert_eq!(listing(&tmp.path().join("own")), ["key"]);
}

#[test]
fn sixteen_that_make_a_secret_at_once_agree_on_it() {
    for _ in 0..20 {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("own/key");
        let barrier = std::sync::Barrier::new(16);
        let secrets: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let make = |i: u8| {
                let (path, barrier) = (&path, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    load_or_create_secret(path, || vec![i; 4096]).unwrap()
                })
            };
            let threads: Vec<_> = (0..16).map(make).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
        assert_eq!(load_secret(&path).unwrap().as_ref(), Some(&secrets[0]));
        assert_eq!(listing(&tmp.path().join("own")), ["key"]);
    }
}

#[test]
fn a_secret_that_others_can_read_is_refused_with_the_remedy() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("key");
    load_or_create_secret(&path, || vec![1]).unwrap();
    for exposed in [0o640, 0o604, 0o620, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).unwrap();
        let error = load_or_create_secret(&path, || panic!("must not replace it")).unwrap_err();
        assert!(matches!(&error, Error::Exposed { mode, .. } if *mode == exposed), "{error:?}");
        assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(load_secret(&path).unwrap(), Some(vec![1]));
}

#[test]
fn a_damaged_secret_is_refused_every_time_and_left_in_place() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("key");
    load_or_create_secret(&path, || vec![7; 32]).unwrap();
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, &flipped).unwrap();
        let error = load_or_create_secret(&path, || panic!("must not replace it")).unwrap_err();
        assert!(matches!(error, Error::DamagedSecret { .. }), "byte {at}: {error:?}");
    }
    assert_eq!(Failure::from(load_secret(&path).unwrap_err()).slug, "state-damaged");
}

#[test]
fn state_lives_where_xdg_says_and_relative_paths_do_not_count() {
    let place = |xdg: Option<&'static str>, home: Option<&'static str>| {
        let env = move |name: &str| match name {
            "XDG_STATE_HOME" => xdg.map(OsString::from),
            "HOME" => home.map(OsString::from),
            _ => None,
        };
        base(env, "XDG_STATE_HOME", ".local/state")
    };
    assert_eq!(place(Some("/x"), Some("/h")), Some("/x".into()));
    assert_eq!(place(Some("x"), Some("/h")), Some("/h/.local/state".into()));
    assert_eq!(place(None, Some("/h")), Some("/h/.local/state".into()));
    assert_eq!(place(Some(""), None), None);
}
