//! Who is calling, by certificate.

use weft_types::{ClusterId, NodeId, node::Role};
use x509_parser::{parse_x509_certificate, x509::AttributeTypeAndValue};

/// The holder of a node certificate. That the cluster's root signed it has been checked by TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// CN.
    pub node: NodeId,
    /// O.
    pub cluster: ClusterId,
    /// OU.
    pub role: Role,
}

/// A certificate that is no node's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a node certificate: {0}")]
pub struct CallerError(String);

fn field<'a>(
    what: &str,
    value: Option<&'a AttributeTypeAndValue<'_>>,
) -> Result<&'a str, CallerError> {
    value
        .and_then(|value| value.as_str().ok())
        .ok_or_else(|| CallerError(format!("its subject has no {what}")))
}

impl Caller {
    /// The holder of the certificate `der`.
    ///
    /// # Errors
    /// When its subject is not a node's.
    pub fn parse(der: &[u8]) -> Result<Self, CallerError> {
        let (_, certificate) =
            parse_x509_certificate(der).map_err(|error| CallerError(error.to_string()))?;
        let subject = certificate.subject();
        let node = field("CN", subject.iter_common_name().next())?;
        let cluster = field("O", subject.iter_organization().next())?;
        let unit = field("OU", subject.iter_organizational_unit().next())?;
        let role = match unit {
            "swarm-manager" => Role::Manager,
            "swarm-worker" => Role::Worker,
            other => return Err(CallerError(format!("{other:?} is no role"))),
        };
        let id = |error: weft_types::ParseIdError| CallerError(error.to_string());
        Ok(Self {
            node: node.parse().map_err(id)?,
            cluster: cluster.parse().map_err(id)?,
            role,
        })
    }
}
