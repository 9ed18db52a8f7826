//! Placement constraints: `key==value` and `key!=value`, all of which must hold.

use ipnetwork::IpNetwork;
use weft_types::{
    TaskId, TaskState,
    node::{Node, NodeResources, Role},
    task::{GenericResource, Task},
};

use super::task::occupies;
use crate::store::{Draft, Scope};

/// One constraint, parsed.
///
/// Comparison is of the whole text, letter case aside; there is no globbing, as in Swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    key: String,
    equal: bool,
    value: String,
}

/// Text that is no constraint; Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseConstraintError {
    /// No `==` or `!=`.
    #[error("constraint expected one operator from ==, !=")]
    Operator,
    /// A key that cannot be one.
    #[error("key '{0}' is invalid")]
    Key(String),
    /// A value that cannot be one.
    #[error("value '{0}' is invalid")]
    Value(String),
}

impl Constraint {
    /// The constraint that `text` says.
    ///
    /// # Errors
    /// With Docker's words when it says none.
    pub fn parse(text: &str) -> Result<Self, ParseConstraintError> {
        let parts = |operator| text.split_once(operator);
        let (key, value, equal) = match (parts("=="), parts("!=")) {
            (Some((key, value)), Some((other, _))) if key.len() < other.len() => (key, value, true),
            (_, Some((key, value))) => (key, value, false),
            (Some((key, value)), None) => (key, value, true),
            (None, None) => return Err(ParseConstraintError::Operator),
        };
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(ParseConstraintError::Key(key.to_owned()));
        }
        if !is_value(value) {
            return Err(ParseConstraintError::Value(value.to_owned()));
        }
        Ok(Self {
            key: key.to_owned(),
            equal,
            value: value.to_owned(),
        })
    }

    /// Whether `node` satisfies it. A key that nobody knows never holds.
    #[must_use]
    pub fn holds(&self, node: &Node) -> bool {
        let key = self.key.to_lowercase();
        let text = match key.as_str() {
            "node.id" => node.id.to_string(),
            "node.hostname" => node.description.hostname.clone(),
            "node.platform.os" => node.description.platform.os.clone(),
            "node.platform.arch" => node.description.platform.architecture.clone(),
            "node.role" => match node.role {
                Role::Manager => "manager".to_owned(),
                Role::Worker => "worker".to_owned(),
            },
            "node.ip" => return self.holds_ip(&node.status.addr),
            _ => match self.label(&key, node) {
                Some(label) => label,
                None => return false,
            },
        };
        (text.to_lowercase() == self.value.to_lowercase()) == self.equal
    }

    /// The label compared; missing is empty. `None` when the key names no label. The label's own
    /// name is case-sensitive.
    fn label(&self, lower: &str, node: &Node) -> Option<String> {
        let labels = if lower.starts_with("node.labels.") {
            (&node.spec.labels, "node.labels.".len())
        } else if lower.starts_with("engine.labels.") {
            (&node.description.engine.labels, "engine.labels.".len())
        } else {
            return None;
        };
        let name = self.key.get(labels.1..)?;
        Some(labels.0.get(name).cloned().unwrap_or_default())
    }

    fn holds_ip(&self, addr: &str) -> bool {
        let Ok(addr) = addr.parse::<std::net::IpAddr>() else {
            return !self.equal;
        };
        match self.value.parse::<IpNetwork>() {
            Ok(net) => net.contains(addr) == self.equal,
            Err(_) => false,
        }
    }
}

