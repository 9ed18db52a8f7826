//! Service specs between Docker's JSON and ours: what the API layer checks, fills in and echoes.

use serde_json::Value;
use weft_types::{
    SecretId,
    container::DnsConfig,
    service::{Replicated, ReplicatedJob, ServiceMode, ServiceSpec, UpdateConfig},
    task::{Placement, ResourceRequirements, RestartPolicy},
    validate::{self, Refusal, RefusalKind},
};

use crate::{body::understood, names, reply::ApiError};

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        use weft_proto::{ControlError, ErrorCode};
        let code = match refusal.kind {
            RefusalKind::Invalid => ErrorCode::InvalidArgument,
            RefusalKind::Unknown => ErrorCode::Unknown,
            RefusalKind::Unimplemented => ErrorCode::Unimplemented,
        };
        Self::from_manager(ControlError::new(code, refusal.message))
    }
}

/// The spec that a client's JSON spells, with the API layer's own defaults, checked.
///
/// # Errors
/// Docker's refusals.
pub(crate) fn service(mut value: Value) -> Result<ServiceSpec, ApiError> {
    check_words(&mut value)?;
    check_references(&value)?;
    let mut spec: ServiceSpec =
        serde_json::from_value(value.clone()).map_err(|error| ApiError::bad(describe(&error)))?;
    let read = serde_json::to_value(&spec).unwrap_or_default();
    understood(&value, &read)?;
    check_runtime(&mut spec)?;
    complete_mode(&mut spec.mode)?;
    if spec.name.is_empty() {
        spec.name = names::random();
    }
    if let Some(container) = &mut spec.task_template.container_spec
        && container.isolation.as_deref().unwrap_or("").is_empty()
    {
        container.isolation = Some("default".to_owned());
    }
    validate::service_spec(&spec)?;
    Ok(spec)
}

/// serde's words without the place, which means nothing here.
fn describe(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message[..end].to_owned()
}

/// Choices that Docker reads as text: put in lower case, and refused in its words when unknown.
fn check_words(value: &mut Value) -> Result<(), ApiError> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let condition = word(&value["TaskTemplate"]["RestartPolicy"]["Condition"]);
    if !["", "none", "on-failure", "any"].contains(&condition.as_str()) {
        return Err(ApiError::bad(format!(
            "invalid RestartCondition: {condition:?}"
        )));
    }
    for config in ["UpdateConfig", "RollbackConfig"] {
        let action = word(&value[config]["FailureAction"]);
        if !["", "pause", "continue", "rollback"].contains(&action.as_str()) {
            return Err(ApiError::bad(format!(
                "unrecognized update failure action {action}"
            )));
        }
        let order = word(&value[config]["Order"]);
        if !["", "stop-first", "start-first"].contains(&order.as_str()) {
            return Err(ApiError::bad(format!("unrecognized update order {order}")));
        }
    }
    // Empty ones say something too: which mode it is.
    let known = ["Replicated", "Global", "ReplicatedJob", "GlobalJob"];
    let modes = value["Mode"].as_object();
    if let Some(mode) = modes
        .into_iter()
        .flat_map(serde_json::Map::keys)
        .find(|mode| !known.contains(&mode.as_str()))
    {
        return Err(ApiError::bad(format!("invalid Mode: {mode:?}")));
    }
    let Some(endpoint) = value.get_mut("EndpointSpec").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    if let Some(mode) = endpoint.get("Mode") {
        let word = word(mode);
        match word.as_str() {
            "" => endpoint.remove("Mode"),
            "vip" | "dnsrr" => None,
            _ => {
                let message = format!("invalid resolution mode: {word:?}");
                return Err(ApiError::bad(message));
            }
        };
    }
    let ports = endpoint.get_mut("Ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        for (field, known) in [
            ("Protocol", &["tcp", "udp", "sctp"][..]),
            ("PublishMode", &["ingress", "host"][..]),
        ] {
            let Some(value) = port.get_mut(field) else {
                continue;
            };
            let word = word(value).to_ascii_lowercase();
            if word.is_empty() {
                port.remove(field);
            } else if known.contains(&word.as_str()) {
                *value = Value::String(word);
            } else {
                return Err(ApiError::bad(format!("invalid {field}: {word:?}")));
            }
        }
        for field in ["TargetPort", "PublishedPort"] {
            let number = port.get(field).and_then(Value::as_u64).unwrap_or(0);
            if number > 65_535 {
                return Err(ApiError::bad(format!("invalid {field}: {number}")));
            }
        }
    }
    Ok(())
}

