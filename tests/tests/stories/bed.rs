//! The testbed itself: it comes, it goes, it leaves nothing.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::bed::{testbed, xtask};
use weft_tests::census::Census;
use weft_tests::{Shape, eventually, story};

/// What the kernel frees a moment after its last user has gone is waited for.
fn nothing_is_left(before: &Census) -> Result<()> {
    eventually(
        Duration::from_secs(60),
        "the machine to be as it was before the testbed",
        || {
            let added = Census::take()?.added_since(before);
            ensure!(added.is_empty(), "left behind: {added:#?}");
            Ok(())
        },
    )
}

#[test]
fn a_bed_that_was_taken_down_leaves_nothing_behind() {
    story(Shape::Nothing, |_| {
        let before = Census::take()?;
        testbed(&["up", "--as-built", "2"])?;
        let during = Census::take()?;
        for namespace in ["weft-n1", "weft-n2", "weft-client", "weft-switch"] {
            ensure!(
                during.namespaces.contains(namespace),
                "{namespace} is missing"
            );
        }
        ensure!(
            during.links == before.links,
            "the bed's links show in our own namespace"
        );
        testbed(&["swarm"])?;
        testbed(&["down"])?;
        nothing_is_left(&before)
    });
}

#[test]
fn a_bed_whose_making_was_killed_is_still_taken_down_whole() {
    story(Shape::Nothing, |_| {
        let before = Census::take()?;
        // Killed as soon as each of these shows: early, in the middle, and when engines are starting.
        for moment in [
            "/run/netns/weft-switch",
            "/run/netns/weft-n1",
            "target/testbed/n2/engine.sock",
        ] {
            let sign = weft_tests::bed::root().join(moment);
            // An earlier bed's would show at once.
            let _ = std::fs::remove_file(&sign);
            let mut up = Command::new(xtask()?)
                .args(["testbed", "up", "--as-built", "--bare", "2"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start the testbed")?;
            let seen = eventually(Duration::from_secs(60), moment, || {
                ensure!(sign.exists(), "not yet");
                Ok(())
            });
            up.kill().context("cannot kill the verb")?;
            up.wait().context("cannot bury the verb")?;
            seen?;
            testbed(&["down"])?;
            nothing_is_left(&before).with_context(|| format!("killed when {moment} showed"))?;
        }
        Ok(())
    });
}

#[test]
fn a_bed_that_another_clone_abandoned_is_no_obstacle() {
    story(Shape::Nothing, |_| {
        let before = Census::take()?;
        let clone = weft_tests::bed::root().join("target/another-clone");
        let pins = clone.join("target/testbed/n1/bpf");
        std::fs::create_dir_all(&pins)?;
        let on = |words: &[&str]| -> Result<()> {
            let status = Command::new(words[0]).args(&words[1..]).status()?;
            ensure!(status.success(), "{words:?} ended with {status}");
            Ok(())
        };
        let pins = pins.display().to_string();
        on(&["ip", "netns", "add", "weft-n1"])?;
        on(&["mount", "-t", "bpf", "bpf", &pins])?;
        std::fs::write("/run/weft-testbed.owner", clone.display().to_string())?;
        let mut user = Command::new("ip")
            .args(["netns", "exec", "weft-n1", "sleep", "600"])
            .spawn()
            .context("cannot start a process in the other clone's host")?;
        // Nobody in it yet, and it would be taken down.
        let there = eventually(
            Duration::from_secs(60),
            "the process to be in the other clone's host",
            || {
                let words = ["netns", "pids", "weft-n1"];
                let pids = weft_tests::command("ip", words, &[], b"")?.ok()?;
                ensure!(
                    pids.lines().any(|pid| pid == user.id().to_string()),
                    "{pids}"
                );
                Ok(())
            },
        );
        let refused = there.and_then(|()| {
            let refusal = testbed(&["status"]).err().context("it is not refused")?;
            ensure!(
                format!("{refusal:#}").contains("take it down there"),
                "{refusal:#}"
            );
            Ok(())
        });
        user.kill().context("cannot end the process")?;
        user.wait().context("cannot bury the process")?;
        refused?;
        testbed(&["down"])?;
        std::fs::remove_dir_all(&clone)?;
        nothing_is_left(&before)
    });
}

#[test]
fn cutting_a_host_off_and_healing_it_is_all_that_changes() {
    story(Shape::Hosts(2), |bed| {
        let [first, second] = bed.all()?;
        let reaches = || {
            first
                .run(&["busybox", "ping", "-c1", "-W1", &second.v4()])
                .map(|answer| answer.status == 0)
        };
        ensure!(reaches()?, "n1 does not reach n2");
        second.verb("cut")?;
        ensure!(!reaches()?, "n1 still reaches n2, which is cut off");
        second.verb("heal")?;
        eventually(Duration::from_secs(60), "n1 to reach n2 again", || {
            ensure!(reaches()?, "no answer");
            Ok(())
        })
    });
}

#[test]
fn a_story_that_fails_keeps_logs_tables_and_a_capture() {
    let name = "a_story_that_fails_keeps_logs_tables_and_a_capture";
    let outcome = std::panic::catch_unwind(|| {
        story(Shape::Swarm(3, 1), |bed| {
            bed.hosts()[0].create("web", "--replicas 3 --publish 8080:80 weft/whoami")?;
            let capture = weft_tests::bed::folder().join(format!("{name}.pcap"));
            eventually(Duration::from_secs(60), "the capture to begin", || {
                ensure!(capture.metadata()?.len() > 24, "it is empty");
                Ok(())
            })?;
            anyhow::bail!("failed on purpose")
        });
    });
    assert!(outcome.is_err(), "a story that fails fails its test");
    let home = weft_tests::bed::root().join("target/evidence").join(name);
    for file in [
        "failure.txt",
        "switch.pcap",
        "n1/weft.log",
        "n1/engine.log",
        "n1/tasks.txt",
        "n2/nft.txt",
        "n3/routes.txt",
        "n3/maps/backends.json",
    ] {
        let size = home.join(file).metadata().map_or(0, |meta| meta.len());
        assert!(size > 2, "{file} is missing or empty in {}", home.display());
    }
    // It was no failure, so nobody should have to look at it.
    std::fs::remove_dir_all(home).expect("evidence can be removed");
}
