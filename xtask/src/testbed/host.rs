//! A host: process 1 in namespaces of its own, under it an engine and an agent, as on a machine.
//!
//! Ending process 1 ends everything of the host at once, its private mounts included: that is what makes `down` thorough.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::plan::{CGROUP, CLIENT, Host, Station, namespace_file};
use super::{process, wire};
use crate::run::{Run, run};
use crate::{place, wait};

/// Process 1. Private mounts keep the engines of several hosts out of each other's fixed paths:
/// `/run/containerd` holds the sockets of its shims, `/etc/docker` the key that names an engine.
const INIT: &str = r#"dir=${0%/*}
hostname "$1" || exit 1
mount -t tmpfs tmpfs "$dir/run" || exit 1
mount -t tmpfs tmpfs /run/containerd || exit 1
mount --bind "$dir/etc/docker" /etc/docker || exit 1
mount --bind "$dir/etc/hosts" /etc/hosts || exit 1
if [ -e /etc/resolv.conf ]; then mount --bind "$dir/etc/resolv.conf" "$(readlink -f /etc/resolv.conf)" || exit 1; fi
: > "$dir/run/ready"
while :; do sleep 3600 & wait $!; done
"#;

/// Makes the host's folder, wiring, bpffs and process 1; neither engine nor agent yet.
pub(crate) fn boot(host: Host) -> Result<()> {
    let station = host.station();
    lay_out(host, &station)?;
    wire::make_namespace(&station.namespace)?;
    wire::plug(&station)?;
    wire::route_to_the_world(&station)?;
    // As a machine with Docker has them: it forwards, and takes its IPv6 addresses from nobody.
    wire::sysctl(
        &station.namespace,
        &[
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv6.conf.all.accept_ra=0",
            "net.ipv6.conf.eth0.accept_ra=0",
        ],
    )?;
    run("mount -t bpf bpf").arg(host.pins()).quiet()?;
    let log = fs::File::create(host.dir().join("init.log")).context("cannot make init.log")?;
    let mut command = run("setsid --fork nsenter")
        .arg(format!(
            "--net={}",
            namespace_file(&station.namespace).display()
        ))
        .args([
            "unshare",
            "--pid",
            "--fork",
            "--mount",
            "--uts",
            "--ipc",
            "--propagation",
            "slave",
            "--mount-proc",
        ])
        .args(["busybox", "sh"])
        .arg(host.init())
        .arg(host.name())
        .into_command();
    command
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command
        .status()
        .context("cannot start the host's process 1")?;
    wait::until(
        Duration::from_secs(60),
        &format!(
            "process 1 of {} (its words: {})",
            host.name(),
            host.dir().join("init.log").display()
        ),
        || {
            process::init_of(host).is_some_and(|pid| {
                Path::new(&format!(
                    "/proc/{pid}/root{}/run/ready",
                    host.dir().display()
                ))
                .exists()
            })
        },
    )
}

/// A command line that will run on the host: in all its namespaces, with its root.
pub(crate) fn on(host: Host) -> Result<Run> {
    let Some(init) = process::init_of(host) else {
        bail!(
            "{} does not run; start a testbed with `cargo xtask testbed up`",
            host.name()
        );
    };
    Ok(run(&format!(
        "nsenter --target {init} --net --pid --mount --uts --ipc --"
    )))
}

/// Starts the host's engine and waits until it answers.
pub(crate) fn start_engine(host: Host) -> Result<()> {
    if answers(&host.engine_socket()) {
        return Ok(());
    }
    let dir = host.dir();
    let at = |path: &str| dir.join(path).display().to_string();
    // Bridges of the engine stay out of 10.0.0.0/8, where overlay networks are cut from.
    let flags = [
        format!("--data-root={}", at("engine")),
        format!("--exec-root={}", at("run/docker")),
        format!("--pidfile={}", at("run/docker.pid")),
        format!("--host=unix://{}", host.engine_socket().display()),
        "--exec-opt=native.cgroupdriver=cgroupfs".into(),
        format!("--cgroup-parent=/{CGROUP}/{}", host.name()),
        format!("--bip=172.30.{}.1/24", host.0),
        "--default-address-pool=base=172.31.0.0/16,size=24".into(),
        "--log-level=warn".into(),
    ];
    let dockerd = crate::run::find_program("dockerd")
        .context("dockerd is not installed; run `cargo xtask setup`")?;
    let line = format!("\"$0\" \"$@\" >>'{}' 2>&1 </dev/null &", at("engine.log"));
    on(host)?
        .args(["setsid", "sh", "-c", &line])
        .arg(dockerd)
        .args(flags)
        .quiet()?;
    wait::until(
        Duration::from_secs(60),
        &format!("the engine of {} (log: {})", host.name(), at("engine.log")),
        || answers(&host.engine_socket()),
    )
}