/// Secrets and configs are named by ids; other text names none.
fn check_references(value: &Value) -> Result<(), ApiError> {
    let container = &value["TaskTemplate"]["ContainerSpec"];
    for (list, id, name, kind) in [
        ("Secrets", "SecretID", "SecretName", "secret"),
        ("Configs", "ConfigID", "ConfigName", "config"),
    ] {
        for reference in container[list].as_array().into_iter().flatten() {
            let id = reference[id].as_str().unwrap_or_default();
            if id.parse::<SecretId>().is_err() {
                let name = reference[name].as_str().unwrap_or_default();
                let message = if id.is_empty() || name.is_empty() {
                    format!("malformed {kind} reference")
                } else {
                    format!("{kind} not found: {name}")
                };
                return Err(Refusal {
                    kind: RefusalKind::Invalid,
                    message,
                }
                .into());
            }
        }
    }
    Ok(())
}

fn check_runtime(spec: &mut ServiceSpec) -> Result<(), ApiError> {
    let template = &mut spec.task_template;
    match template.runtime.as_deref() {
        None | Some("" | "container") => {}
        Some("plugin") => {
            return Err(ApiError::new(
                http::StatusCode::NOT_IMPLEMENTED,
                "plugin services are not supported",
            ));
        }
        Some(_) => return Err(ApiError::bad("unsupported runtime")),
    }
    if template.container_spec.is_none() || template.network_attachment_spec.is_some() {
        return Err(ApiError::bad("mismatched Runtime and *Spec fields"));
    }
    // Echoed from the kind of spec, not stored: tasks do not show it.
    template.runtime = None;
    Ok(())
}

/// Docker's counts where a client named none; a mode where it chose none.
///
/// # Errors
/// When it chose two.
pub(crate) fn complete_mode(mode: &mut ServiceMode) -> Result<(), ApiError> {
    let given = [
        mode.replicated.is_some(),
        mode.global.is_some(),
        mode.replicated_job.is_some(),
        mode.global_job.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        return Err(ApiError::bad("must specify only one service mode"));
    }
    if let Some(ReplicatedJob {
        max_concurrent,
        total_completions,
    }) = &mut mode.replicated_job
    {
        let concurrent = *max_concurrent.get_or_insert(1);
        total_completions.get_or_insert(concurrent);
    } else if mode.global.is_none() && mode.global_job.is_none() {
        let Replicated { replicas } = mode.replicated.get_or_insert_default();
        replicas.get_or_insert(1);
    }
    Ok(())
}

