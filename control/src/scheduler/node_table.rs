//! What each node has left.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use weft_types::{
    NodeId, ServiceId, TaskState,
    node::Node,
    service::{PortConfig, Protocol},
    task::{DiscreteResource, Fault, GenericResource, NamedResource, Task},
};

use super::filter::{Needs, host_ports, is_open};
use crate::{
    allocator::DYNAMIC_PORTS,
    orchestrator::{faults, occupies},
    store::{Draft, Ledger},
};

/// One node as the scheduler sees it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) node: Arc<Node>,
    /// Tasks meant to run here.
    pub(super) tasks: usize,
    by_service: HashMap<ServiceId, usize>,
    /// Recent failures by service and spec version.
    failures: HashMap<(ServiceId, u64), usize>,
    /// Not reserved yet, billionths of a CPU.
    pub(super) nano_cpus: i64,
    /// Not reserved yet.
    pub(super) memory_bytes: i64,
    discrete: BTreeMap<String, i64>,
    named: BTreeMap<String, BTreeSet<String>>,
    pub(super) host_ports: HashSet<(Protocol, u16)>,
}

impl Row {
    fn new(node: &Arc<Node>) -> Self {
        let resources = &node.description.resources;
        let mut row = Self {
            node: node.clone(),
            tasks: 0,
            by_service: HashMap::new(),
            failures: HashMap::new(),
            nano_cpus: resources.nano_cpus,
            memory_bytes: resources.memory_bytes,
            discrete: BTreeMap::new(),
            named: BTreeMap::new(),
            host_ports: HashSet::new(),
        };
        for resource in &resources.generic_resources {
            if let Some(discrete) = &resource.discrete_resource_spec {
                *row.discrete.entry(discrete.kind.clone()).or_default() += discrete.value;
            }
            if let Some(named) = &resource.named_resource_spec {
                let names = row.named.entry(named.kind.clone()).or_default();
                names.insert(named.value.clone());
            }
        }
        row
    }

    /// Tasks of a service meant to run here.
    pub(super) fn of_service(&self, service: Option<ServiceId>) -> usize {
        let count = service.and_then(|service| self.by_service.get(&service));
        count.copied().unwrap_or(0)
    }

    /// Recent failures of this service and spec here.
    pub(super) fn failures(&self, needs: &Needs) -> usize {
        let key = needs.service.map(|service| (service, needs.spec_version));
        key.and_then(|key| self.failures.get(&key).copied())
            .unwrap_or(0)
    }

    pub(super) fn has_generic(&self, wish: &GenericResource) -> bool {
        if let Some(wish) = &wish.discrete_resource_spec {
            let names = self.named.get(&wish.kind).map_or(0, BTreeSet::len);
            let names = i64::try_from(names).unwrap_or(i64::MAX);
            return wish.value
                <= self
                    .discrete
                    .get(&wish.kind)
                    .copied()
                    .unwrap_or(0)
                    .max(names);
        }
        wish.named_resource_spec.as_ref().is_none_or(|wish| {
            let names = self.named.get(&wish.kind);
            names.is_some_and(|names| names.contains(&wish.value))
        })
    }

    fn take_generic(&mut self, resource: &GenericResource) {
        if let Some(discrete) = &resource.discrete_resource_spec {
            *self.discrete.entry(discrete.kind.clone()).or_default() -= discrete.value;
        }
        if let Some(named) = &resource.named_resource_spec
            && let Some(names) = self.named.get_mut(&named.kind)
        {
            names.remove(&named.value);
        }
    }

    fn count(&mut self, service: Option<ServiceId>) {
        self.tasks += 1;
        if let Some(service) = service {
            *self.by_service.entry(service).or_default() += 1;
        }
    }
}

/// All nodes, by id.
#[derive(Debug)]
pub(super) struct NodeTable {
    rows: Vec<Row>,
    by_id: HashMap<NodeId, usize>,
    /// Ports that services name: never found for those who name none.
    named_ports: HashSet<(Protocol, u16)>,
}

