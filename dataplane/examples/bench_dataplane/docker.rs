//! Docker's own engines in swarm mode, each in namespaces of its own on a host of the lan: the
//! overlay between two of its containers, and its resolver.
//!
//! Where the kernel has no IPVS, its published ports and service addresses cannot be measured: what is
//! asked is the address of a container.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    Way, gauge,
    lan::{Lan, run},
    peers::{has, host},
};

/// Names that a container of the first engine can ask for.
pub(crate) const NAMES: usize = 10;

/// Two engines with a container each, ended with the value.
pub(crate) struct Engines {
    engines: Vec<Engine>,
    way: Way,
}

struct Engine {
    /// Process 1 of its namespaces: whatever is in them ends with it.
    init: Child,
    dir: tempfile::TempDir,
    cgroup: String,
}

impl Drop for Engine {
    fn drop(&mut self) {
        // What it runs would outlive it for a moment otherwise, and hold its mounts.
        let _ = self.docker("rm -f bench");
        let _ = self.init.kill();
        let _ = self.init.wait();
        for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            let _ = run(&format!(
                "find {root} -depth -type d -path '*/{}*' -exec rmdir {{}} + 2>/dev/null",
                self.cgroup
            ));
        }
    }
}

impl Engine {
    fn start(lan: &Lan, name: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("weft-bench").tempdir()?;
        let at = dir.path().display();
        let cgroup = format!("weft-bench-{}-{name}", std::process::id());
        // Private mounts keep the engines out of each other's fixed paths. The namespace's own mounts
        // go with its last process.
        let line = format!(
            "mkdir -p {at}/run {at}/etc /run/containerd /etc/docker && mount -t tmpfs tmpfs {at}/run && \
             mount -t tmpfs tmpfs /run/containerd && mount --bind {at}/etc /etc/docker && \
             dockerd --data-root={at}/data --exec-root={at}/run/docker --pidfile={at}/run/docker.pid \
             --host=unix://{at}/docker.sock --exec-opt=native.cgroupdriver=cgroupfs --cgroup-parent=/{cgroup} \
             --bip=172.30.9.1/24 --default-address-pool=base=172.31.0.0/16,size=24 --log-level=error >{at}/log 2>&1 & \
             while :; do sleep 3600; done"
        );
        let init = Command::new("nsenter")
            .arg(format!("--net={}", lan.netns_path(name).display()))
            .args([
                "unshare",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount",
                "--mount-proc",
            ])
            .args([
                "--uts",
                "--ipc",
                "--propagation",
                "slave",
                "sh",
                "-c",
                &line,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start an engine's namespaces")?;
        Ok(Self { init, dir, cgroup })
    }

    fn docker(&self, words: &str) -> Result<String> {
        let at = self.dir.path().display();
        let said = run(&format!(
            "timeout 60 docker -H unix://{at}/docker.sock {words}"
        ));
        Ok(said?.trim().to_owned())
    }

    fn answers(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(40);
        while self.docker("info").is_err() {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.dir.path().join("log"));
                bail!(
                    "dockerd did not answer in 40 s: {}",
                    log.unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// The network namespace of its container, seen through its own process namespace.
    fn namespace(&self) -> Result<PathBuf> {
        let pid = self.docker("inspect -f '{{.State.Pid}}' bench")?;
        // The child of `unshare`, which stayed outside.
        let outer = self.init.id();
        let init = run(&format!("cat /proc/{outer}/task/{outer}/children"))?;
        let path = format!("/proc/{}/root/proc/{pid}/ns/net", init.trim());
        Ok(Path::new(&path).to_owned())
    }
}

impl Engines {
    /// Starts both and forms a swarm; none where Docker is not installed.
    pub(crate) fn start(lan: &mut Lan) -> Result<Option<Self>> {
        if !has("dockerd") || !has("busybox") {
            bail!("dockerd or busybox is not installed");
        }
        let mut engines = Vec::new();
        for (name, last) in [("d1", 51), ("d2", 52)] {
            host(lan, name, last)?;
            engines.push(Engine::start(lan, name)?);
        }
        for engine in &engines {
            engine.answers()?;
        }
        let [first, second] = &engines[..] else {
            bail!("two engines were wanted");
        };
        first.docker("swarm init --advertise-addr 192.0.2.51")?;
        let token = first.docker("swarm join-token -q worker")?;
        second.docker(&format!("swarm join --token {token} 192.0.2.51:2377"))?;
        first.docker("network create -d overlay --attachable bench")?;
        let aliases: Vec<String> = (0..NAMES)
            .map(|number| format!("--network-alias name{number}"))
            .collect();
        for engine in &engines {
            let at = engine.dir.path().display();
            run(&format!(
                "tar -c -C / --transform 's,.*busybox,busybox,' \"$(readlink -f \"$(command -v busybox)\")\" 2>/dev/null | \
                 docker -H unix://{at}/docker.sock import - bench"
            ))?;
            engine.docker(&format!(
                "run -d --name bench --network bench {} bench /busybox sleep 1000000",
                aliases.join(" ")
            ))?;
        }
        let inspect =
            "inspect -f '{{(index .NetworkSettings.Networks \"bench\").IPAddress}}' bench";
        let to = first.docker(inspect)?;
        gauge::serve(&first.namespace()?, 80)?;
        let way = Way {
            name: "Docker's overlay, container to container".to_owned(),
            client: second.namespace()?,
            to: format!("{to}:80").parse()?,
        };
        Ok(Some(Self { way, engines }))
    }

    /// From a container on the second host to one on the first, by its address.
    pub(crate) fn way(&self) -> Way {
        Way {
            name: self.way.name.clone(),
            client: self.way.client.clone(),
            to: self.way.to,
        }
    }

    /// The namespace in which the first engine's resolver answers.
    pub(crate) fn resolver(&self) -> Result<PathBuf> {
        self.engines.first().context("no engine")?.namespace()
    }
}