/// Docker's defaults, for `insertDefaults`.
pub(crate) fn insert_defaults(spec: &mut ServiceSpec) {
    let template = &mut spec.task_template;
    if let Some(container) = &mut template.container_spec {
        container.stop_grace_period.get_or_insert(10_000_000_000);
        container.dns_config.get_or_insert_with(DnsConfig::default);
    }
    template
        .resources
        .get_or_insert_with(ResourceRequirements::default);
    let policy = template
        .restart_policy
        .get_or_insert_with(|| RestartPolicy {
            condition: "any".to_owned(),
            max_attempts: Some(0),
            ..RestartPolicy::default()
        });
    policy.delay.get_or_insert(5_000_000_000);
    template.placement.get_or_insert_with(Placement::default);
    for config in [&mut spec.update_config, &mut spec.rollback_config] {
        let config = config.get_or_insert_with(|| UpdateConfig {
            parallelism: 1,
            failure_action: "pause".to_owned(),
            order: "stop-first".to_owned(),
            ..UpdateConfig::default()
        });
        config.monitor.get_or_insert(5_000_000_000);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::SpecView;

    fn refusal(value: Value) -> (u16, String) {
        let error = service(value).unwrap_err();
        (error.status.as_u16(), error.message)
    }

    fn with(more: Value) -> Value {
        let mut value =
            json!({"Name": "x", "TaskTemplate": {"ContainerSpec": {"Image": "tool:latest"}}});
        for (key, field) in more.as_object().unwrap() {
            value[key] = field.clone();
        }
        value
    }

    #[test]
    fn what_is_missing_is_filled_in() {
        let spec = service(with(json!({"Name": "", "Mode": {"Replicated": {}}}))).unwrap();
        assert!(!spec.name.is_empty());
        assert_eq!(spec.mode.replicated.unwrap().replicas, Some(1));
        let container = spec.task_template.container_spec.as_ref().unwrap();
        assert_eq!(container.isolation.as_deref(), Some("default"));
        let job = service(with(
            json!({"Mode": {"ReplicatedJob": {"MaxConcurrent": 3}}}),
        ))
        .unwrap();
        assert_eq!(job.mode.replicated_job.unwrap().total_completions, Some(3));
        let none = service(with(json!({"Mode": {}}))).unwrap();
        assert_eq!(none.mode.replicated.unwrap().replicas, Some(1));
        let job = service(with(json!({"Mode": {"ReplicatedJob": {}}}))).unwrap();
        let job = job.mode.replicated_job.unwrap();
        assert_eq!(
            (job.max_concurrent, job.total_completions),
            (Some(1), Some(1))
        );
    }

    #[test]
    fn refusals_are_docker_s() {
        let prefix = "rpc error: code = InvalidArgument desc = ";
        let rows = [
            (
                json!({"Name": "x"}),
                400,
                "mismatched Runtime and *Spec fields".to_owned(),
            ),
            (
                with(json!({"Mode": {"Replicated": {}, "Global": {}}})),
                400,
                "must specify only one service mode".to_owned(),
            ),
            (
                with(json!({"Mode": {"Plural": {}}})),
                400,
                "invalid Mode: \"Plural\"".to_owned(),
            ),
            (
                with(json!({"UpdateConfig": {"Order": "sideways"}})),
                400,
                "unrecognized update order sideways".to_owned(),
            ),
            (
                with(
                    json!({"TaskTemplate": {"ContainerSpec": {"Image": "a"}, "RestartPolicy": {"Condition": "never"}}}),
                ),
                400,
                "invalid RestartCondition: \"never\"".to_owned(),
            ),
            (
                with(
                    json!({"TaskTemplate": {"ContainerSpec": {"Image": "a", "Secrets": [{"SecretID": "nosuch", "SecretName": "nosuch", "File": {"Name": "a"}}]}}}),
                ),
                400,
                format!("{prefix}secret not found: nosuch"),
            ),
            (
                with(
                    json!({"TaskTemplate": {"ContainerSpec": {"Image": "a"}, "Placement": {"Constraints": ["node.role=x"]}}}),
                ),
                500,
                "rpc error: code = Unknown desc = constraint expected one operator from ==, !="
                    .to_owned(),
            ),
            (
                with(
                    json!({"EndpointSpec": {"Ports": [{"TargetPort": 80, "HostIP": "192.0.2.1"}]}}),
                ),
                400,
                "EndpointSpec.Ports.0.HostIP \"192.0.2.1\" is not supported by weft".to_owned(),
            ),
            (
                with(json!({"Brandnew": 1})),
                501,
                "rpc error: code = Unimplemented desc = Brandnew 1 is not supported by weft"
                    .to_owned(),
            ),
            (
                with(json!({"Name": "bad name"})),
                400,
                format!("{prefix}name must be valid as a DNS name component"),
            ),
        ];
        for (value, status, message) in rows {
            assert_eq!(refusal(value.clone()), (status, message), "{value}");
        }
    }

    #[test]
    fn a_spec_comes_back_as_it_was_sent() {
        let sent = with(json!({
            "Labels": {"a": "b"},
            "TaskTemplate": {
                "ContainerSpec": {"Image": "a", "Init": false, "DNSConfig": {}, "Isolation": "default",
                    "Privileges": {"NoNewPrivileges": true}},
                "Resources": {"Limits": {"MemoryBytes": 67108864}, "Reservations": {}},
                "Placement": {"Constraints": ["node.role==worker"], "MaxReplicas": 2},
                "Networks": [{"Target": "n", "Aliases": ["x"]}],
                "ForceUpdate": 3, "Runtime": "container"
            },
            "Mode": {"Replicated": {"Replicas": 2}},
            "UpdateConfig": {"Parallelism": 2, "Delay": 5, "FailureAction": "rollback", "Monitor": 6,
                "MaxFailureRatio": 0.25, "Order": "start-first"},
            "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "udp", "TargetPort": 80,
                "PublishedPort": 8000, "PublishMode": "host"}]}
        }));
        let back = serde_json::to_value(SpecView::from(&service(sent.clone()).unwrap())).unwrap();
        assert_eq!(back, sent);
        let unheard = refusal(with(json!({"Unheard": {"of": [1, 2.5, null]}})));
        assert_eq!(unheard.0, 501, "{}", unheard.1);
    }

    #[test]
    fn defaults_are_docker_s() {
        let mut spec = service(with(json!({}))).unwrap();
        insert_defaults(&mut spec);
        let value = serde_json::to_value(&spec).unwrap();
        assert_eq!(
            value["RollbackConfig"],
            json!({"Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_i64,
                "MaxFailureRatio": 0, "Order": "stop-first"})
        );
        assert_eq!(
            value["TaskTemplate"]["RestartPolicy"],
            json!({"Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 0})
        );
    }
}
