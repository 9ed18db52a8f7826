//! A container's end of a swarm network, as clients wish for it.

use std::net::IpAddr;

use http::StatusCode;
use serde_json::Value;

use crate::reply::ApiError;

/// Names that one container has for another.
pub(super) const LINKS: &str = "links (--link, links:); give the other container an alias on the network (--network-alias, aliases:) instead";

/// What is honoured of an `EndpointSettings`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) aliases: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Endpoint {
    /// Reads `endpoint`, which is on the swarm network `name`.
    ///
    /// # Errors
    /// When it asks for what is not built, or for an address that is none.
    pub(crate) fn read(endpoint: &Value, name: &str) -> Result<Self, ApiError> {
        refuse_what_is_not_built(endpoint, name)?;
        let aliases = endpoint["Aliases"].as_array().into_iter().flatten();
        let aliases = aliases.filter_map(Value::as_str).map(str::to_owned);
        let addresses = ["IPv4Address", "IPv6Address"]
            .into_iter()
            .filter_map(|field| endpoint["IPAMConfig"][field].as_str())
            .filter(|text| !text.is_empty())
            .map(|text| {
                text.parse()
                    .map_err(|_| ApiError::bad(format!("invalid IP address: {text}")))
            });
        Ok(Self {
            aliases: aliases.collect(),
            addresses: addresses.collect::<Result<_, _>>()?,
        })
    }
}

/// Refuses what a container's end of the swarm network `name` cannot have here, rather than to leave it out.
fn refuse_what_is_not_built(endpoint: &Value, name: &str) -> Result<(), ApiError> {
    let given = |value: &Value| !is_empty(value);
    let what = if given(&endpoint["MacAddress"]) {
        "a MAC address of its own"
    } else if given(&endpoint["IPAMConfig"]["LinkLocalIPs"]) {
        "link-local addresses of its own"
    } else if given(&endpoint["DriverOpts"]) {
        "options for the driver"
    } else if endpoint["GwPriority"].as_i64().unwrap_or(0) != 0 {
        "a gateway priority: the first network has the way out"
    } else if given(&endpoint["Links"]) {
        LINKS
    } else {
        return Ok(());
    };
    Err(cannot_have(name, what))
}

pub(super) fn cannot_have(network: &str, what: &str) -> ApiError {
    let message = format!("a container on the swarm network {network} cannot have {what}");
    ApiError::new(StatusCode::NOT_IMPLEMENTED, message)
}

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
