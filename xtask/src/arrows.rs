//! Which crate may use which, written once, with the reason; compared with what `cargo metadata` says.
//!
//! The line that matters runs between deciding and doing. The pure crates hold every decision and
//! reach nothing of the world, so that the simulator can drive the code that ships. The day `sim`
//! needs a crate that does I/O, the line has been crossed.

use crate::tree;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One crate of ours and what it may use of ours.
pub(crate) struct Room {
    /// The crate.
    pub(crate) name: &'static str,
    /// Decides and never does: guarded against clocks, chance, threads and hash order.
    pub(crate) pure: bool,
    /// The crates of ours it may depend on, in any kind of dependency.
    may_use: &'static [&'static str],
    /// Why these and no other.
    why: &'static str,
}

/// The table. A new arrow is a change here, with its reason, before it is a line in a Cargo.toml.
pub(crate) const ROOMS: &[Room] = &[
    Room {
        name: "base",
        pure: true,
        may_use: &[],
        why: "what both sides must name; everything rests on it, so it rests on nothing",
    },
    Room {
        name: "objects",
        pure: true,
        may_use: &["base"],
        why: "Kubernetes' meaning as values; knows no log, no cluster, no connection",
    },
    Room {
        name: "agree",
        pure: true,
        may_use: &["base"],
        why: "keys, bytes and revisions, never kinds: workload cells use it too",
    },
    Room {
        name: "decide",
        pure: true,
        may_use: &["objects", "base"],
        why: "a decision is a function of objects and the present; agreement about it is somebody else's",
    },
    Room {
        name: "node",
        pure: true,
        may_use: &["decide", "agree", "objects", "base"],
        why: "the one place where the pure cores meet; the program and the simulator drive this same type",
    },
    Room {
        name: "identity",
        pure: false,
        may_use: &["base"],
        why: "keys and certificates; audited alone, so it knows nothing of what they protect",
    },
    Room {
        name: "api",
        pure: false,
        may_use: &["objects", "base"],
        why: "bytes into values and back; a gateway that could reach a cell would start deciding",
    },
    Room {
        name: "host",
        pure: false,
        may_use: &["objects", "base"],
        why: "this machine's disk, runtime and network; told what to do by value",
    },
    Room {
        name: "mesh",
        pure: false,
        may_use: &["identity", "base"],
        why: "carries envelopes between proven peers and opens none",
    },
    Room {
        name: "dataplane",
        pure: false,
        may_use: &["identity", "objects", "base"],
        why: "enters other network namespaces; audited alone",
    },
    Room {
        name: "sim",
        pure: true,
        may_use: &["node", "decide", "agree", "objects", "base"],
        why: "drives the code that ships in a world of its own: one doing crate here and it simulates nothing",
    },
    Room {
        name: "beemesh",
        pure: false,
        may_use: &["node", "decide", "agree", "objects", "base", "api", "host", "mesh", "identity", "dataplane"],
        why: "composes both bands; nothing that ships needs the simulator or the chores",
    },
    Room {
        name: "e2e",
        pure: false,
        may_use: &[],
        why: "drives the program a user gets; reaching inside would test something else",
    },
    Room { name: "xtask", pure: false, may_use: &[], why: "proves the tree, also when the tree does not compile" },
];

/// Crates from elsewhere that no pure crate may name, with what they would bring in.
const DOING: &[(&str, &str)] = &[
    ("tokio", "tasks, clocks and sockets"),
    ("async-std", "tasks, clocks and sockets"),
    ("futures", "tasks: a machine has `step`, it does not wait"),
    ("hyper", "sockets"),
    ("rustls", "connections"),
    ("tonic", "connections"),
    ("nix", "system calls"),
    ("libc", "system calls"),
    ("rustix", "system calls"),
    ("rand", "chance of its own: draw from base::Chance"),
    ("getrandom", "chance of its own: draw from base::Chance"),
    ("uuid", "chance of its own: base::Uid::from_chance"),
    ("chrono", "a clock of its own: base::Wall"),
    ("tracing", "a global subscriber: put the reason into the effect"),
    ("log", "a global logger: put the reason into the effect"),
    ("parking_lot", "locks: a machine is owned by whoever steps it"),
    ("dashmap", "locks and hash order"),
    ("ahash", "hash order: use BTreeMap"),
    ("hashbrown", "hash order: use BTreeMap"),
    ("indexmap", "a hash map's seed: use BTreeMap or a Vec"),
];

