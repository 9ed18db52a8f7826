//! `docker service create`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Cli, Host, Shape, eventually, story};

use super::{
    Container, Prints, Proof, Refused, Row, Spec, Told, docker, has, inspected, is_known, known,
    none_forgotten,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Flags that one service can have all together.
fn together() -> Vec<Row> {
    rows! {
        "--cap-add NET_ADMIN" => Spec("/TaskTemplate/ContainerSpec/CapabilityAdd", r#"["CAP_NET_ADMIN"]"#), Container("/HostConfig/CapAdd", r#"["CAP_NET_ADMIN"]"#);
        "--cap-drop CHOWN" => Spec("/TaskTemplate/ContainerSpec/CapabilityDrop", r#"["CAP_CHOWN"]"#), Container("/HostConfig/CapDrop", r#"["CAP_CHOWN"]"#);
        "--config source=fc,target=/etc/fc.conf,mode=0444" => Spec("/TaskTemplate/ContainerSpec/Configs/0/File/Name", r#""/etc/fc.conf""#), Prints("cat /etc/fc.conf", "a config");
        "--secret source=fs,target=other,mode=0444" => Spec("/TaskTemplate/ContainerSpec/Secrets/0/SecretName", r#""fs""#), Prints("cat /run/secrets/other", "a secret");
        "--constraint node.hostname==n1" => Spec("/TaskTemplate/Placement/Constraints", r#"["node.hostname==n1"]"#);
        "--container-label cl=cv" => Container("/Config/Labels/cl", r#""cv""#);
        "--dns 192.0.2.254" => Spec("/TaskTemplate/ContainerSpec/DNSConfig/Nameservers", r#"["192.0.2.254"]"#), Told("names");
        "--dns-option timeout:1" => Prints("cat /etc/resolv.conf", "timeout:1");
        "--dns-search example.org" => Prints("cat /etc/resolv.conf", "search example.org");
        "--entrypoint /bin/busybox" => Spec("/TaskTemplate/ContainerSpec/Command", r#"["/bin/busybox"]"#), Prints("cat /proc/1/cmdline /proc/7/cmdline /proc/8/cmdline", "/bin/busybox");
        "--env A=1" => Prints("sh -c 'echo $A'", "1");
        "--env-file $FILE" => Prints("sh -c 'echo $FROM_FILE'", "two words");
        "--group 50" => Prints("id -G", "50");
        "--health-cmd true" => Container("/Config/Healthcheck/Test", r#"["CMD-SHELL","true"]"#);
        "--health-interval 5s" => Container("/Config/Healthcheck/Interval", "5000000000");
        "--health-retries 2" => Container("/Config/Healthcheck/Retries", "2");
        "--health-start-period 1s" => Container("/Config/Healthcheck/StartPeriod", "1000000000");
        "--health-timeout 3s" => Container("/Config/Healthcheck/Timeout", "3000000000");
        "--host other:192.0.2.99" => Prints("cat /etc/hosts", "192.0.2.99 other");
        "--hostname h-{{.Task.Slot}}" => Prints("hostname", "h-1");
        "--init" => Container("/HostConfig/Init", "true");
        "--isolation default" => Spec("/TaskTemplate/ContainerSpec/Isolation", r#""default""#);
        "--label l1=v1" => Spec("/Labels/l1", r#""v1""#);
        "--limit-cpu 0.5" => Container("/HostConfig/NanoCpus", "500000000");
        "--limit-memory 64m" => Container("/HostConfig/Memory", "67108864");
        "--limit-pids 100" => Container("/HostConfig/PidsLimit", "100");
        "--log-driver json-file" => Container("/HostConfig/LogConfig/Type", r#""json-file""#);
        "--log-opt max-size=1m" => Container("/HostConfig/LogConfig/Config/max-size", r#""1m""#);
        "--mount type=tmpfs,target=/scratch,tmpfs-size=1m,tmpfs-mode=1770" => Spec("/TaskTemplate/ContainerSpec/Mounts/0/Type", r#""tmpfs""#), Prints("df /scratch", "1024"), Prints("stat -c %a /scratch", "1770");
        "--mount type=bind,source=$FILE,target=/bound,readonly" => Prints("cat /bound", "FROM_FILE=two words"), Prints("touch /bound", "Read-only file system");
        "--mount type=volume,source=fv,target=/vol,volume-driver=local,volume-label=vl=vv,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=2m" => Prints("df /vol", "2048"), Prints("df /vol", "tmpfs");
        "--name whole" => Spec("/Name", r#""whole""#);
        "--network name=fn,alias=al1" => Spec("/TaskTemplate/Networks/0/Aliases", r#"["al1"]"#), Prints("nslookup al1 127.0.0.11", "10.79.0.");
        "--no-resolve-image" => Spec("/TaskTemplate/ContainerSpec/Image", r#""busybox:latest""#);
        "--placement-pref spread=node.labels.zone" => Spec("/TaskTemplate/Placement/Preferences/0/Spread/SpreadDescriptor", r#""node.labels.zone""#);
        "--publish mode=host,target=81,published=8181" => Spec("/EndpointSpec/Ports/0/PublishMode", r#""host""#), Told("mesh");
        "--read-only" => Container("/HostConfig/ReadonlyRootfs", "true"), Prints("touch /x", "Read-only file system");
        "--replicas 1" => Spec("/Mode/Replicated/Replicas", "1");
        "--replicas-max-per-node 1" => Spec("/TaskTemplate/Placement/MaxReplicas", "1");
        "--reserve-cpu 0.1" => Spec("/TaskTemplate/Resources/Reservations/NanoCPUs", "100000000");
        "--reserve-memory 32m" => Spec("/TaskTemplate/Resources/Reservations/MemoryBytes", "33554432"), Container("/HostConfig/MemoryReservation", "33554432");
        "--restart-condition on-failure" => Spec("/TaskTemplate/RestartPolicy/Condition", r#""on-failure""#), Told("golden_history");
        "--restart-delay 2s" => Spec("/TaskTemplate/RestartPolicy/Delay", "2000000000");
        "--restart-max-attempts 3" => Spec("/TaskTemplate/RestartPolicy/MaxAttempts", "3"), Told("golden_history");
        "--restart-window 1m" => Spec("/TaskTemplate/RestartPolicy/Window", "60000000000");
        "--rollback-delay 1s" => Spec("/RollbackConfig/Delay", "1000000000");
        "--rollback-failure-action continue" => Spec("/RollbackConfig/FailureAction", r#""continue""#);
        "--rollback-max-failure-ratio 0.5" => Spec("/RollbackConfig/MaxFailureRatio", "0.5");
        "--rollback-monitor 2s" => Spec("/RollbackConfig/Monitor", "2000000000");
        "--rollback-order start-first" => Spec("/RollbackConfig/Order", r#""start-first""#);
        "--rollback-parallelism 0" => Spec("/RollbackConfig/Parallelism", "0"), Told("golden_failed_updates");
        "--stop-grace-period 3s" => Spec("/TaskTemplate/ContainerSpec/StopGracePeriod", "3000000000");
        "--stop-signal SIGKILL" => Container("/Config/StopSignal", r#""SIGKILL""#);
        "--sysctl net.ipv4.ip_unprivileged_port_start=0" => Prints("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
        "--tty" => Container("/Config/Tty", "true");
        // Not of files: a runc built by Go 1.19 to 1.21 loses that one now and then, since both it and Go set it.
        "--ulimit memlock=65536:131072" => Prints("sh -c 'ulimit -l; ulimit -Hl'", "64\n128");
        "--update-delay 1s" => Spec("/UpdateConfig/Delay", "1000000000"), Told("golden_updates");
        "--update-failure-action rollback" => Spec("/UpdateConfig/FailureAction", r#""rollback""#), Told("golden_failed_updates");
        "--update-max-failure-ratio 0.25" => Spec("/UpdateConfig/MaxFailureRatio", "0.25");
        "--update-monitor 3s" => Spec("/UpdateConfig/Monitor", "3000000000");
        "--update-order start-first" => Spec("/UpdateConfig/Order", r#""start-first""#);
        "--update-parallelism 2" => Spec("/UpdateConfig/Parallelism", "2"), Told("golden_updates");
        "--user 1000:1000" => Prints("id -u", "1000");
        "--workdir /tmp" => Container("/Config/WorkingDir", r#""/tmp""#);
    }
}

/// Flags that exclude others, each with a service of its own.
fn alone() -> Vec<Row> {
    rows! {
        "--endpoint-mode dnsrr --network fn" => Spec("/EndpointSpec/Mode", r#""dnsrr""#), Told("names");
        "--mode global" => Spec("/Mode/Global", "null"), Spec("/Mode/Replicated", "null"), Told("golden_modes");
        "--mode replicated-job --max-concurrent 2 --replicas 3" => Spec("/Mode/ReplicatedJob/MaxConcurrent", "2"), Spec("/Mode/ReplicatedJob/TotalCompletions", "3"), Told("golden_modes");
        "--no-healthcheck" => Container("/Config/Healthcheck/Test", r#"["NONE"]"#);
        "--generic-resource gpu=1" => Spec("/TaskTemplate/Resources/Reservations/GenericResources/0/DiscreteResourceSpec", r#"{"Kind":"gpu","Value":1}"#), Refused("insufficient resources");
        "--detach --quiet" => Spec("/Mode/Replicated/Replicas", "1");
        "--with-registry-auth" => Told("registry");
        // Windows has these; a task on Linux ends with the engine's words.
        "--credential-spec file://spec.json" => Refused("CredentialSpec");
        "--isolation hyperv" => Refused("solation");
        // Newer than the engine below: the CLI itself refuses them, with the version that is needed.
        "--health-start-interval 1s" => Refused("requires API version");
        "--oom-score-adj 10" => Refused("requires API version");
    }
}

/// Whether the proofs hold of the service `name`, whose task runs on `host`.
fn holds(host: Host, name: &str, proofs: &[Proof]) -> Result<()> {
    let service = inspected(host, &format!("service inspect {name}"))?;
    for proof in proofs {
        match proof {
            Spec(pointer, expected) => has(&service["Spec"], pointer, expected)?,
            Container(pointer, expected) => {
                let containers = host.containers(name)?;
                let container = containers.first().context("it has no container")?;
                let container = inspected(host, &format!("inspect {container}"))?;
                has(&container, pointer, expected)?;
            }
            Prints(line, expected) => {
                let line = weft_tests::command::words(line);
                let line: Vec<&str> = line.iter().map(String::as_str).collect();
                let said = host.exec(name, &line)?;
                ensure!(
                    said.out.replace(['\0', '\t'], " ").contains(expected)
                        || said.err.contains(expected),
                    "`{}` prints {said}, not {expected}",
                    line.join(" ")
                );
            }
            Refused(_) | Told(_) => {}
        }
    }
    Ok(())
}

/// Creates a service for a row, and looks.
fn try_alone(host: Host, cli: Cli, row: &Row) -> Result<()> {
    let line = format!(
        "service create --name alone --constraint node.hostname==n1 {} {} --stop-signal SIGKILL --no-resolve-image busybox sleep 1d",
        // Watched until it runs, if it is to run.
        if row.words.contains("--detach") {
            ""
        } else {
            "--detach"
        },
        row.words
    );
    let made = docker(host, cli, &line)?;
    if made.status != 0 {
        let refusal = row.proofs.iter().find_map(|proof| match proof {
            Refused(words) => Some(words),
            _ => None,
        });
        let words = refusal.with_context(|| made.to_string())?;
        return made.refused(words).map(drop);
    }
    eventually(PATIENCE, row.words, || {
        for proof in row.proofs {
            if let Refused(words) = proof {
                let shown =
                    host.say("service ps --no-trunc --format {{.CurrentState}}|{{.Error}} alone")?;
                ensure!(shown.contains(words), "{words:?} is not in: {shown}");
            }
        }
        holds(host, "alone", row.proofs)
    })?;
    host.say("service rm alone").map(drop)
}

#[test]
fn every_flag_of_service_create_is_honoured_or_refused() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.say("network create --driver overlay --subnet 10.79.0.0/24 fn")?;
        n1.docker_words(Cli::Default, &["config", "create", "fc", "-"], b"a config")?
            .ok()?;
        n1.docker_words(Cli::Default, &["secret", "create", "fs", "-"], b"a secret")?
            .ok()?;
        let file = n1.dir().join("env-file");
        fs::write(&file, "FROM_FILE=two words\n").context("cannot write a file of variables")?;
        for cli in Cli::here() {
            let (together, alone) = (together(), alone());
            none_forgotten(n1, cli, "create", together.iter().chain(&alone))?;
            let known = known(n1, cli, "create")?;
            let rows: Vec<&Row> = together
                .iter()
                .filter(|row| is_known(row, &known))
                .collect();
            let flags: Vec<&str> = rows.iter().map(|row| row.words).collect();
            let flags = flags
                .join(" ")
                .replace("$FILE", &file.display().to_string());
            let line = format!("service create --detach {flags} busybox:latest sleep 100000");
            docker(n1, cli, &line)?.ok()?;
            n1.converged("whole")?;
            let mut faults = Vec::new();
            for row in rows {
                if let Err(why) = holds(n1, "whole", row.proofs) {
                    faults.push(format!("{}: {why:#}", row.words));
                }
            }
            n1.say("service rm whole")?;
            for row in alone.iter().filter(|row| is_known(row, &known)) {
                if let Err(why) = try_alone(n1, cli, row) {
                    faults.push(format!("{}: {why:#}", row.words));
                    let _ = n1.docker("service rm alone");
                }
            }
            ensure!(faults.is_empty(), "{cli:?}:\n{}", faults.join("\n"));
        }
        Ok(())
    });
}