/// Stops the engine as a machine's service manager would; containers stop with it.
pub(crate) fn stop_engine(host: Host) -> Result<()> {
    stop(host, "dockerd", Signal::SIGTERM)
}

/// Starts the host's agent and waits until its front door answers.
pub(crate) fn start_agent(host: Host) -> Result<()> {
    if answers(&host.front_door()) {
        return Ok(());
    }
    let agent = place::agent();
    if !agent.is_file() {
        bail!(
            "there is no agent at {}; build it with `cargo xtask build`",
            agent.display()
        );
    }
    let dir = host.dir();
    let at = |path: &str| dir.join(path).display().to_string();
    let log = at("weft.log");
    // A host has its processors to itself, and here they are shared with all other hosts, their engines and whoever tests them:
    // an agent that is kept from its heartbeats for two seconds counts as lost. Where the kernel weighs whole sessions, the
    // session is what must be heavier.
    let line = format!(
        "{{ renice -n -10 -p $$; echo -10 >/proc/$$/autogroup; }} >/dev/null 2>&1; \
         RUST_LOG=${{RUST_LOG:-info}} RUST_BACKTRACE=1 \"$0\" \"$@\" >>'{log}' 2>&1 </dev/null &"
    );
    on(host)?
        .args(["setsid", "sh", "-c", &line])
        .arg(agent)
        .args([
            "agent",
            "--state-dir",
            &at("state"),
            "--socket",
            &at("docker.sock"),
        ])
        .args([
            "--engine",
            &at("engine.sock"),
            "--pin-dir",
            &at("bpf"),
            "--cgroup",
            &cgroup2()?,
        ])
        .quiet()?;
    wait::until(
        Duration::from_secs(60),
        &format!("the front door of {} (log: {log})", host.name()),
        || answers(&host.front_door()),
    )
}

/// Ends the agent without a chance to tidy up, as a crash would. Tasks go on.
pub(crate) fn kill_agent(host: Host) -> Result<()> {
    stop(host, "weft", Signal::SIGKILL)
}

/// Whether a daemon answers `GET /_ping` on this socket.
pub(crate) fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status.ends_with(b"200"))
    };
    ask().unwrap_or(false)
}

/// Where this machine mounts the second generation of control groups; socket programs attach to its root.
pub(crate) fn cgroup2() -> Result<String> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .and_then(|fields| fields.get(1).map(|path| (*path).to_owned()))
        .context("no cgroup2 is mounted; mount one: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified")
}

fn lay_out(host: Host, station: &Station) -> Result<()> {
    let dir = host.dir();
    for sub in ["", "run", "bpf", "state", "engine", "etc/docker"] {
        fs::create_dir_all(dir.join(sub))
            .with_context(|| format!("cannot make {}", dir.join(sub).display()))?;
    }
    for shared in ["/etc/docker", "/run/containerd"] {
        fs::create_dir_all(shared).with_context(|| format!("cannot make {shared}"))?;
    }
    for log in ["weft.log", "engine.log"] {
        // A log tells of one bed only; the last bed's stays until this one begins.
        fs::write(dir.join(log), "").with_context(|| format!("cannot write {log}"))?;
    }
    let world = Station::client();
    let files = [
        ("init.sh", INIT.to_owned()),
        (
            "etc/hosts",
            format!(
                "127.0.0.1 localhost\n::1 localhost\n{} {}\n",
                station.v4(),
                host.name()
            ),
        ),
        (
            "etc/resolv.conf",
            format!(
                "# {CLIENT}: whoever plays the outside world's DNS answers there.\nnameserver {}\n",
                world.v4()
            ),
        ),
    ];
    for (name, text) in files {
        fs::write(dir.join(name), text)
            .with_context(|| format!("cannot write {}", dir.join(name).display()))?;
    }
    let longest = host
        .dir()
        .join("run/docker/containerd/containerd-debug.sock.ttrpc")
        .as_os_str()
        .len();
    if longest > 107 {
        bail!(
            "{} is too deep: a unix socket's path ends at 107 bytes and the engine needs {longest}; clone weft nearer to the root",
            place::root().display()
        );
    }
    Ok(())
}

fn stop(host: Host, program: &str, how: Signal) -> Result<()> {
    let pids = process::inside(host, program);
    for pid in &pids {
        process::signal(*pid, how)?;
    }
    wait::until(
        Duration::from_secs(60),
        &format!("{program} of {} to end", host.name()),
        || !pids.iter().any(|pid| process::lives(*pid)),
    )
}
