//! Many clients at once.

use serde_json::{Value, json};

use crate::{
    bed::{Bed, filters},
    cluster::FakeNode,
};

const CLIENTS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_lose_no_update() {
    let bed = std::sync::Arc::new(Bed::new(FakeNode::manager()).await);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let bed = std::sync::Arc::clone(&bed);
            tokio::spawn(async move { one(&bed, number).await })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let services = bed.get("/v1.41/services").await.1;
    let services = services.as_array().unwrap();
    assert_eq!(services.len(), CLIENTS);
    for service in services {
        assert_eq!(service["Spec"]["Labels"]["round"], "3", "{service}");
    }
}

/// Creates a service, reads, updates it three times by its version, and reads again.
async fn one(bed: &Bed, number: usize) {
    let name = format!("crowd-{number}");
    let spec = json!({"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "a"}},
        "Mode": {"Replicated": {"Replicas": 1}}});
    let (status, created) = bed.json("POST", "/v1.41/services/create", spec).await;
    assert_eq!(status, 201, "{created}");
    for round in 1..=3 {
        let path = format!("/v1.41/services?{}", filters(&[("name", &name)]));
        assert_eq!(bed.get(&path).await.0, 200);
        assert_eq!(bed.get("/v1.41/info").await.0, 200);
        let (status, service) = bed.get(&format!("/v1.41/services/{name}")).await;
        assert_eq!(status, 200, "{service}");
        let mut spec = service["Spec"].clone();
        spec["Labels"]["round"] = round.to_string().into();
        let version: &Value = &service["Version"]["Index"];
        let path = format!("/v1.41/services/{name}/update?version={version}");
        let (status, answer) = bed.json("POST", &path, spec).await;
        assert_eq!(status, 200, "{answer}");
    }
}
