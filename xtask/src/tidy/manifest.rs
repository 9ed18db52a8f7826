//! What a crate may depend on, and what it must inherit.

use super::{Crate, Fault};

/// Who may see whom: a crate's folder, and the crates of the workspace that its library or program may use.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("ipam", &["weft-types"]),
    ("dns", &["weft-types"]),
    ("ebpf", &["weft-abi"]),
    ("ebpf/abi", &[]),
    ("dataplane", &["weft-types", "weft-abi"]),
    ("control", &["weft-types", "weft-ipam", "weft-proto"]),
    ("control/proto", &["weft-types"]),
    (
        "agent",
        &[
            "weft-types",
            "weft-proto",
            "weft-dns",
            "weft-dataplane",
            "weft-docker",
            "weft-control",
        ],
    ),
    ("agent/cluster", &["weft-types"]),
    (
        "agent/docker",
        &["weft-types", "weft-proto", "weft-cluster"],
    ),
    ("agent/gate", &[]),
    ("xtask", &[]),
    ("tests/images", &[]),
    (
        "tests/sim",
        &["weft-types", "weft-proto", "weft-control", "weft-agent"],
    ),
];

/// Names that say nothing about what is inside.
pub(super) const EMPTY_NAMES: [&str; 8] = [
    "common", "util", "utils", "helper", "helpers", "core", "misc", "shared",
];

/// Checks one crate's manifest.
pub(super) fn check(one: &Crate, faults: &mut Vec<Fault>) {
    let at = format!("{}/Cargo.toml", one.dir);
    let mut fault = |what: String| {
        faults.push(Fault {
            at: at.clone(),
            what,
        })
    };
    for (section, line) in [
        ("lints", "workspace = true"),
        ("package", "edition.workspace = true"),
        ("package", "rust-version.workspace = true"),
        ("package", "license.workspace = true"),
    ] {
        if !section_of(&one.manifest, section).any(|found| found == line) {
            fault(format!(
                "[{section}] lacks `{line}`; every crate is held to the same rules, write it"
            ));
        }
    }
    let name = section_of(&one.manifest, "package").find_map(|line| line.strip_prefix("name = "));
    let last = name
        .unwrap_or_default()
        .trim_matches('"')
        .rsplit('-')
        .next()
        .unwrap_or_default()
        .to_owned();
    if EMPTY_NAMES.contains(&last.as_str()) {
        fault(format!(
            "a crate called `{last}` says nothing about what is inside; name its one idea"
        ));
    }
    if let Some((_, allowed)) = DIRECTIONS.iter().find(|(dir, _)| *dir == one.dir) {
        for used in dependencies(&one.manifest) {
            if used.starts_with("weft-") && !allowed.contains(&used) {
                fault(format!(
                    "{} must not see {used}: it would turn the direction of the house around (ARCHITECTURE.md); \
                     move what you need down to a crate both may see, or hand it in as an argument",
                    one.dir
                ));
            }
        }
    } else if one.dir != "tests" {
        fault(format!(
            "{} has no place in the directions of the house; give it one in xtask/src/tidy/manifest.rs",
            one.dir
        ));
    }
}

/// Crates that the library or program itself uses; tests may look wherever they like.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    section_of(manifest, "dependencies")
        .chain(section_of(manifest, "build-dependencies"))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
}

fn section_of<'a>(manifest: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let header = format!("[{name}]");
    manifest
        .lines()
        .map(str::trim)
        .skip_while(move |line| *line != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(dir: &str, dependencies: &str) -> Vec<String> {
        let manifest = format!(
            "[package]\nname = \"weft-x\"\nedition.workspace = true\nrust-version.workspace = true\n\
             license.workspace = true\n[lints]\nworkspace = true\n[dependencies]\n{dependencies}\n"
        );
        let mut faults = Vec::new();
        check(
            &Crate {
                dir: dir.into(),
                manifest,
            },
            &mut faults,
        );
        faults.into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn a_dependency_against_the_direction_is_named() {
        let faults = faults_of(
            "control",
            "weft-types.workspace = true\nweft-dataplane = { workspace = true }",
        );
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("control must not see weft-dataplane"));
    }

    #[test]
    fn a_dependency_with_the_direction_is_welcome() {
        assert!(
            faults_of(
                "dataplane",
                "weft-abi = { workspace = true, features = [\"user\"] }"
            )
            .is_empty()
        );
    }
}
