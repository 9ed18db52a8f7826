//! Refusals that need other objects, rule by rule; what a spec says by itself is checked in
//! `weft_types::validate`, whose tables name those rules.

mod objects;
mod services;
mod updates;

use serde_json::{Value, json};
use weft_proto::{ControlError, ControlReply, ControlRequest as Ask, ErrorCode};
use weft_types::{network::NetworkSpec, node::NodeSpec, secret::SecretSpec, service::ServiceSpec};

use crate::world::World;

/// A service spec: this over the smallest one that is right.
fn spec(over: &Value) -> Box<ServiceSpec> {
    let mut spec = json!({
        "Name": "new",
        "TaskTemplate": {"ContainerSpec": {"Image": "tool"}},
        "Mode": {"Replicated": {"Replicas": 1}},
    });
    merge(&mut spec, over);
    Box::new(serde_json::from_value(spec).unwrap())
}

fn merge(into: &mut Value, over: &Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (name, value) in over {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, over) => *into = over.clone(),
    }
}

fn create(over: &Value) -> Ask {
    Ask::CreateService {
        spec: spec(over),
        registry_auth: String::new(),
    }
}

fn secret(spec: &Value) -> Box<SecretSpec> {
    Box::new(serde_json::from_value(spec.clone()).unwrap())
}

/// A cluster with a service `web` (port 8000 in the mesh), `hosted` (port 9000 of its nodes), a
/// job, a network, a secret and a config that are in use, and another secret.
struct Scene {
    world: World,
    web: String,
    hosted: String,
    secret: String,
    config: String,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new(2, 21);
        let net: NetworkSpec = serde_json::from_value(json!({"Name": "net"})).unwrap();
        world.create_network(net);
        let mut made = |ask: Ask| match world.ask(&ask) {
            Ok(ControlReply::Created(id)) => id,
            other => panic!("{other:?}"),
        };
        let kept = json!({"Name": "key", "Data": "aGFsbG8="});
        let secret_id = made(Ask::CreateSecret(secret(&kept)));
        let config_id = made(Ask::CreateConfig(secret(&kept)));
        made(Ask::CreateSecret(secret(
            &json!({"Name": "other", "Data": "aGFsbG8="}),
        )));
        let web = made(create(&json!({
            "Name": "web",
            "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8000}]},
            "TaskTemplate": {
                "Networks": [{"Target": "net"}],
                "ContainerSpec": {
                    "Secrets": [{"File": {"Name": "k"}, "SecretID": secret_id, "SecretName": "key"}],
                    "Configs": [{"File": {"Name": "/k"}, "ConfigID": config_id, "ConfigName": "key"}],
                },
            },
        })));
        let hosted = made(create(&json!({
            "Name": "hosted",
            "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 9000, "PublishMode": "host"}]},
        })));
        Self {
            world,
            web,
            hosted,
            secret: secret_id,
            config: config_id,
        }
    }

    fn version(&self, service: &str) -> u64 {
        let service = self.world.view().service_named(service).cloned();
        service.unwrap().meta.version.index
    }

    fn update(&self, service: &str, over: &Value, rollback: bool) -> Ask {
        let mut all = json!({"Name": service});
        merge(&mut all, over);
        Ask::UpdateService {
            service: service.to_owned(),
            version: self.version(service),
            spec: spec(&all),
            registry_auth: None,
            auth_from_previous: false,
            rollback,
        }
    }

    #[track_caller]
    fn refused(&mut self, rule: &str, ask: &Ask, code: ErrorCode, words: &str) {
        let index = self.world.store.index();
        let refused: ControlError = match self.world.ask(ask) {
            Err(refused) => refused,
            Ok(reply) => panic!("{rule}: answered {reply:?}"),
        };
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (code, words),
            "{rule}"
        );
        assert_eq!(
            self.world.store.index(),
            index,
            "{rule}: something was changed"
        );
    }
}
