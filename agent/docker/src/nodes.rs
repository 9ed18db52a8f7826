//! `/nodes`.

use http::StatusCode;
use serde_json::Value;
use weft_proto::ControlRequest;
use weft_types::node::{Node, NodeSpec};

use crate::{
    body::parse_due,
    door::{Asked, Door, expect_one, expect_reply},
    filter::{Filters, invalid},
    go_types,
    reply::{ApiError, Reply, empty, ok},
    view::NodeView,
    words,
};

impl Door {
    pub(crate) async fn list_nodes(&self, asked: &Asked) -> Reply {
        let known = ["id", "label", "membership", "name", "node.label", "role"];
        let filters = Filters::of(asked, &known)?;
        let word = invalid(asked.version);
        for role in filters.values("role") {
            // An empty one asks for nothing.
            if words::role(role).is_err() && !role.is_empty() {
                let message = format!("{word} role filter: '{role}'");
                return Err(ApiError::internal(message));
            }
        }
        for membership in filters.values("membership") {
            if !["accepted", "pending", ""].contains(&membership) {
                let message = format!("{word} membership filter: '{membership}'");
                return Err(ApiError::internal(message));
            }
        }
        let nodes = expect_reply!(self.ask(ControlRequest::ListNodes).await?, Nodes)?;
        let fits = |node: &&Node| {
            filters.prefix("id", node.id.as_str())
                && filters.prefix("name", &node.description.hostname)
                && filters.labels("label", &node.description.engine.labels)
                && filters.labels("node.label", &node.spec.labels)
                && filters.any("role", |role| {
                    role.is_empty() || words::role(role) == Ok(node.spec.role)
                })
                && filters.any("membership", |wish| ["accepted", ""].contains(&wish))
        };
        let views: Vec<NodeView<'_>> = nodes.iter().filter(fits).map(Into::into).collect();
        Ok(ok(&views))
    }

    pub(crate) async fn inspect_node(&self, id: String) -> Reply {
        let node = expect_one!(self.ask(ControlRequest::GetNode(id)).await?, Nodes)?;
        Ok(ok(&NodeView::from(&node)))
    }

    pub(crate) async fn update_node(&self, id: String, asked: &Asked) -> Reply {
        let value = parse_due(&asked.body, &go_types::NODE)?;
        let version = asked.query.version("node")?;
        self.manager().await?;
        let spec = node_spec(value)?;
        self.ask(ControlRequest::UpdateNode {
            node: id,
            version,
            spec,
        })
        .await?;
        Ok(empty(StatusCode::OK))
    }

    pub(crate) async fn remove_node(&self, id: String, asked: &Asked) -> Reply {
        self.ask(ControlRequest::RemoveNode {
            node: id,
            force: asked.query.flag("force"),
        })
        .await?;
        Ok(empty(StatusCode::OK))
    }
}

/// A node's spec; words that Docker does not know are refused as it does.
fn node_spec(mut value: Value) -> Result<NodeSpec, ApiError> {
    // Left out they must not mean worker and active: that would demote a manager unasked.
    let word = |key: &str| match value[key].as_str().unwrap_or_default() {
        "" => Err(ApiError::bad(format!("invalid {key}: \"\""))),
        word => Ok(word),
    };
    let role = words::role(word("Role")?).map_err(ApiError::bad)?;
    let availability = words::availability(word("Availability")?).map_err(ApiError::bad)?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("Role");
        fields.remove("Availability");
    }
    let spec: NodeSpec =
        serde_json::from_value(value).map_err(|error| ApiError::bad(error.to_string()))?;
    Ok(NodeSpec {
        role,
        availability,
        ..spec
    })
}
