//! What `POST /networks/create` asks, as a spec of a swarm network.

use http::StatusCode;
use serde_json::Value;
use weft_proto::ControlError;
use weft_types::{
    Labels,
    network::{Driver, IpamConfig, IpamOptions, NetworkSpec},
    validate,
};

use crate::{node::NotManager, reply::ApiError};

/// Whether the swarm makes it: of driver overlay, of scope swarm, or for published ports.
pub(super) fn is_swarm(body: &Value) -> bool {
    let flag = |key: &str| body[key].as_bool().unwrap_or(false);
    if flag("ConfigOnly") {
        return false;
    }
    body["Driver"] == "overlay" || body["Scope"] == "swarm" || flag("Ingress")
}

/// Docker's refusal where there is no manager.
pub(super) fn refuse_here(why: NotManager) -> ApiError {
    match why {
        NotManager::Worker => ApiError::new(
            StatusCode::FORBIDDEN,
            "Cannot create a multi-host network from a worker node. Please create the network from a manager node.",
        ),
        NotManager::Inactive => ApiError::new(StatusCode::FORBIDDEN, why.to_string()),
        _ => why.into(),
    }
}

/// The spec asked for.
///
/// # Errors
/// Docker's refusals, and of what cannot be honoured.
pub(super) fn spec(body: &Value) -> Result<NetworkSpec, ApiError> {
    let flag = |key: &str| body[key].as_bool().unwrap_or(false);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&body["Name"]);
    if ["none", "default", "docker_gwbridge"].contains(&name.as_str()) {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            format!("operation is not permitted on predefined {name} network"),
        ));
    }
    if body["EnableIPv4"] == false {
        return Err(ApiError::bad(
            "IPv4 cannot be disabled in a Swarm scoped network",
        ));
    }
    if body["ConfigFrom"]["Network"]
        .as_str()
        .is_some_and(|from| !from.is_empty())
    {
        return Err(ApiError::bad(
            "a swarm network of driver overlay cannot take its settings from a config-only network",
        ));
    }
    let driver = match text(&body["Driver"]) {
        name if name.is_empty() => "overlay".to_owned(),
        name => name,
    };
    let spec = NetworkSpec {
        name,
        labels: labels(&body["Labels"], "Labels")?.unwrap_or_default(),
        driver_configuration: Driver {
            name: driver,
            options: labels(&body["Options"], "Options")?,
        },
        ipv6_enabled: flag("EnableIPv6"),
        internal: flag("Internal"),
        attachable: flag("Attachable"),
        ingress: flag("Ingress"),
        ipam_options: Some(ipam(&body["IPAM"])?),
        scope: "swarm".to_owned(),
        ..NetworkSpec::default()
    };
    validate::network_spec(&spec)?;
    Ok(spec)
}

fn ipam(value: &Value) -> Result<IpamOptions, ApiError> {
    let driver = value["Driver"].as_str().unwrap_or_default();
    let mut configs = Vec::new();
    for config in value["Config"].as_array().into_iter().flatten() {
        let field = |key: &str| config[key].as_str().filter(|text| !text.is_empty());
        if config["AuxiliaryAddresses"]
            .as_object()
            .is_some_and(|aux| !aux.is_empty())
        {
            return Err(ApiError::bad(
                "auxiliary addresses are not supported on swarm networks: leave them out of --subnet by --ip-range",
            ));
        }
        let bad = |what: &str, text: &str| {
            let message = format!("ipam configuration: invalid {what} {text}");
            ApiError::from_manager(ControlError::invalid(message))
        };
        let subnet = field("Subnet").unwrap_or_default();
        configs.push(IpamConfig {
            subnet: Some(subnet.parse().map_err(|_| bad("subnet", subnet))?),
            range: field("IPRange")
                .map(|text| text.parse().map_err(|_| bad("range", text)))
                .transpose()?,
            gateway: field("Gateway")
                .map(|text| text.parse().map_err(|_| bad("gateway", text)))
                .transpose()?,
        });
    }
    Ok(IpamOptions {
        driver: Driver {
            name: if driver.is_empty() { "default" } else { driver }.to_owned(),
            options: labels(&value["Options"], "IPAM.Options")?,
        },
        configs,
    })
}

/// A map of text to text; `None` when it is empty or absent.
fn labels(value: &Value, field: &str) -> Result<Option<Labels>, ApiError> {
    let Some(map) = value.as_object().filter(|map| !map.is_empty()) else {
        return Ok(None);
    };
    let pairs = map.iter().map(|(key, value)| match value {
        Value::String(text) => Ok((key.clone(), text.clone())),
        Value::Null => Ok((key.clone(), String::new())),
        _ => Err(ApiError::bad(format!("invalid {field}: {key} is no text"))),
    });
    pairs.collect::<Result<Labels, _>>().map(Some)
}
