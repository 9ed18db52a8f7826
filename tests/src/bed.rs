//! The testbed as a guard: one at a time on this machine, in the shape that a story asks for.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::command::command;
use crate::{Host, eventually};

/// What a story needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// No bed at all, only the right to make one.
    Nothing,
    /// Hosts, no swarm.
    Hosts(u8),
    /// A swarm: so many hosts, so many of them managers.
    Swarm(u8, u8),
}

/// The one bed, held until dropped.
pub struct Bed {
    /// What it is.
    pub shape: Shape,
    _threads: MutexGuard<'static, ()>,
    _processes: File,
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The clone's top folder.
pub fn root() -> PathBuf {
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// Folder of the bed: sockets, logs, states.
pub fn folder() -> PathBuf {
    root().join("target/testbed")
}

/// The program of the project's verbs.
///
/// # Errors
/// When it has not been built.
pub fn xtask() -> Result<&'static str> {
    static PATH: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let path = PATH.get_or_init(|| {
        root()
            .join("target/debug/xtask")
            .to_string_lossy()
            .into_owned()
    });
    ensure!(
        fs::exists(path).unwrap_or(false),
        "{path} is not built; run stories by `cargo xtask story`"
    );
    Ok(path)
}

/// Whether the stories are told to the swarm mode of Docker's own engines, to see where it answers otherwise: `WEFT_AGAINST=docker`.
pub fn against_docker() -> bool {
    std::env::var_os("WEFT_AGAINST").is_some_and(|name| name == "docker")
}

/// The agent's program, the one that the bed runs.
pub fn agent() -> String {
    std::env::var("WEFT_AGENT")
        .unwrap_or_else(|_| root().join("target/debug/weft").display().to_string())
}

/// Says a testbed verb.
///
/// # Errors
/// When it fails.
pub fn testbed(words: &[&str]) -> Result<String> {
    command(xtask()?, ["testbed"].iter().chain(words), &[], b"")?.ok()
}

fn up(hosts: u8) -> Result<()> {
    let hosts = hosts.to_string();
    let words = ["up", "--as-built", &hosts, "--bare"];
    let depth = if against_docker() { 4 } else { 3 };
    testbed(&words[..depth]).map(drop)
}

/// Says what a bed is while it is good for another story.
fn marker() -> PathBuf {
    folder().join("shape")
}

impl Bed {
    /// Waits for the machine's one bed and brings it into this shape; one that is already so is cleared of what the last story left.
    ///
    /// # Errors
    /// When the bed cannot be brought up.
    pub fn take(shape: Shape) -> Result<Self> {
        let threads = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        fs::create_dir_all(folder()).context("cannot make the bed's folder")?;
        let processes =
            File::create(folder().join("lock")).context("cannot open the bed's lock")?;
        processes.lock().context("cannot lock the bed")?;
        let bed = Bed {
            shape,
            _threads: threads,
            _processes: processes,
        };
        let told = if against_docker() {
            "Docker's own"
        } else {
            "weft's"
        };
        let wish = format!("{told} {shape:?}");
        if fs::read_to_string(marker()).is_ok_and(|have| have == wish) && bed.clear().is_ok() {
            return Ok(bed);
        }
        bed.spoil();
        match shape {
            Shape::Nothing => {
                testbed(&["down"])?;
            }
            Shape::Hosts(hosts) => up(hosts)?,
            Shape::Swarm(hosts, managers) => {
                up(hosts)?;
                testbed(&["swarm", "--managers", &managers.to_string()])?;
                fs::write(marker(), wish).context("cannot write the bed's shape")?;
            }
        }
        Ok(bed)
    }

    /// Its hosts, the first manager first.
    pub fn hosts(&self) -> Vec<Host> {
        let count = match self.shape {
            Shape::Nothing => 0,
            Shape::Hosts(hosts) | Shape::Swarm(hosts, _) => hosts,
        };
        (1..=count).map(Host).collect()
    }

    /// Its hosts by name.
    ///
    /// # Errors
    /// When the bed was taken with another number of hosts.
    pub fn all<const N: usize>(&self) -> Result<[Host; N]> {
        let hosts = <[Host; N]>::try_from(self.hosts());
        hosts.map_err(|hosts| anyhow!("{} hosts were asked for, not {N}", hosts.len()))
    }

    /// Says that no other story should build on this bed.
    pub fn spoil(&self) {
        let _ = fs::remove_file(marker());
    }

    /// Removes services, containers, networks, secrets and configs of an earlier story, and waits until their tasks are gone.
    fn clear(&self) -> Result<()> {
        let first = Host(1);
        for host in self.hosts() {
            ensure!(
                host.docker("version --format {{.Server.APIVersion}}")?
                    .status
                    == 0,
                "{} does not answer",
                host.name()
            );
        }
        let ready = first.say("node ls --format {{.Status}}/{{.Availability}}")?;
        ensure!(
            ready
                .lines()
                .filter(|state| *state == "Ready/Active")
                .count()
                == self.hosts().len(),
            "nodes are {ready}"
        );
        // Labels of nodes steer what the next story sees; a new bed has none.
        let nodes = first.say("node ls -q")?.replace('\n', " ");
        let labels = first.say(&format!(
            "node inspect --format {{{{len .Spec.Labels}}}} {nodes}"
        ))?;
        ensure!(
            labels.lines().all(|count| count == "0"),
            "nodes have labels: {labels}"
        );
        for (kind, list) in [
            ("service", "service ls -q"),
            ("secret", "secret ls -q"),
            ("config", "config ls -q"),
        ] {
            let ids = first.docker(list)?;
            if ids.status == 0 && !ids.out.is_empty() {
                first.say(&format!("{kind} rm {}", ids.out.replace('\n', " ")))?;
            }
        }
        for host in self.hosts() {
            let own = host.say("ps -aq --filter label=com.docker.swarm.task.id")?;
            let all = host.say("ps -aq")?;
            let left: Vec<&str> = all
                .lines()
                .filter(|id| !own.lines().any(|one| one == *id))
                .collect();
            if !left.is_empty() {
                // One that ends by itself meanwhile is as well.
                host.docker(&format!("rm -f {}", left.join(" ")))?;
            }
        }
        eventually(
            Duration::from_secs(60),
            "containers of the last story to end",
            || {
                for host in self.hosts() {
                    let left = host.say("ps -aq --filter label=com.docker.swarm.task.id")?;
                    ensure!(
                        left.is_empty(),
                        "{} still has {}",
                        host.name(),
                        left.replace('\n', " ")
                    );
                }
                Ok(())
            },
        )?;
        let networks = first.say("network ls --filter driver=overlay --format {{.Name}}")?;
        for network in networks.lines().filter(|name| *name != "ingress") {
            first.say(&format!("network rm {network}"))?;
        }
        Ok(())
    }
}
