//! Other people's tests of Docker's API, run against a fresh single host of ours.
//!
//! docker-py's integration tests for swarm objects are fetched when asked for; nothing of them is kept in the tree. What fails and why is
//! written in `tests/compat/README.md`: a failure that is not named there is an error, and so is a named one that passes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::run::run;
use crate::testbed::plan::Host;
use crate::testbed::{self, up};
use crate::{build, evidence, place, rights, setup};

/// The suite: PyPI's source distribution of this version.
const SUITE: &str = "docker==7.0.0";
/// What the suite itself needs, at the versions it was released with.
const NEEDS: [&str; 7] = [
    "requests==2.31.0",
    "urllib3==1.26.18",
    "packaging==21.3",
    "websocket-client==1.3.3",
    "paramiko==2.11.0",
    "pytest==7.4.2",
    "pytest-timeout==2.1.0",
];
/// Files about swarm, services, nodes, networks, secrets and configs.
const FILES: [&str; 9] = [
    "api_swarm_test.py",
    "api_service_test.py",
    "api_network_test.py",
    "api_secret_test.py",
    "api_config_test.py",
    "models_swarm_test.py",
    "models_services_test.py",
    "models_nodes_test.py",
    "models_networks_test.py",
];

/// Runs the suite.
///
/// # Errors
/// When it cannot be fetched, or when its outcome is not the one that is written down.
pub(crate) fn compat(only: Option<&str>) -> Result<()> {
    rights::require_root("compat", rights::HOSTS)?;
    setup::setup()?;
    let home = place::target().join("compat");
    fetch(&home)?;
    build::all()?;
    up::up(1, up::Depth::Agents)?;
    let outcome = run_suite(&home, only);
    if outcome.is_err() {
        evidence::keep("compat");
    }
    testbed::act(testbed::Verb::Down)?;
    outcome
}

fn fetch(home: &Path) -> Result<()> {
    if home.join("suite").is_dir() && home.join("venv/bin/pytest").is_file() {
        return Ok(());
    }
    println!("fetching docker-py's tests ({SUITE}) and what they need into target/compat");
    fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
    let python = home.join("venv/bin/python");
    run("python3 -m venv")
        .arg(home.join("venv"))
        .show()
        .context("cannot make a Python environment; install python3-venv")?;
    let python = python.display();
    run(&format!(
        "{python} -m pip install --quiet --disable-pip-version-check setuptools==65.5.1"
    ))
    .args(NEEDS)
    .show()?;
    run(&format!("{python} -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: {SUITE} --dest"))
        .arg(home)
        .show()?;
    let archive = fs::read_dir(home)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "gz"))
        .context("pip fetched no source archive")?;
    let suite = home.join("suite");
    fs::create_dir_all(&suite)?;
    run("tar --strip-components=1 -xzf")
        .arg(archive)
        .arg("-C")
        .arg(suite)
        .quiet()
}

fn run_suite(home: &Path, only: Option<&str>) -> Result<()> {
    let host = Host(1);
    let door = format!("unix://{}", host.front_door().display());
    // The suite's containers only need a shell; ours goes by the names it asks for.
    for name in ["alpine:3.10", "alpine:latest"] {
        run(&format!("docker tag busybox:latest {name}"))
            .env("DOCKER_HOST", &door)
            .quiet()?;
    }
    let report = home.join("report.txt");
    let mut pytest = run(&format!(
        "{}/venv/bin/python -m pytest --timeout 90 -q -rA --color=no --tb=short",
        home.display()
    ));
    pytest = match only {
        Some(name) => pytest.args(["-k", name]),
        None => pytest,
    };
    let output = pytest
        .args(FILES.map(|file| format!("tests/integration/{file}")))
        .dir(home.join("suite"))
        .env("DOCKER_HOST", &door)
        .env("PYTHONPATH", home.join("suite"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    fs::write(&report, &text).context("cannot write the report")?;
    let failed = named(&text, &["FAILED", "ERROR"]);
    let passed = named(&text, &["PASSED"]);
    println!("{}", text.lines().last().unwrap_or("pytest said nothing"));
    let known = known_failures()?;
    let strange: Vec<_> = failed.difference(&known).collect();
    let mended: Vec<_> = known.intersection(&passed).collect();
    for name in &strange {
        println!("fails, and no reason is written down: {name}");
    }
    for name in &mended {
        println!("passes, though written down as failing: {name}");
    }
    if passed.is_empty() && failed.is_empty() {
        bail!(
            "no test ran; pytest said: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    if !strange.is_empty() || !mended.is_empty() {
        bail!(
            "the outcome is not the one in tests/compat/README.md; the whole report is {}",
            report.display()
        );
    }
    Ok(())
}

/// Test names (`Class::test`) on lines of pytest's summary that begin with one of these words.
fn named(text: &str, words: &[&str]) -> BTreeSet<String> {
    let summary = text
        .rsplit("short test summary info")
        .next()
        .unwrap_or_default();
    summary
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(word, _)| words.contains(word))
        .filter_map(|(_, rest)| rest.split(" - ").next()?.split_once("::"))
        .map(|(_, name)| name.trim().to_owned())
        .collect()
}

/// Lines of the page that read ``- `Class::test`: why``.
fn known_failures() -> Result<BTreeSet<String>> {
    let page = place::root().join("tests/compat/README.md");
    let text =
        fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    Ok(text
        .lines()
        .filter_map(|line| line.strip_prefix("- `")?.split_once("`: "))
        .map(|(name, _)| name.to_owned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn names_are_read_from_the_summary_alone() {
        let text = "FAILED nothing::here\n=== short test summary info ===\nPASSED tests/integration/a.py::A::test_x\nFAILED tests/integration/a.py::A::test_y - Error: a::b\n1 failed, 1 passed";
        assert_eq!(
            named(text, &["PASSED"]).into_iter().collect::<Vec<_>>(),
            ["A::test_x"]
        );
        assert_eq!(
            named(text, &["FAILED"]).into_iter().collect::<Vec<_>>(),
            ["A::test_y"]
        );
    }
}
