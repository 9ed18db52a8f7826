//! What a failure leaves to look at: logs, network state and the cluster's own words, one folder per failure.

use std::fs;
use std::path::Path;

use crate::place;
use crate::testbed::plan::{self, Host};
use crate::testbed::{host, swarm};

/// Questions asked on each host that still runs: file name, command line.
const QUESTIONS: [(&str, &str); 9] = [
    ("addresses.txt", "ip -d address"),
    ("routes.txt", "ip route show table all"),
    ("routes6.txt", "ip -6 route show table all"),
    ("neighbours.txt", "ip neigh"),
    ("links.txt", "ip -s -d link"),
    ("nft.txt", "nft list ruleset"),
    ("sockets.txt", "busybox netstat -anp"),
    ("processes.txt", "busybox ps -o pid,ppid,args"),
    ("kernel.txt", "busybox dmesg"),
];

/// Copies logs and asks every host what it knows. Never fails: a failure is being told already.
pub(crate) fn keep(story: &str) {
    let folder = place::evidence().join(story);
    let _ = fs::remove_dir_all(&folder);
    for host in plan::hosts() {
        let home = folder.join(host.name());
        if fs::create_dir_all(&home).is_ok() {
            of_host(host, &home);
        }
    }
    println!("evidence is in {}", folder.display());
}

fn of_host(host: Host, home: &Path) {
    for log in ["weft.log", "engine.log", "init.log"] {
        let _ = fs::copy(host.dir().join(log), home.join(log));
    }
    for (file, question) in QUESTIONS {
        let Ok(on) = host::on(host) else { return };
        if let Ok(output) = on.args(question.split(' ')).output() {
            let _ = fs::write(home.join(file), [output.stdout, output.stderr].concat());
        }
    }
    let maps = home.join("maps");
    if fs::create_dir_all(&maps).is_ok() {
        dump_maps(&host.pins(), &maps);
    }
    for (file, words) in [
        ("nodes.txt", vec!["node", "ls"]),
        ("services.txt", vec!["service", "ls"]),
        ("networks.txt", vec!["network", "ls"]),
        ("containers.txt", vec!["ps", "-a", "--no-trunc"]),
    ] {
        // A front door that hangs must not hang the one who looks for the reason.
        let asked = crate::run::run("timeout 10 docker").args(words).env(
            "DOCKER_HOST",
            format!("unix://{}", host.front_door().display()),
        );
        if let Ok(output) = asked.output() {
            let _ = fs::write(home.join(file), [output.stdout, output.stderr].concat());
        }
    }
    let tasks = swarm::docker(host)
        .args(["service", "ls", "-q"])
        .read()
        .unwrap_or_default();
    if !tasks.is_empty()
        && let Ok(output) = swarm::docker(host)
            .args(["service", "ps", "--no-trunc"])
            .args(tasks.split_whitespace())
            .output()
    {
        let _ = fs::write(
            home.join("tasks.txt"),
            [output.stdout, output.stderr].concat(),
        );
    }
}

/// Writes every map pinned below `pins`, one file each, with the kernel's own reading of its layout.
fn dump_maps(pins: &Path, home: &Path) {
    for entry in fs::read_dir(pins).into_iter().flatten().flatten() {
        let pin = entry.path();
        if pin.is_dir() {
            dump_maps(&pin, home);
            continue;
        }
        // Links and programs are pinned there too; a map is what dumps as one.
        let dump = crate::run::run("timeout 10 bpftool --pretty map dump pinned")
            .arg(&pin)
            .output();
        if let Ok(output) = dump.as_ref().map_err(drop)
            && output.status.success()
        {
            let _ = fs::write(
                home.join(entry.file_name()).with_extension("json"),
                &output.stdout,
            );
        }
    }
}
