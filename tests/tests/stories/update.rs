//! Changing what runs, while it is used.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{Shape, client, eventually, story};

/// Asks through one address again and again while `work` runs; answers how many were asked and which questions failed.
fn under_load(
    address: &str,
    port: u16,
    work: impl FnOnce() -> Result<()>,
) -> Result<(usize, Vec<String>)> {
    let (done, asked, failed) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        Mutex::new(Vec::new()),
    );
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                asked.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = client::ask(address, port) {
                    failed
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push(format!("{error:#}"));
                }
            }
        });
        let outcome = work();
        done.store(true, Ordering::Relaxed);
        outcome
    });
    outcome?;
    Ok((
        asked.into_inner(),
        failed
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    ))
}

#[test]
fn scaling_up_and_down_fails_no_request() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create("web", "--replicas 3 --publish 8080:80 weft/whoami")?;
        eventually(Duration::from_secs(20), "the port to answer", || {
            client::ask(&n1.v4(), 8080)
        })?;
        let (asked, failed) = under_load(&n1.v4(), 8080, || {
            for replicas in [6, 2, 4] {
                n1.docker(&format!("service scale --detach web={replicas}"))?
                    .ok()?;
                n1.converged("web")?;
            }
            Ok(())
        })?;
        ensure!(
            failed.is_empty(),
            "{} of {asked} requests failed: {failed:#?}",
            failed.len()
        );
        Ok(())
    });
}

#[test]
fn a_rolling_update_fails_no_request() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create("web", "--replicas 3 --update-order start-first --update-delay 1s --publish 8080:80 weft/whoami")?;
        eventually(Duration::from_secs(20), "the port to answer", || {
            client::ask(&n1.v4(), 8080)
        })?;
        let (asked, failed) = under_load(&n1.v4(), 8080, || {
            n1.docker("service update --detach --env-add VERSION=2 web")?
                .ok()?;
            n1.converged("web")
        })?;
        ensure!(
            failed.is_empty(),
            "{} of {asked} requests failed: {failed:#?}",
            failed.len()
        );
        Ok(())
    });
}

#[test]
fn a_dead_agent_fails_no_request() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.hosts()[..] else {
            anyhow::bail!("three hosts were asked for")
        };
        n1.create("web", "--replicas 3 --publish 8080:80 weft/whoami")?;
        eventually(Duration::from_secs(20), "the port to answer", || {
            client::ask(&n2.v4(), 8080)
        })?;
        let (asked, failed) = under_load(&n2.v4(), 8080, || {
            n2.verb("kill")?;
            n2.verb("start")?;
            n1.converged("web")
        })?;
        ensure!(
            failed.is_empty(),
            "{} of {asked} requests failed: {failed:#?}",
            failed.len()
        );
        Ok(())
    });
}
