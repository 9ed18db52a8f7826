//! Verbs run by somebody who may not, or on a machine that lacks things: they say so and stop, and change nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// A copy of the built verbs where anybody may run it, whoever owns the clone.
fn copy_of_xtask() -> Result<tempfile::TempDir> {
    let home = tempfile::tempdir().context("cannot make a folder")?;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    let copy = home.path().join("xtask");
    // By another process: while this one has a program open to write, whatever another test starts has it open too,
    // and a program that is written cannot be run.
    let copied = Command::new("install")
        .args(["-m", "755", env!("CARGO_BIN_EXE_xtask")])
        .arg(&copy)
        .status()
        .context("cannot copy the verbs")?;
    ensure!(copied.success(), "cannot copy the verbs: {copied}");
    Ok(home)
}

fn as_nobody(home: &Path, words: &str) -> Command {
    let mut command = Command::new(home.join("xtask"));
    command.args(words.split(' ')).current_dir("/");
    command.uid(NOBODY).gid(NOBODY);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Exit status 1 and these words on standard error.
fn is_refused(output: &Output, words: &[&str]) -> Result<()> {
    let err = text(&output.stderr);
    ensure!(
        output.status.code() == Some(1),
        "it ended with {}: {err}",
        output.status
    );
    for word in words {
        ensure!(err.contains(word), "`{word}` is not said: {err}");
    }
    Ok(())
}

#[test]
fn every_verb_that_needs_root_says_so_and_stops() -> Result<()> {
    let home = copy_of_xtask()?;
    for words in [
        "test",
        "demo",
        "demo --check",
        "compat",
        "story mesh",
        "evidence nothing",
        "testbed up 3",
        "testbed swarm",
        "testbed status",
        "testbed shell n1",
        "testbed cut n1",
        "testbed heal n1",
        "testbed kill n1",
        "testbed start n1",
        "testbed stop-engine n1",
        "testbed start-engine n1",
        "testbed down",
    ] {
        let output = as_nobody(home.path(), words).output()?;
        let verb = words.split(' ').next().unwrap_or(words);
        is_refused(
            &output,
            &[&format!("`cargo xtask {verb}`"), "needs root", "sudo -s"],
        )
        .with_context(|| format!("`{words}` by a plain user"))?;
        ensure!(
            output.stdout.is_empty(),
            "`{words}` did something first: {}",
            text(&output.stdout)
        );
    }
    Ok(())
}

#[test]
fn a_machine_without_apt_gets_the_list_and_status_1() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("setup")
        .env("PATH", empty.path())
        .output()?;
    is_refused(
        &output,
        &["there is no apt-get here", "install the list above"],
    )?;
    let list = text(&output.stdout);
    for line in [
        "this machine lacks:",
        "  the docker CLI  (docker-cli or docker.io)",
        "  a static busybox  (busybox-static)",
        "  redis-server  (redis-server)",
    ] {
        ensure!(
            list.lines().any(|said| said == line),
            "`{line}` is not in the list:\n{list}"
        );
    }
    Ok(())
}

#[test]
fn a_plain_user_gets_the_list_and_nothing_is_installed() -> Result<()> {
    let home = copy_of_xtask()?;
    // A package manager that would tell if it were asked to do anything.
    let apt = home.path().join("apt-get");
    let trace = home.path().join("trace");
    fs::write(&apt, format!("#!/bin/sh\n: > {}\n", trace.display()))?;
    fs::set_permissions(&apt, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777))?;
    let output = as_nobody(home.path(), "setup")
        .env("PATH", home.path())
        .output()?;
    is_refused(
        &output,
        &["`cargo xtask setup` installs packages, so it needs root"],
    )?;
    ensure!(
        text(&output.stdout).starts_with("this machine lacks:\n"),
        "no list: {}",
        text(&output.stdout)
    );
    ensure!(!trace.exists(), "the package manager was called");
    Ok(())
}

/// Builds a package that has nothing but this room's build script, in a clone that has nothing built.
fn build_in_an_empty_clone(room: &str) -> Result<Output> {
    let clone = tempfile::tempdir()?;
    let package = clone.path().join(room);
    fs::create_dir_all(package.join("src"))?;
    fs::write(
        package.join("Cargo.toml"),
        format!("[package]\nname = \"weft-{room}\"\nedition = \"2024\"\n[workspace]\n"),
    )?;
    fs::write(package.join("src/lib.rs"), "")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(room)
        .join("build.rs");
    fs::copy(&script, package.join("build.rs"))
        .with_context(|| format!("cannot copy {}", script.display()))?;
    Ok(Command::new(env!("CARGO"))
        .args(["check", "--quiet", "--offline", "--color=never"])
        .current_dir(&package)
        .env("CARGO_TARGET_DIR", clone.path().join("built"))
        .output()?)
}

#[test]
fn building_without_the_ebpf_object_names_the_command_that_makes_it() -> Result<()> {
    let output = build_in_an_empty_clone("dataplane")?;
    let err = text(&output.stderr);
    ensure!(!output.status.success(), "it was built without the object");
    ensure!(
        err.contains("target/ebpf/weft.bpf.o is not there: run `cargo xtask build-ebpf` first"),
        "{err}"
    );
    Ok(())
}

#[test]
fn building_without_the_gate_names_the_command_that_makes_it() -> Result<()> {
    let output = build_in_an_empty_clone("agent")?;
    let err = text(&output.stderr);
    ensure!(!output.status.success(), "it was built without the gate");
    ensure!(
        err.contains("the gate is missing") && err.contains("run `cargo xtask build`"),
        "{err}"
    );
    Ok(())
}
