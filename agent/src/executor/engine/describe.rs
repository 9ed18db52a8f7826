//! What a node is, as its engine tells.

use bollard::models::{GenericResourcesInner, SystemInfo};
use weft_types::{
    Labels,
    node::{EngineDescription, EnginePlugin, NodeDescription, NodeResources},
    task::{DiscreteResource, GenericResource, NamedResource, Platform},
};

/// The node of an engine. Fields that only the agent knows are left empty.
pub(super) fn node(info: SystemInfo) -> NodeDescription {
    let kinds = info.plugins.unwrap_or_default();
    let kinds = [
        ("Log", kinds.log),
        ("Network", kinds.network),
        ("Volume", kinds.volume),
    ];
    let mut plugins: Vec<EnginePlugin> = Vec::new();
    for (kind, names) in kinds {
        for name in names.unwrap_or_default() {
            plugins.push(EnginePlugin {
                kind: kind.to_owned(),
                name,
            });
        }
    }
    // Ours, though the engine below does not know it.
    plugins.push(EnginePlugin {
        kind: "Network".to_owned(),
        name: "overlay".to_owned(),
    });
    plugins.sort();
    plugins.dedup();
    let mut labels = Labels::new();
    for label in info.labels.unwrap_or_default() {
        let (key, value) = label.split_once('=').unwrap_or((&label, ""));
        labels.insert(key.to_owned(), value.to_owned());
    }
    let generic = info.generic_resources.unwrap_or_default();
    NodeDescription {
        hostname: info.name.unwrap_or_default(),
        platform: Platform {
            architecture: info.architecture.unwrap_or_default(),
            os: info.os_type.unwrap_or_else(|| "linux".to_owned()),
        },
        resources: NodeResources {
            nano_cpus: info.ncpu.unwrap_or_default() * 1_000_000_000,
            memory_bytes: info.mem_total.unwrap_or_default(),
            generic_resources: generic.into_iter().map(generic_resource).collect(),
        },
        engine: EngineDescription {
            engine_version: info.server_version.unwrap_or_default(),
            labels,
            plugins,
        },
        ..NodeDescription::default()
    }
}

/// One of the engine's `node-generic-resources`.
fn generic_resource(told: GenericResourcesInner) -> GenericResource {
    let named = |told: bollard::models::GenericResourcesInnerNamedResourceSpec| NamedResource {
        kind: told.kind.unwrap_or_default(),
        value: told.value.unwrap_or_default(),
    };
    let counted =
        |told: bollard::models::GenericResourcesInnerDiscreteResourceSpec| DiscreteResource {
            kind: told.kind.unwrap_or_default(),
            value: told.value.unwrap_or_default(),
        };
    GenericResource {
        named_resource_spec: told.named_resource_spec.map(named),
        discrete_resource_spec: told.discrete_resource_spec.map(counted),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_has_what_its_engine_says() {
        let info = serde_json::from_value(json!({
            "Name": "n1",
            "NCPU": 2,
            "MemTotal": 1024,
            "Architecture": "x86_64",
            "OSType": "linux",
            "ServerVersion": "20.10.24",
            "Labels": ["disk=ssd", "bare"],
            "Plugins": { "Volume": ["local", "rexray"], "Network": ["bridge"], "Log": ["local"] },
            "GenericResources": [
                { "NamedResourceSpec": { "Kind": "GPU", "Value": "g1" } },
                { "NamedResourceSpec": { "Kind": "GPU", "Value": "g2" } },
                { "DiscreteResourceSpec": { "Kind": "SSD", "Value": 3 } }
            ],
        }));
        let node = node(info.expect("what an engine answers"));
        let told = serde_json::to_value(&node).expect("it is told");
        assert_eq!(
            told["Resources"],
            json!({
                "NanoCPUs": 2_000_000_000_u64,
                "MemoryBytes": 1024,
                "GenericResources": [
                    { "NamedResourceSpec": { "Kind": "GPU", "Value": "g1" } },
                    { "NamedResourceSpec": { "Kind": "GPU", "Value": "g2" } },
                    { "DiscreteResourceSpec": { "Kind": "SSD", "Value": 3 } }
                ],
            })
        );
        assert_eq!(told["Hostname"], "n1");
        assert_eq!(
            told["Platform"],
            json!({ "Architecture": "x86_64", "OS": "linux" })
        );
        assert_eq!(node.engine.labels["disk"], "ssd");
        assert_eq!(node.engine.labels["bare"], "");
        let plugins = node.engine.plugins.iter();
        let plugins: Vec<_> = plugins
            .map(|plugin| format!("{}/{}", plugin.kind, plugin.name))
            .collect();
        let all = [
            "Log/local",
            "Network/bridge",
            "Network/overlay",
            "Volume/local",
            "Volume/rexray",
        ];
        assert_eq!(plugins, all);
    }
}