fn is_key(key: &str) -> bool {
    let mut chars = key.chars();
    let first = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first
        && key.len() >= 2
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_value(value: &str) -> bool {
    !value.is_empty()
        && value.chars().all(|c| {
            c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || r":-_.*()?+[]\^$|/".contains(c)
        })
}

/// The constraints of a task's spec. One that does not parse never holds: the API refuses them.
fn constraints(spec: &weft_types::task::TaskSpec) -> impl Iterator<Item = Option<Constraint>> {
    let placement = spec.placement.iter();
    let texts = placement.flat_map(|placement| placement.constraints.iter().flatten());
    texts.map(|text| Constraint::parse(text).ok())
}

/// Whether `node` satisfies all constraints of `spec`.
#[must_use]
pub fn satisfies(node: &Node, spec: &weft_types::task::TaskSpec) -> bool {
    constraints(spec).all(|constraint| constraint.is_some_and(|constraint| constraint.holds(node)))
}

/// Rejects tasks whose node no longer fits them: its labels or resources changed under them.
pub(super) fn enforce(draft: &mut Draft, scope: &Scope) {
    let mut misplaced = Vec::new();
    if !scope.all {
        for service in scope.services.iter().filter_map(|id| draft.service(*id)) {
            misplaced.extend(out_of_place(draft, service));
        }
        reject(draft, misplaced);
        return;
    }
    for node in draft.nodes() {
        if node.spec.availability != weft_types::node::Availability::Active
            || node.status.state == weft_types::node::NodeState::Down
        {
            continue;
        }
        let mut left = node.description.resources.clone();
        // One that waits for its node to have room holds nothing of it yet.
        let lives = |task: &&std::sync::Arc<Task>| {
            task.desired_state <= TaskState::Complete && occupies(task)
        };
        for task in draft.tasks_on_node(node.id).filter(lives) {
            let service = task.service_id.and_then(|id| draft.service(id));
            let Some(service) = service else { continue };
            let reservations = task.spec.resources.as_ref();
            let reservations = reservations.and_then(|needs| needs.reservations.as_ref());
            let (needs_cpus, needs_memory) =
                reservations.map_or((0, 0), |needs| (needs.nano_cpus, needs.memory_bytes));
            let fits = (needs_cpus == 0 || needs_cpus <= left.nano_cpus)
                && (needs_memory == 0 || needs_memory <= left.memory_bytes)
                && has_generic(&left, &task.generic_resources)
                && satisfies(node, &service.spec.task_template);
            if fits {
                left.nano_cpus -= needs_cpus;
                left.memory_bytes -= needs_memory;
                take_generic(&mut left, &task.generic_resources);
            } else {
                misplaced.push(task.id);
            }
        }
    }
    reject(draft, misplaced);
}

/// Whether a node offers all generic resources that a task was given there.
fn has_generic(left: &NodeResources, given: &[GenericResource]) -> bool {
    let offered = &left.generic_resources;
    given.iter().all(|given| {
        offered.iter().any(|offer| {
            let (had, needs) = (&offer.discrete_resource_spec, &given.discrete_resource_spec);
            match (had, needs) {
                (Some(had), Some(needs)) => had.kind == needs.kind && needs.value <= had.value,
                (None, None) => offer.named_resource_spec == given.named_resource_spec,
                _ => false,
            }
        })
    })
}

fn take_generic(left: &mut NodeResources, given: &[GenericResource]) {
    for needs in given
        .iter()
        .filter_map(|given| given.discrete_resource_spec.as_ref())
    {
        let mut offers = left.generic_resources.iter_mut();
        let mut had = offers.find_map(|offer| {
            let had = offer.discrete_resource_spec.as_mut();
            had.filter(|had| had.kind == needs.kind)
        });
        if let Some(had) = &mut had {
            had.value -= needs.value;
        }
    }
}

/// Tasks of `service` on nodes that its constraints exclude: its spec may have changed.
fn out_of_place<'a>(
    draft: &'a Draft,
    service: &'a weft_types::service::Service,
) -> impl Iterator<Item = TaskId> + 'a {
    let template = &service.spec.task_template;
    let placement = template.placement.as_ref();
    let constrained = placement
        .and_then(|placement| placement.constraints.as_ref())
        .is_some_and(|constraints| !constraints.is_empty());
    let tasks = constrained.then(|| draft.tasks_of(service.id));
    let misplaced = tasks.into_iter().flatten().filter(|task| {
        let node = task.node_id.and_then(|id| draft.node(id));
        task.desired_state <= TaskState::Complete
            && occupies(task)
            && node.is_some_and(|node| {
                node.spec.availability == weft_types::node::Availability::Active
                    && node.status.state != weft_types::node::NodeState::Down
                    && !satisfies(node, template)
            })
    });
    misplaced.map(|task| task.id)
}

fn reject(draft: &mut Draft, misplaced: Vec<TaskId>) {
    let now = draft.now();
    for id in misplaced {
        draft.edit_task(id, |task| {
            task.status.state = TaskState::Rejected;
            task.status.timestamp = now;
            task.status.message = "task rejected by constraint enforcer".to_owned();
            task.status.err = "assigned node no longer meets constraints".to_owned();
        });
    }
}

#[cfg(test)]
mod tests {
    use weft_types::NodeId;

    use super::*;
    use crate::fixture;

    #[test]
    fn text_that_is_no_constraint_is_refused_in_dockers_words() {
        let refuse = |text: &str| Constraint::parse(text).unwrap_err().to_string();
        assert_eq!(
            refuse("node.role"),
            "constraint expected one operator from ==, !="
        );
        assert_eq!(
            refuse("node.role=manager"),
            "constraint expected one operator from ==, !="
        );
        assert_eq!(refuse("9key==x"), "key '9key' is invalid");
        assert_eq!(refuse("node.role=="), "value '' is invalid");
        assert_eq!(refuse("node.role==a,b"), "value 'a,b' is invalid");
    }

    #[test]
    fn every_key_compares_what_it_says() {
        let mut node = fixture::node(7);
        node.description.hostname = "Alpha".into();
        node.spec.labels.insert("Zone".into(), "east".into());
        node.description
            .engine
            .labels
            .insert("disk".into(), "ssd".into());
        node.description.platform.os = "linux".into();
        node.status.addr = "192.0.2.11".into();
        node.role = Role::Manager;
        let id = format!("node.id=={}", NodeId::numbered(7));
        for holds in [
            id.as_str(),
            "node.hostname==alpha",
            "node.labels.Zone==EAST",
            "NODE.LABELS.Zone == east",
            "node.labels.zone!=east",
            "node.labels.other!=x",
            "engine.labels.disk==ssd",
            "node.role==manager",
            "node.platform.os==linux",
            "node.ip==192.0.2.0/24",
            "node.ip==192.0.2.11",
            "node.ip!=198.51.100.0/24",
        ] {
            assert!(Constraint::parse(holds).unwrap().holds(&node), "{holds}");
        }
        for fails in [
            "node.labels.zone==east",
            "node.hostname==al*",
            "node.unknown==x",
            "node.unknown!=x",
            "node.role!=manager",
            "node.ip==198.51.100.0/24",
        ] {
            assert!(!Constraint::parse(fails).unwrap().holds(&node), "{fails}");
        }
    }
}
