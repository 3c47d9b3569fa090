//! What `cargo metadata` says of the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// The answer of `cargo metadata`, for this machine's target.
pub(crate) struct Workspace(Value);

impl Workspace {
    pub(crate) fn load() -> Self {
        // Of other targets' dependencies nothing is needed here, and nothing may have been fetched.
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &host()])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    pub(crate) fn root(&self) -> PathBuf {
        text(&self.0["workspace_root"]).into()
    }

    /// The names of the workspace's crates.
    pub(crate) fn members(&self) -> Vec<String> {
        self.member_packages().map(|package| text(&package["name"])).collect()
    }

    pub(crate) fn manifests(&self) -> Vec<PathBuf> {
        self.member_packages().map(|package| text(&package["manifest_path"]).into()).collect()
    }

    /// The crates that a member names as normal dependencies.
    pub(crate) fn dependencies(&self, member: &str) -> Vec<String> {
        self.declared(member).filter(|it| it["kind"].is_null()).map(|it| text(&it["name"])).collect()
    }

    /// The crates that a member names, for whatever.
    pub(crate) fn all_dependencies(&self, member: &str) -> Vec<String> {
        self.declared(member).map(|it| text(&it["name"])).collect()
    }

    /// The features that a member asks of a dependency.
    pub(crate) fn requested_features(&self, member: &str, dependency: &str) -> Vec<String> {
        let declared = self.declared(member).find(|it| it["name"] == dependency).expect("it is declared");
        let mut features: Vec<_> = list(&declared["features"]).map(text).collect();
        if declared["uses_default_features"] == true {
            features.push("default".to_owned());
        }
        features
    }

    /// Everything that is linked with a member, and by whom it came. What only runs at build time is none.
    pub(crate) fn linked(&self, member: &str) -> BTreeMap<String, String> {
        let packages = self.by_id();
        let nodes: BTreeMap<&str, &Value> =
            list(&self.0["resolve"]["nodes"]).map(|node| (id(&node["id"]), node)).collect();
        let start = id(&self.member(member)["id"]);
        let (mut linked, mut seen, mut queue) = (BTreeMap::new(), BTreeSet::from([start]), vec![start]);
        while let Some(at) = queue.pop() {
            for dependency in list(&nodes[at]["deps"]) {
                let next = id(&dependency["pkg"]);
                let normal = list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null());
                let runs_at_build = list(&packages[next]["targets"])
                    .any(|target| list(&target["kind"]).any(|kind| kind == "proc-macro"));
                if normal && !runs_at_build && seen.insert(next) {
                    linked.insert(text(&packages[next]["name"]), text(&packages[at]["name"]));
                    queue.push(next);
                }
            }
        }
        linked
    }

    /// The programs that `cargo build --workspace --bins` makes.
    pub(crate) fn programs(&self) -> Vec<String> {
        let targets = self.member_packages().flat_map(|package| list(&package["targets"]));
        let programs = targets.filter(|target| list(&target["kind"]).any(|kind| kind == "bin"));
        programs.map(|target| text(&target["name"])).collect()
    }

    /// Every package that is used on this target, with its licence.
    pub(crate) fn licences(&self) -> Vec<(String, String)> {
        let packages = self.by_id();
        list(&self.0["resolve"]["nodes"])
            .map(|node| packages[id(&node["id"])])
            .map(|it| (text(&it["name"]), it["license"].as_str().unwrap_or("none").to_owned()))
            .collect()
    }

    fn declared(&self, member: &str) -> impl Iterator<Item = &Value> {
        list(&self.member(member)["dependencies"])
    }

    fn member(&self, name: &str) -> &Value {
        self.member_packages().find(|package| package["name"] == name).expect("a member of the workspace")
    }

    fn member_packages(&self) -> impl Iterator<Item = &Value> {
        let packages = self.by_id();
        list(&self.0["workspace_members"]).map(move |member| packages[id(member)])
    }

    fn by_id(&self) -> BTreeMap<&str, &Value> {
        list(&self.0["packages"]).map(|package| (id(&package["id"]), package)).collect()
    }
}

/// The target that cargo builds for.
fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().expect("rustc runs");
    let about = String::from_utf8(output.stdout).expect("text");
    about.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn id(value: &Value) -> &str {
    value.as_str().expect("an id")
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}
