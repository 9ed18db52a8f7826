//! `docker service update`: what a service has already is changed, taken away, given back.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use weft_tests::{Cli, Host, Shape, story};

use super::{Refused, Row, Spec, Told, docker, has, inspected, is_known, known, none_forgotten};

/// In this order, on one service.
fn rows() -> Vec<Row> {
    rows! {
        "--args 'sleep 5'" => Spec("/TaskTemplate/ContainerSpec/Args", r#"["sleep","5"]"#);
        "--cap-add NET_ADMIN --cap-drop CHOWN" => Spec("/TaskTemplate/ContainerSpec/CapabilityAdd", r#"["CAP_NET_ADMIN"]"#), Spec("/TaskTemplate/ContainerSpec/CapabilityDrop", r#"["CAP_CHOWN"]"#);
        "--cap-drop NET_ADMIN" => Spec("/TaskTemplate/ContainerSpec/CapabilityAdd", "null");
        "--config-add source=fc,target=/etc/fc" => Spec("/TaskTemplate/ContainerSpec/Configs/0/ConfigName", r#""fc""#);
        "--config-rm fc" => Spec("/TaskTemplate/ContainerSpec/Configs", "null");
        "--secret-add source=fs,target=x" => Spec("/TaskTemplate/ContainerSpec/Secrets/0/File/Name", r#""x""#);
        "--secret-rm fs" => Spec("/TaskTemplate/ContainerSpec/Secrets", "null");
        "--constraint-add node.role==worker" => Spec("/TaskTemplate/Placement/Constraints", r#"["node.role==worker"]"#);
        "--constraint-rm node.role==worker" => Spec("/TaskTemplate/Placement/Constraints", "null");
        "--container-label-add a=b" => Spec("/TaskTemplate/ContainerSpec/Labels", r#"{"a":"b"}"#);
        "--container-label-rm a" => Spec("/TaskTemplate/ContainerSpec/Labels", "null");
        "--dns-add 192.0.2.254" => Spec("/TaskTemplate/ContainerSpec/DNSConfig/Nameservers", r#"["192.0.2.254"]"#);
        "--dns-rm 192.0.2.254" => Spec("/TaskTemplate/ContainerSpec/DNSConfig/Nameservers", "null");
        "--dns-option-add timeout:1" => Spec("/TaskTemplate/ContainerSpec/DNSConfig/Options", r#"["timeout:1"]"#);
        "--dns-option-rm timeout:1" => Spec("/TaskTemplate/ContainerSpec/DNSConfig/Options", "null");
        "--dns-search-add example.org" => Spec("/TaskTemplate/ContainerSpec/DNSConfig/Search", r#"["example.org"]"#);
        "--dns-search-rm example.org" => Spec("/TaskTemplate/ContainerSpec/DNSConfig/Search", "null");
        "--endpoint-mode dnsrr" => Spec("/EndpointSpec/Mode", r#""dnsrr""#);
        "--endpoint-mode vip" => Spec("/EndpointSpec/Mode", r#""vip""#);
        "--entrypoint /bin/busybox" => Spec("/TaskTemplate/ContainerSpec/Command", r#"["/bin/busybox"]"#);
        "--env-add A=1" => Spec("/TaskTemplate/ContainerSpec/Env", r#"["A=1"]"#);
        "--env-rm A" => Spec("/TaskTemplate/ContainerSpec/Env", "null");
        "--force" => Spec("/TaskTemplate/ForceUpdate", "1");
        "--generic-resource-add gpu=1" => Spec("/TaskTemplate/Resources/Reservations/GenericResources/0/DiscreteResourceSpec/Kind", r#""gpu""#);
        "--generic-resource-rm gpu" => Spec("/TaskTemplate/Resources/Reservations/GenericResources", "null");
        "--group-add 50" => Spec("/TaskTemplate/ContainerSpec/Groups", r#"["50"]"#);
        "--group-rm 50" => Spec("/TaskTemplate/ContainerSpec/Groups", "null");
        "--health-cmd true --health-interval 5s --health-retries 2 --health-start-period 1s --health-timeout 3s" => Spec("/TaskTemplate/ContainerSpec/Healthcheck", r#"{"Test":["CMD-SHELL","true"],"Interval":5000000000,"Retries":2,"StartPeriod":1000000000,"Timeout":3000000000}"#);
        "--health-start-interval 1s" => Refused("requires API version");
        "--oom-score-adj 10" => Refused("requires API version");
        "--no-healthcheck" => Spec("/TaskTemplate/ContainerSpec/Healthcheck", r#"{"Test":["NONE"]}"#);
        "--host-add other:192.0.2.99" => Spec("/TaskTemplate/ContainerSpec/Hosts", r#"["192.0.2.99 other"]"#);
        "--host-rm other:192.0.2.99" => Spec("/TaskTemplate/ContainerSpec/Hosts", "null");
        "--hostname h" => Spec("/TaskTemplate/ContainerSpec/Hostname", r#""h""#);
        "--image busybox:latest --no-resolve-image" => Spec("/TaskTemplate/ContainerSpec/Image", r#""busybox:latest""#);
        "--init" => Spec("/TaskTemplate/ContainerSpec/Init", "true");
        "--isolation default" => Spec("/TaskTemplate/ContainerSpec/Isolation", r#""default""#);
        "--credential-spec file://spec.json" => Refused("CredentialSpec");
        "--label-add l=v" => Spec("/Labels", r#"{"l":"v"}"#);
        "--label-rm l" => Spec("/Labels", "null");
        "--limit-cpu 0.5 --limit-memory 64m --limit-pids 100" => Spec("/TaskTemplate/Resources/Limits", r#"{"NanoCPUs":500000000,"MemoryBytes":67108864,"Pids":100}"#);
        "--reserve-cpu 0.1 --reserve-memory 32m" => Spec("/TaskTemplate/Resources/Reservations", r#"{"NanoCPUs":100000000,"MemoryBytes":33554432}"#);
        "--log-driver json-file --log-opt max-size=1m" => Spec("/TaskTemplate/LogDriver", r#"{"Name":"json-file","Options":{"max-size":"1m"}}"#);
        "--mount-add type=volume,source=v,target=/v" => Spec("/TaskTemplate/ContainerSpec/Mounts", r#"[{"Type":"volume","Source":"v","Target":"/v"}]"#);
        "--mount-rm /v" => Spec("/TaskTemplate/ContainerSpec/Mounts", "null");
        "--network-add name=fn,alias=al" => Spec("/TaskTemplate/Networks/0/Aliases", r#"["al"]"#);
        "--network-rm fn" => Spec("/TaskTemplate/Networks", "null");
        "--placement-pref-add spread=node.labels.zone" => Spec("/TaskTemplate/Placement/Preferences/0/Spread/SpreadDescriptor", r#""node.labels.zone""#);
        "--placement-pref-rm spread=node.labels.zone" => Spec("/TaskTemplate/Placement/Preferences", "null");
        "--publish-add published=8080,target=80" => Spec("/EndpointSpec/Ports/0/PublishedPort", "8080");
        "--publish-rm 80" => Spec("/EndpointSpec/Ports", "null");
        "--read-only" => Spec("/TaskTemplate/ContainerSpec/ReadOnly", "true");
        "--replicas-max-per-node 2" => Spec("/TaskTemplate/Placement/MaxReplicas", "2");
        "--replicas 0 --quiet" => Spec("/Mode/Replicated/Replicas", "0");
        // The CLI keeps it to itself where the service is no job.
        "--max-concurrent 2" => Spec("/Mode/ReplicatedJob", "null"), Told("golden_modes");
        "--restart-condition none --restart-delay 2s --restart-max-attempts 3 --restart-window 1m" => Spec("/TaskTemplate/RestartPolicy", r#"{"Condition":"none","Delay":2000000000,"MaxAttempts":3,"Window":60000000000}"#);
        "--rollback-delay 1s --rollback-failure-action continue --rollback-max-failure-ratio 0.5 --rollback-monitor 2s --rollback-order start-first --rollback-parallelism 0" => Spec("/RollbackConfig", r#"{"Parallelism":0,"Delay":1000000000,"FailureAction":"continue","Monitor":2000000000,"MaxFailureRatio":0.5,"Order":"start-first"}"#);
        "--update-delay 1s --update-failure-action rollback --update-max-failure-ratio 0.25 --update-monitor 3s --update-order start-first --update-parallelism 2" => Spec("/UpdateConfig", r#"{"Parallelism":2,"Delay":1000000000,"FailureAction":"rollback","Monitor":3000000000,"MaxFailureRatio":0.25,"Order":"start-first"}"#);
        "--stop-grace-period 3s --stop-signal SIGINT" => Spec("/TaskTemplate/ContainerSpec/StopGracePeriod", "3000000000"), Spec("/TaskTemplate/ContainerSpec/StopSignal", r#""SIGINT""#);
        "--sysctl-add net.ipv4.ip_unprivileged_port_start=0" => Spec("/TaskTemplate/ContainerSpec/Sysctls", r#"{"net.ipv4.ip_unprivileged_port_start":"0"}"#);
        "--sysctl-rm net.ipv4.ip_unprivileged_port_start" => Spec("/TaskTemplate/ContainerSpec/Sysctls", "null");
        "--tty" => Spec("/TaskTemplate/ContainerSpec/TTY", "true");
        "--ulimit-add nofile=1000:2000" => Spec("/TaskTemplate/ContainerSpec/Ulimits", r#"[{"Name":"nofile","Hard":2000,"Soft":1000}]"#);
        "--ulimit-rm nofile" => Spec("/TaskTemplate/ContainerSpec/Ulimits", "null");
        "--user 1000 --workdir /srv" => Spec("/TaskTemplate/ContainerSpec/User", r#""1000""#), Spec("/TaskTemplate/ContainerSpec/Dir", r#""/srv""#);
        "--with-registry-auth" => Told("registry");
        "--user 1001 --detach" => Spec("/TaskTemplate/ContainerSpec/User", r#""1001""#);
        // What the update before it changed is as it was.
        "--rollback" => Spec("/TaskTemplate/ContainerSpec/User", r#""1000""#);
    }
}

fn try_each(host: Host, cli: Cli, known: &BTreeSet<String>) -> Vec<String> {
    let attempt = |row: &Row| -> Result<()> {
        let detach = if row.words.contains("--detach") {
            ""
        } else {
            "--detach"
        };
        let answer = docker(
            host,
            cli,
            &format!("service update {detach} {} changed", row.words),
        )?;
        if let [Refused(words)] = row.proofs {
            return answer.refused(words).map(drop);
        }
        answer.ok()?;
        let service = inspected(host, "service inspect changed")?;
        for proof in row.proofs {
            if let Spec(pointer, expected) = proof {
                has(&service["Spec"], pointer, expected)?;
            }
        }
        Ok(())
    };
    let all = rows();
    let rows = all.iter().filter(|row| is_known(row, known));
    rows.filter_map(|row| Some(format!("{}: {:#}", row.words, attempt(row).err()?)))
        .collect()
}

#[test]
fn every_flag_of_service_update_is_honoured_or_refused() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.say("network create --driver overlay fn")?;
        for (kind, name) in [("config", "fc"), ("secret", "fs")] {
            n1.docker_words(Cli::Default, &[kind, "create", name, "-"], b"words")?
                .ok()?;
        }
        for cli in Cli::here() {
            none_forgotten(n1, cli, "update", &rows())?;
            // Without tasks: what a spec does to a container is `service create`'s to show.
            n1.say("service create --detach --name changed --replicas 0 --no-resolve-image busybox sleep 1d")?;
            let faults = try_each(n1, cli, &known(n1, cli, "update")?);
            n1.say("service rm changed")?;
            ensure!(faults.is_empty(), "{cli:?}:\n{}", faults.join("\n"));
        }
        Ok(())
    });
}
