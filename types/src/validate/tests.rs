use proptest::prelude::*;

use super::*;

fn service(json: &str) -> Result<(), Refusal> {
    service_spec(&serde_json::from_str(json).unwrap())
}

fn refusal(name: &str, template: &str, more: &str) -> String {
    let json = format!(r#"{{"Name":"{name}","TaskTemplate":{template}{more}}}"#);
    service(&json).unwrap_err().message
}

const PLAIN: &str = r#"{"ContainerSpec":{"Image":"tool:latest"}}"#;

#[test]
fn the_smallest_service_is_right() {
    assert_eq!(
        service(&format!(r#"{{"Name":"e1","TaskTemplate":{PLAIN}}}"#)),
        Ok(())
    );
}

#[test]
fn refusals_are_docker_s_word_for_word() {
    let rows = [
        (
            "bad.name",
            PLAIN,
            "",
            "name must be valid as a DNS name component",
        ),
        ("", PLAIN, "", "meta: name must be provided"),
        (
            "e",
            PLAIN,
            r#","Mode":{"Replicated":{"Replicas":18446744073709551615}}"#,
            "18446744073709551615 tasks are more than a service may have (1000000)",
        ),
        (
            "e",
            PLAIN,
            r#","Mode":{"ReplicatedJob":{"MaxConcurrent":1000001}}"#,
            "1000001 tasks are more than a service may have (1000000)",
        ),
        (
            "e",
            r#"{"ContainerSpec":{}}"#,
            "",
            "ContainerSpec: image reference must be provided",
        ),
        (
            "e",
            r#"{"ContainerSpec":{"Image":"bad image"}}"#,
            "",
            "ContainerSpec: \"bad image\" is not a valid repository/tag",
        ),
        (
            "e",
            r#"{"ContainerSpec":{"Image":"a"},"Resources":{"Limits":{"MemoryBytes":1048576}}}"#,
            "",
            "invalid memory value 1048576: Must be at least 4MiB",
        ),
        (
            "e",
            r#"{"ContainerSpec":{"Image":"a"},"Resources":{"Limits":{"NanoCPUs":100000}}}"#,
            "",
            "invalid cpu value 0.0001: Must be at least 0.001",
        ),
        (
            "e",
            r#"{"ContainerSpec":{"Image":"a"},"RestartPolicy":{"Delay":-1000000000}}"#,
            "",
            "TaskSpec: restart-delay cannot be negative",
        ),
        (
            "e",
            r#"{"ContainerSpec":{"Image":"a","Mounts":[{"Target":"/a"},{"Target":"/a"}]}}"#,
            "",
            "ContainerSpec: duplicate mount point: /a",
        ),
        (
            "e",
            r#"{"ContainerSpec":{"Image":"a","Healthcheck":{"Interval":1000}}}"#,
            "",
            "ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
        ),
        (
            "e",
            r#"{"ContainerSpec":{"Image":"a"},"Placement":{"Constraints":["node.role=worker"]}}"#,
            "",
            "constraint expected one operator from ==, !=",
        ),
        (
            "e",
            r#"{"ContainerSpec":{"Image":"a","Hostname":"{{.Nope}}"}}"#,
            "",
            "expanding hostname failed: template: expansion:1:2: executing \"expansion\" at <.Nope>: can't evaluate field Nope in type *template.Context",
        ),
        (
            "e",
            r#"{"ContainerSpec":{"Image":"a","Env":["A={{.Bad"]}}"#,
            "",
            "expanding env failed: template: expansion:1: unclosed action",
        ),
        (
            "e",
            PLAIN,
            r#","UpdateConfig":{"MaxFailureRatio":2}"#,
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        ),
        (
            "e",
            PLAIN,
            r#","EndpointSpec":{"Mode":"dnsrr","Ports":[{"TargetPort":80,"PublishedPort":90}]}"#,
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        ),
        (
            "e",
            PLAIN,
            r#","EndpointSpec":{"Ports":[{"TargetPort":80,"PublishedPort":81},{"TargetPort":82,"PublishedPort":81}]}"#,
            "EndpointSpec: duplicate published ports provided",
        ),
    ];
    for (name, template, more, words) in rows {
        assert_eq!(refusal(name, template, more), words);
    }
    let long = "x".repeat(64);
    assert_eq!(
        refusal(&long, PLAIN, ""),
        "name must be 63 characters or fewer"
    );
}

#[test]
fn the_same_port_may_be_published_per_protocol() {
    let ports = r#"{"Ports":[{"Protocol":"tcp","TargetPort":53,"PublishedPort":53},{"Protocol":"udp","TargetPort":53,"PublishedPort":53},{"TargetPort":80},{"TargetPort":81}]}"#;
    let json = format!(r#"{{"Name":"dns","TaskTemplate":{PLAIN},"EndpointSpec":{ports}}}"#);
    assert_eq!(service(&json), Ok(()));
}

#[test]
fn placeholders_that_docker_documents_are_right() {
    let container = r#"{"ContainerSpec":{"Image":"a","Hostname":"h-{{.Task.Slot}}-{{ .Node.Hostname }}",
        "Env":["A={{index .Service.Labels \"a b\"}}","B={{- .Service.Labels.x -}}","{{.Bad"],
        "Mounts":[{"Target":"/{{.Task.ID}}"}]}}"#;
    let json = format!(r#"{{"Name":"t","TaskTemplate":{container}}}"#);
    assert_eq!(service(&json), Ok(()));
}

#[test]
fn images_are_told_from_other_text() {
    let good = [
        "busybox",
        "busybox:1.36",
        "library/busybox:latest",
        "127.0.0.1:5000/web:v1",
        "[::1]:5000/web",
        "localhost/a/b/c",
        "registry.example.org:443/a__b/c--d.e:T_1.2-3",
        "a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ];
    for image in good {
        assert!(image_reference(image), "{image}");
    }
    let bad = [
        "",
        "bad image",
        "Busybox",
        "a:",
        "a:-x",
        "/a",
        "a/",
        "a//b",
        "a@b",
        "a..b",
        "-a",
        "a:b:c",
        "host:x/a",
    ];
    for image in bad {
        assert!(!image_reference(image), "{image}");
    }
}

#[test]
fn secrets_have_names_and_sizes() {
    let spec = |name: &str, bytes: usize| SecretSpec {
        name: name.into(),
        data: crate::secret::Base64(vec![0; bytes]),
        ..SecretSpec::default()
    };
    assert_eq!(secret_spec(&spec("a.b-c_d", 511_999)), Ok(()));
    assert_eq!(
        secret_spec(&spec("ok", 512_000)).unwrap_err().message,
        "secret data must be larger than 0 and less than 512000 bytes"
    );
    assert_eq!(
        config_spec(&spec("ok", 1_024_000)).unwrap_err().message,
        "config data must be larger than 0 and less than 1024000 bytes"
    );
    assert!(
        secret_spec(&spec("bad/name", 1))
            .unwrap_err()
            .message
            .starts_with("invalid name, only 64 [a-zA-Z0-9-_.] characters allowed")
    );
}

proptest! {
    #[test]
    fn nothing_that_a_client_writes_makes_it_panic(
        name in "\\PC{0,70}", image in "\\PC{0,90}", constraint in "\\PC{0,40}",
    ) {
        let _ = super::name(&name);
        let _ = image_reference(&image);
        let _ = constraints(&[constraint]);
        let hostname = Some(format!("{{{{{name}{{{{{image}}}}}"));
        let spec = crate::container::ContainerSpec {
            hostname,
            ..Default::default()
        };
        let _ = template::placeholders(&spec);
    }

    #[test]
    fn dns_labels_are_names(name in "[a-zA-Z0-9]([a-zA-Z0-9_-]{0,60}[a-zA-Z0-9])?") {
        prop_assert_eq!(super::name(&name), Ok(()));
    }
}

#[test]
fn a_network_of_the_nodes_own_is_alone_and_forwards_nothing() {
    let on = |networks: &str, ports: &str| {
        service(&format!(
            r#"{{"Name":"e","TaskTemplate":{{"ContainerSpec":{{"Image":"tool"}},"Networks":[{networks}]}},"EndpointSpec":{{"Ports":[{ports}]}}}}"#
        ))
    };
    let (host, bridge) = (r#"{"Target":"host"}"#, r#"{"Target":"bridge"}"#);
    let own_port = r#"{"TargetPort":9100,"PublishedPort":9100,"PublishMode":"host"}"#;
    for (networks, ports) in [(host, ""), (bridge, ""), (host, own_port)] {
        assert_eq!(on(networks, ports), Ok(()), "{networks} {ports}");
    }
    for (networks, ports, words) in [
        (
            r#"{"Target":"host"},{"Target":"net"}"#,
            "",
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ),
        (
            r#"{"Target":"net"},{"Target":"bridge"}"#,
            "",
            "network bridge cannot be on any other network",
        ),
        (
            host,
            r#"{"TargetPort":80,"PublishedPort":80}"#,
            "port 80 cannot be published so by a service on network host: its tasks answer on their nodes' own ports: publish it with mode=host, or not at all",
        ),
        (
            host,
            r#"{"TargetPort":80,"PublishedPort":8080,"PublishMode":"host"}"#,
            "the published port is the target port",
        ),
        (bridge, own_port, "weft publishes no ports there"),
    ] {
        let message = on(networks, ports).unwrap_err().message;
        assert!(message.contains(words), "{networks} {ports}: {message}");
    }
}

#[test]
fn raft_settings_that_we_would_not_follow_are_refused() {
    let spec =
        |raft: &str| cluster_spec(&serde_json::from_str(&format!(r#"{{"Raft":{raft}}}"#)).unwrap());
    for followed in [
        "{}",
        r#"{"ElectionTick":0,"HeartbeatTick":0}"#,
        r#"{"ElectionTick":10,"HeartbeatTick":1,"KeepOldSnapshots":0,"SnapshotInterval":5000}"#,
    ] {
        assert_eq!(spec(followed), Ok(()), "{followed}");
    }
    for not in [
        r#"{"ElectionTick":3}"#,
        r#"{"HeartbeatTick":2}"#,
        r#"{"KeepOldSnapshots":1}"#,
    ] {
        assert_eq!(
            spec(not).unwrap_err().kind,
            RefusalKind::Unimplemented,
            "{not}"
        );
    }
}
