//! JSON as Go reads it: `null` is nothing, and names of fields are known in any case.
//!
//! Clients that nobody here wrote rely on both. Names inside maps that users own (labels, options)
//! are left alone.

use serde_json::{Map, Value};

/// Maps whose keys are the user's.
const USERS_OWN: [&str; 8] = [
    "labels",
    "options",
    "sysctls",
    "driveropts",
    "annotations",
    "auxiliaryaddresses",
    "data",
    "env",
];

/// Names of fields that requests answered here may have.
#[rustfmt::skip]
const NAMES: [&str; 215] = [
    "AdvertiseAddr", "Aliases", "AppArmor", "Architecture", "Args", "Attachable",
    "AutoLockManagers", "Availability", "BindOptions", "CACert", "CAConfig", "CapabilityAdd",
    "CapabilityDrop", "CheckDuplicate", "ClusterOptions", "Command", "Condition", "Config",
    "ConfigFrom", "ConfigID", "ConfigName", "ConfigOnly", "Configs", "Consistency",
    "Constraints", "Container", "ContainerID", "ContainerSpec", "CreateMountpoint",
    "CredentialSpec", "DNSConfig", "Data", "DataPathAddr", "DataPathPort", "DefaultAddrPool",
    "Delay", "Dir", "Disable", "DiscreteResourceSpec", "Dispatcher", "Driver", "DriverConfig",
    "DriverOpts", "ElectionTick", "EnableIPv4", "EnableIPv6", "EncryptionConfig",
    "EndpointConfig", "EndpointSpec", "Env", "ExternalCAs", "FailureAction", "File", "Force",
    "ForceNewCluster", "ForceRotate", "ForceUpdate", "GID", "Gateway", "GenericResources",
    "Global", "GlobalJob", "Groups", "GwPriority", "Hard", "Healthcheck", "HeartbeatPeriod",
    "HeartbeatTick", "Hostname", "Hosts", "IPAM", "IPAMConfig", "IPRange", "IPv4Address",
    "IPv6Address", "Image", "Ingress", "Init", "Internal", "Interval", "Isolation", "JoinToken",
    "KeepOldSnapshots", "Kind", "Labels", "Level", "Limits", "LinkLocalIPs", "Links",
    "ListenAddr", "LogDriver", "LogEntriesForSlowFollowers", "MacAddress", "MaxAttempts",
    "MaxConcurrent", "MaxFailureRatio", "MaxReplicas", "MemoryBytes", "MemorySwappiness", "Mode",
    "Monitor", "Mounts", "Name", "NamedResourceSpec", "Nameservers", "NanoCPUs", "Network",
    "NetworkAttachmentSpec", "NetworkID", "Networks", "NoCopy", "NoNewPrivileges",
    "NodeCertExpiry", "NonRecursive", "OS", "OomScoreAdj", "OpenStdin", "Options",
    "Orchestration", "Order", "Parallelism", "Pids", "Placement", "Platforms", "PluginSpec",
    "Ports", "Preferences", "Privileges", "Profile", "Propagation", "Protocol", "PublishMode",
    "PublishedPort", "Raft", "ReadOnly", "ReadOnlyForceRecursive", "ReadOnlyNonRecursive",
    "Registry", "RemoteAddrs", "Replicas", "Replicated", "ReplicatedJob", "Reservations",
    "Resources", "RestartPolicy", "Retries", "Role", "RollbackConfig", "Runtime", "SELinuxContext",
    "Scope", "Search", "Seccomp", "SecretID", "SecretName", "Secrets", "SigningCACert",
    "SigningCAKey", "SizeBytes", "SnapshotInterval", "Soft", "Source", "Spec", "Spread",
    "SpreadDescriptor", "StartInterval", "StartPeriod", "StopGracePeriod", "StopSignal",
    "Subnet", "SubnetSize", "Subpath", "Swap", "Sysctls", "TTY", "Target", "TargetPort",
    "TaskDefaults", "TaskHistoryRetentionLimit", "TaskTemplate", "Templating", "Test", "Timeout",
    "TmpfsOptions", "TotalCompletions", "Type", "UID", "URL", "Ulimits", "UnlockKey",
    "UpdateConfig", "User", "Value", "VolumeOptions", "Window", "AuxiliaryAddresses",
    "AdditionalNetworks", "Addr", "AccessMode", "CSIInfo", "Health", "Id", "NodeID", "ServiceID",
    "Slot", "Version", "VolumeDriver", "Warnings", "Weight", "WorkingDir", "ID", "Peers",
    "Entrypoint", "Cmd", "Description",
];

/// `value` as Go would have understood it.
pub(crate) fn normal(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(object(map)),
        Value::Array(list) => list.into_iter().map(normal).collect(),
        other => other,
    }
}

fn object(map: Map<String, Value>) -> Map<String, Value> {
    let mut normal_map = Map::new();
    for (name, value) in map {
        if value.is_null() {
            continue;
        }
        let name = known(&name).map_or(name, str::to_owned);
        let users_own = USERS_OWN.contains(&name.to_ascii_lowercase().as_str());
        let value = match value {
            Value::Object(map) if users_own => texts(map),
            value => normal(value),
        };
        normal_map.insert(name, value);
    }
    normal_map
}

/// A map of text to text, where `null` is no text.
fn texts(map: Map<String, Value>) -> Value {
    let pairs = map.into_iter().map(|(key, value)| match value {
        Value::Null => (key, String::new().into()),
        value => (key, value),
    });
    Value::Object(pairs.collect())
}

/// The field that `name` means, unless it is one as it stands.
fn known(name: &str) -> Option<&'static str> {
    if NAMES.contains(&name) {
        return None;
    }
    NAMES
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_known_in_any_case_and_null_is_nothing() {
        let sent = json!({
            "name": "a", "Labels": {"Name": "x", "name": null}, "mode": {"replicated": {"Replicas": 2}},
            "TaskTemplate": {"ContainerSpec": {"image": "a", "Env": null,
                "Mounts": [{"target": "/a", "VolumeOptions": {"labels": {"image": "b"}}}]}},
            "unheard": {"Of": [null]}
        });
        assert_eq!(
            normal(sent),
            json!({
                "Name": "a", "Labels": {"Name": "x", "name": ""},
                "Mode": {"Replicated": {"Replicas": 2}},
                "TaskTemplate": {"ContainerSpec": {"Image": "a",
                    "Mounts": [{"Target": "/a", "VolumeOptions": {"Labels": {"image": "b"}}}]}},
                "unheard": {"Of": [null]}
            })
        );
    }
}
