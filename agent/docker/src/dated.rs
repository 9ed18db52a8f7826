//! Fields that came with a later version of the API than a request names: Docker leaves them out.
//!
//! A client of an old version does not know them. What it sends back was read from an answer that carries them all the
//! same, so that to refuse them would be to refuse every update by such a client.

use serde_json::Value;

use crate::version::ApiVersion;

/// Minor versions, and the fields that came with them. `[]` goes into each member of a list.
type Fields = [(u32, &'static [&'static str])];

/// Of a service.
pub(crate) const SERVICE: &Fields = &[
    (
        40,
        &[
            "TaskTemplate.ContainerSpec.Sysctls",
            "TaskTemplate.ContainerSpec.Privileges.CredentialSpec.Config",
            "TaskTemplate.ContainerSpec.Configs.[].Runtime",
            "TaskTemplate.Placement.MaxReplicas",
        ],
    ),
    (
        41,
        &[
            "TaskTemplate.ContainerSpec.CapabilityAdd",
            "TaskTemplate.ContainerSpec.CapabilityDrop",
            "TaskTemplate.ContainerSpec.Ulimits",
            "TaskTemplate.Resources.Limits.Pids",
            "Mode.ReplicatedJob",
            "Mode.GlobalJob",
        ],
    ),
    (
        44,
        &[
            "TaskTemplate.ContainerSpec.Privileges.Seccomp",
            "TaskTemplate.ContainerSpec.Privileges.AppArmor",
            "TaskTemplate.ContainerSpec.Privileges.NoNewPrivileges",
            "TaskTemplate.ContainerSpec.Healthcheck.StartInterval",
        ],
    ),
    (
        46,
        &[
            "TaskTemplate.ContainerSpec.Mounts.[].TmpfsOptions.Options",
            "TaskTemplate.ContainerSpec.OomScoreAdj",
        ],
    ),
];

/// Of `swarm init`.
pub(crate) const INIT: &Fields = &[
    (39, &["DefaultAddrPool", "SubnetSize"]),
    (40, &["DataPathPort"]),
];

/// Takes out of `value` which of `fields` came after `version`.
pub(crate) fn leave_out(value: &mut Value, fields: &Fields, version: ApiVersion) {
    for (minor, paths) in fields {
        if version < ApiVersion::new(1, *minor) {
            for path in *paths {
                take(value, path);
            }
        }
    }
}

fn take(value: &mut Value, path: &str) {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    match (value, rest) {
        (Value::Array(list), Some(rest)) if first == "[]" => {
            list.iter_mut().for_each(|value| take(value, rest));
        }
        (Value::Object(map), Some(rest)) => {
            if let Some(value) = map.get_mut(first) {
                take(value, rest);
            }
        }
        (Value::Object(map), None) => {
            map.remove(first);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_left_out_of_requests_older_than_they() {
        let newest = json!({
            "Name": "x",
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "a", "Sysctls": {"net.core.somaxconn": "9"}, "CapabilityAdd": ["CAP_KILL"],
                    "CapabilityDrop": ["CAP_CHOWN"], "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
                    "OomScoreAdj": 5, "Healthcheck": {"Interval": 1, "StartInterval": 2},
                    "Privileges": {"CredentialSpec": {"Config": "c", "File": "f"}, "NoNewPrivileges": true,
                        "Seccomp": {"Mode": "unconfined"}, "AppArmor": {"Mode": "disabled"}},
                    "Configs": [{"ConfigName": "c", "Runtime": {}}, {"ConfigName": "d"}],
                    "Mounts": [{"Type": "tmpfs", "TmpfsOptions": {"SizeBytes": 1, "Options": [["exec"]]}}],
                },
                "Resources": {"Limits": {"Pids": 5, "MemoryBytes": 6}},
                "Placement": {"MaxReplicas": 2, "Constraints": []},
            },
            "Mode": {"ReplicatedJob": {}},
        });
        let container = "/TaskTemplate/ContainerSpec";
        let privileges = "/TaskTemplate/ContainerSpec/Privileges";
        let rows = [
            (40, format!("{container}/Sysctls")),
            (40, format!("{privileges}/CredentialSpec/Config")),
            (40, format!("{container}/Configs/0/Runtime")),
            (40, "/TaskTemplate/Placement/MaxReplicas".to_owned()),
            (41, format!("{container}/CapabilityAdd")),
            (41, format!("{container}/CapabilityDrop")),
            (41, format!("{container}/Ulimits")),
            (41, "/TaskTemplate/Resources/Limits/Pids".to_owned()),
            (41, "/Mode/ReplicatedJob".to_owned()),
            (44, format!("{privileges}/Seccomp")),
            (44, format!("{privileges}/AppArmor")),
            (44, format!("{privileges}/NoNewPrivileges")),
            (44, format!("{container}/Healthcheck/StartInterval")),
            (46, format!("{container}/Mounts/0/TmpfsOptions/Options")),
            (46, format!("{container}/OomScoreAdj")),
        ];
        for minor in [24, 39, 40, 41, 43, 44, 45, 46, 50] {
            let mut value = newest.clone();
            leave_out(&mut value, SERVICE, ApiVersion::new(1, minor));
            for (since, pointer) in &rows {
                let there = value.pointer(pointer).is_some();
                assert_eq!(there, minor >= *since, "{pointer} at 1.{minor}");
            }
            let kept = [
                format!("{privileges}/CredentialSpec/File"),
                format!("{container}/Healthcheck/Interval"),
                format!("{container}/Mounts/0/TmpfsOptions/SizeBytes"),
                "/TaskTemplate/Resources/Limits/MemoryBytes".to_owned(),
            ];
            for pointer in kept {
                assert!(value.pointer(&pointer).is_some(), "{pointer} at 1.{minor}");
            }
        }
        // What is not there, or is something else, is nobody's to judge here.
        for mut odd in [json!(null), json!({"Mode": 5, "TaskTemplate": []})] {
            let before = odd.clone();
            leave_out(&mut odd, SERVICE, ApiVersion::new(1, 24));
            assert_eq!(odd, before);
        }
    }
}