impl NodeTable {
    /// The nodes as the tasks of `groups` need to know them: what others hold is known in sums,
    /// and one by one only if ports or generic resources are asked for.
    pub(super) fn of(draft: &Draft, groups: &[Needs]) -> Self {
        let rows: Vec<Row> = draft.nodes().map(Row::new).collect();
        let by_id = rows.iter().enumerate();
        let by_id = by_id.map(|(place, row)| (row.node.id, place)).collect();
        let mut named_ports = HashSet::new();
        if groups.iter().any(|needs| needs.has_open_ports) {
            let ports = draft.services().flat_map(|service| service.spec.ports());
            named_ports.extend(ports.map(|port| (port.protocol, port.published_port)));
        }
        let mut table = Self {
            rows,
            by_id,
            named_ports,
        };
        let asks = |needs: &Needs| {
            !needs.host_ports.is_empty() || needs.has_open_ports || !needs.generic.is_empty()
        };
        let in_detail = groups.iter().any(asks);
        for row in &mut table.rows {
            let load = draft.load(row.node.id);
            row.tasks = load.tasks;
            row.nano_cpus -= load.nano_cpus;
            row.memory_bytes -= load.memory_bytes;
            if in_detail {
                for task in draft
                    .tasks_on_node(row.node.id)
                    .filter(|task| occupies(task))
                {
                    for resource in &task.generic_resources {
                        row.take_generic(resource);
                    }
                    row.host_ports.extend(host_ports(task));
                }
            }
        }
        let services: BTreeSet<ServiceId> =
            groups.iter().filter_map(|needs| needs.service).collect();
        for service in services {
            let mode = draft.service(service).map(|service| &service.spec.mode);
            // Where a global service's task is to be is not chosen, so nothing is avoided.
            let is_chosen =
                mode.is_some_and(|mode| mode.global.is_none() && mode.global_job.is_none());
            let mut counted = HashSet::new();
            for task in draft.tasks_of(service) {
                table.count_own(service, task);
                for fault in faults(task, draft.now()).filter(|_| is_chosen) {
                    if counted.insert(fault.task) {
                        table.count_fault((service, task.spec_version.index), &fault);
                    }
                }
            }
        }
        table
    }

    /// Counts a task of a service that more tasks are placed of.
    fn count_own(&mut self, service: ServiceId, task: &Task) {
        let row = task.node_id.and_then(|id| self.row_of(id));
        let Some(row) = row.and_then(|row| self.rows.get_mut(row)) else {
            return;
        };
        if occupies(task) && task.desired_state <= TaskState::Complete {
            *row.by_service.entry(service).or_default() += 1;
        }
    }

    fn count_fault(&mut self, of: (ServiceId, u64), fault: &Fault) {
        let row = self.row_of(fault.node);
        if let Some(row) = row.and_then(|row| self.rows.get_mut(row)) {
            *row.failures.entry(of).or_default() += 1;
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (usize, &Row)> {
        self.rows.iter().enumerate()
    }

    pub(super) fn row(&self, row: usize) -> &Row {
        &self.rows[row]
    }

    pub(super) fn row_of(&self, id: NodeId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// Counts one task of a service less on `row`. What it reserves is still held: it stops only
    /// when another runs in its stead.
    pub(super) fn leave(&mut self, row: usize, service: ServiceId) {
        let row = &mut self.rows[row];
        row.tasks = row.tasks.saturating_sub(1);
        if let Some(count) = row.by_service.get_mut(&service) {
            *count = count.saturating_sub(1);
        }
    }

    /// Sets aside on `row` what one more task needs; the generic resources that it gets are
    /// returned.
    pub(super) fn claim(&mut self, row: usize, needs: &Needs) -> Vec<GenericResource> {
        let row = &mut self.rows[row];
        row.count(needs.service);
        row.nano_cpus -= needs.nano_cpus;
        row.memory_bytes -= needs.memory_bytes;
        row.host_ports.extend(needs.host_ports.iter().copied());
        let mut claimed = Vec::new();
        for wish in &needs.generic {
            claimed.extend(row.claim_generic(wish));
        }
        claimed
    }

    /// Finds numbers on `row` for the ports that may have any. The mesh takes its own from the
    /// other end.
    pub(super) fn fill_ports(&mut self, row: usize, ports: &mut [PortConfig], ledger: &Ledger) {
        let taken = &mut self.rows[row].host_ports;
        for port in ports.iter_mut().filter(|port| is_open(port)) {
            let is_free = |number: &u16| {
                let place = (port.protocol, *number);
                !taken.contains(&place)
                    && !self.named_ports.contains(&place)
                    && ledger.port(port.protocol, *number).is_none()
            };
            // None left: the task runs, and its port is shown to have no number.
            if let Some(number) = DYNAMIC_PORTS.rev().find(is_free) {
                taken.insert((port.protocol, number));
                port.published_port = number;
            }
        }
    }
}

impl Row {
    fn claim_generic(&mut self, wish: &GenericResource) -> Vec<GenericResource> {
        let Some(discrete) = &wish.discrete_resource_spec else {
            self.take_generic(wish);
            return vec![wish.clone()];
        };
        let count = usize::try_from(discrete.value).unwrap_or(0);
        let named = |value: &String| GenericResource {
            named_resource_spec: Some(NamedResource {
                kind: discrete.kind.clone(),
                value: value.clone(),
            }),
            discrete_resource_spec: None,
        };
        let names: Vec<GenericResource> = self
            .named
            .get(&discrete.kind)
            .map(|names| names.iter().take(count).map(named).collect())
            .unwrap_or_default();
        let claimed = if names.len() == count && count > 0 {
            names
        } else {
            vec![GenericResource {
                named_resource_spec: None,
                discrete_resource_spec: Some(DiscreteResource {
                    kind: discrete.kind.clone(),
                    value: discrete.value,
                }),
            }]
        };
        for resource in &claimed {
            self.take_generic(resource);
        }
        claimed
    }
}
