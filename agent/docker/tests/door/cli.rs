//! The stock clients, where this machine has them.

use std::{path::Path, process::Stdio};

use crate::{
    bed::{Bed, soon},
    cluster::FakeNode,
};

/// Clients at hand: a new one and Debian's.
fn clients() -> Vec<&'static str> {
    let known = ["/usr/local/bin/docker", "/usr/bin/docker"];
    known
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .collect()
}

/// Exit status and output, both streams.
async fn run(bed: &Bed, client: &str, line: &str) -> (bool, String) {
    let command = tokio::process::Command::new(client)
        .args(line.split_whitespace())
        .env("DOCKER_HOST", format!("unix://{}", bed.socket.display()))
        .env("DOCKER_CONFIG", bed.folder.path())
        .env_remove("DOCKER_API_VERSION")
        .env_remove("DOCKER_CONTEXT")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = soon(&format!("docker {line}"), command).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

/// Runs `line`, which must succeed and say all of `words`.
async fn says(bed: &Bed, client: &str, line: &str, words: &[&str]) {
    let (success, text) = run(bed, client, line).await;
    assert!(success, "{client} {line}: {text}");
    for word in words {
        assert!(
            text.contains(word),
            "{client} {line}: no {word:?} in {text}"
        );
    }
}

#[tokio::test]
async fn a_manager_is_driven() {
    for client in clients() {
        let bed = Bed::new(FakeNode::manager()).await;
        says(&bed, client, "version", &["20.10.24", "weft", "1.41"]).await;
        says(
            &bed,
            client,
            "info",
            &[
                "Swarm: active",
                "Is Manager: true",
                "Nodes: 3",
                "Managers: 1",
                "Expiry Duration: 3 months",
            ],
        )
        .await;
        says(&bed, client, "node ls", &["node1", "Leader", "Ready", "*"]).await;
        says(
            &bed,
            client,
            "node inspect self --pretty",
            &["Leader:\t\tYes", "192.0.2.11:2377"],
        )
        .await;
        says(
            &bed,
            client,
            "node update --availability drain node2",
            &["node2"],
        )
        .await;
        says(
            &bed,
            client,
            "swarm join-token worker",
            &["docker swarm join --token SWMTKN-1-w 192.0.2.11:2377"],
        )
        .await;
        says(
            &bed,
            client,
            "network create -d overlay --attachable front",
            &[],
        )
        .await;
        says(
            &bed,
            client,
            "network ls",
            &["front", "overlay", "swarm", "bridge"],
        )
        .await;
        says(
            &bed,
            client,
            "network inspect front",
            &["\"Scope\": \"swarm\""],
        )
        .await;
        let create = "service create -d --no-resolve-image --name web --replicas 3 --network front --publish 8000:80 --env A=1 --constraint node.role==worker busybox sleep 1d";
        says(&bed, client, create, &[]).await;
        says(
            &bed,
            client,
            "service ls",
            &["web", "replicated", "3/3", "*:8000->80/tcp"],
        )
        .await;
        says(
            &bed,
            client,
            "service ps web",
            &["web.1", "web.3", "node2", "Running"],
        )
        .await;
        says(
            &bed,
            client,
            "service inspect --pretty web",
            &["Replicas:\t3", "PublishedPort = 8000", "sleep 1d"],
        )
        .await;
        says(
            &bed,
            client,
            "service inspect web",
            &["\"Replicas\": 3", "\"MaxFailureRatio\": 0,"],
        )
        .await;
        says(&bed, client, "service scale -d web=5", &["web scaled to 5"]).await;
        says(
            &bed,
            client,
            "service update -d --publish-add 8001:81 --env-add B=2 web",
            &["web"],
        )
        .await;
        says(&bed, client, "service rm web", &["web"]).await;
        says(&bed, client, "network rm front", &["front"]).await;
        let (success, text) = run(&bed, client, "service inspect web").await;
        assert!(!success && text.contains("no such service: web"), "{text}");
        let (success, text) = run(&bed, client, "network create -d overlay ingress").await;
        assert!(
            !success && text.contains("network with name ingress already exists"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn progress_is_followed_to_the_end() {
    for client in clients() {
        let bed = Bed::new(FakeNode::manager()).await;
        let create =
            "service create --no-resolve-image --name web --replicas 2 --update-monitor 1s busybox";
        says(
            &bed,
            client,
            create,
            &["overall progress: 2 out of 2 tasks", "converged"],
        )
        .await;
    }
}

#[tokio::test]
async fn a_node_is_brought_in() {
    for client in clients() {
        let bed = Bed::new(FakeNode::inactive()).await;
        let (success, text) = run(&bed, client, "node ls").await;
        assert!(
            !success
                && text.contains("This node is not a swarm manager. Use \"docker swarm init\""),
            "{text}"
        );
        says(
            &bed,
            client,
            "swarm join --token SWMTKN-1-w 192.0.2.11:2377",
            &["This node joined a swarm as a worker."],
        )
        .await;
        let (success, text) = run(&bed, client, "swarm init --advertise-addr nosuch0").await;
        assert!(
            !success && text.contains("advertise address must be a non-zero IP address"),
            "{text}"
        );
    }
}