/// The crates that decide: each carries the guard of `purity`.
pub(crate) fn pure() -> impl Iterator<Item = &'static str> {
    ROOMS.iter().filter(|r| r.pure).map(|r| r.name)
}

/// The table for people.
pub(crate) fn table() -> String {
    let row = |r: &Room| {
        let uses = if r.may_use.is_empty() { "nothing".to_owned() } else { r.may_use.join(", ") };
        format!(
            "{:<10} {:<7} may use {uses}\n{:>18} {}\n",
            r.name,
            if r.pure { "decides" } else { "does" },
            "because:",
            r.why
        )
    };
    ROOMS.iter().map(row).collect()
}

/// Compares the workspace with the table.
///
/// # Errors
/// If cargo cannot describe the workspace, or an arrow is there that the table does not allow.
pub(crate) fn check() -> Result<()> {
    let out = tree::cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"])
        .output()
        .context("cannot start cargo metadata")?;
    if !out.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&out.stdout).context("cargo metadata printed no JSON")?;
    let wrong = violations(&dependencies(&metadata)?);
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{}\nThe table is xtask/src/arrows.rs; `cargo xtask arrows` prints it.", wrong.join("\n"))
}

/// Crate → every crate it names in its Cargo.toml, of ours or from elsewhere, whatever the kind but for
/// those only its tests name (a test may use a tool the crate itself must not).
fn dependencies(metadata: &Value) -> Result<BTreeMap<String, BTreeSet<Named>>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut all = BTreeMap::new();
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        let named = package["dependencies"].as_array().into_iter().flatten().filter_map(|d| {
            Some(Named {
                name: d["name"].as_str()?.to_owned(),
                ours: d["path"].is_string(),
                only_tests: d["kind"] == "dev",
            })
        });
        all.insert(name.to_owned(), named.collect());
    }
    Ok(all)
}

/// One dependency as a Cargo.toml states it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Named {
    name: String,
    ours: bool,
    only_tests: bool,
}

/// One line for everything the table does not allow.
fn violations(dependencies: &BTreeMap<String, BTreeSet<Named>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, named) in dependencies {
        let Some(room) = ROOMS.iter().find(|r| r.name == name) else {
            wrong.push(format!("{name} is not in the table of crates: say what it may use, and why"));
            continue;
        };
        for d in named {
            if d.ours && !room.may_use.contains(&d.name.as_str()) {
                wrong.push(format!("{name} -> {} is no arrow of the table. {name}: {}", d.name, room.why));
            }
            let doing = DOING.iter().find(|(doing, _)| *doing == d.name);
            if let (true, false, Some((_, brings))) = (room.pure, d.only_tests, doing) {
                wrong.push(format!("{name} decides and may not name {}: it brings {brings}", d.name));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn wrong(name: &str, dependency: Value) -> Vec<String> {
        let metadata = json!({"packages": [{"name": name, "dependencies": [dependency]}]});
        violations(&dependencies(&metadata).unwrap())
    }

    #[test]
    fn an_arrow_of_the_table_passes() {
        assert!(wrong("node", json!({"name": "agree", "path": "/x", "kind": null})).is_empty());
        assert!(wrong("api", json!({"name": "tokio", "kind": null})).is_empty());
    }

    #[test]
    fn any_other_arrow_is_refused_with_the_reason() {
        for kind in [Value::Null, json!("dev"), json!("build")] {
            let said = wrong("sim", json!({"name": "host", "path": "/x", "kind": kind}));
            assert!(said[0].contains("sim -> host") && said[0].contains("simulates nothing"), "{said:?}");
        }
        assert!(wrong("stranger", json!({"name": "serde"}))[0].contains("not in the table"));
    }

    #[test]
    fn a_pure_crate_may_not_name_a_crate_that_does() {
        assert!(wrong("agree", json!({"name": "tokio", "kind": null}))[0].contains("sockets"));
        assert!(wrong("agree", json!({"name": "tokio", "kind": "dev"})).is_empty());
    }

    #[test]
    fn the_table_has_no_circle_and_names_only_itself() {
        for (i, room) in ROOMS.iter().enumerate() {
            for used in room.may_use {
                let at = ROOMS.iter().position(|r| r.name == *used).unwrap();
                assert!(at != i, "{used} uses itself");
                assert!(!ROOMS[at].may_use.contains(&room.name), "{} and {used} use each other", room.name);
                assert!(!room.pure || ROOMS[at].pure, "{} decides and uses {used}, which does", room.name);
            }
        }
    }
}
