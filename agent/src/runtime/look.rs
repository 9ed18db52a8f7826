//! Looking at the engine: what it is, and which containers it has.

use std::{collections::BTreeSet, sync::Arc};

use weft_proto::dispatcher::NodeMessage;
use weft_types::{TaskId, netstate::WireGuardPeer, node::NodeDescription};

use super::{Input, Runtime};
use crate::{
    executor::{Change, Found},
    task::{Event, Failure},
};

impl Runtime {
    pub(super) fn look_at_everything(&mut self) {
        let (executor, inputs) = (Arc::clone(&self.config.executor), self.inputs.clone());
        tokio::spawn(async move {
            let listed = executor.list().await;
            // The loop has ended: nobody wants to know.
            let _sent = inputs.send(Input::Listed(listed)).await;
        });
    }

    pub(super) fn take_list(&mut self, listed: Result<Vec<Found>, Failure>) {
        let listed = match listed {
            Ok(listed) => listed,
            Err(failure) => {
                tracing::warn!(%failure, "cannot look at the containers of tasks");
                return;
            }
        };
        let mut seen = BTreeSet::new();
        for found in listed {
            seen.insert(found.task);
            if self.worker.machine(&found.task).is_some() {
                self.event(found.task, Event::Observed(Ok(found.observation)));
            } else if self.knows_all && self.leaving.is_none() {
                tracing::info!(task = %found.task, container = found.container, "removing a container whose task is gone");
                self.remove_stray(found);
            }
        }
        let missing: Vec<TaskId> = self
            .worker
            .machines()
            .filter(|(task, machine)| machine.container().is_some() && !seen.contains(task))
            .map(|(task, _)| *task)
            .collect();
        for task in missing {
            // The list may be older than the container: ask for this one.
            self.look_at(task);
        }
    }

    pub(super) fn take_description(&mut self, description: NodeDescription) {
        self.place.platform = description.platform.clone();
        if self.description.as_ref() != Some(&description) {
            self.description = Some(description.clone());
            self.send(NodeMessage::Description(Box::new(description)));
        }
    }

    /// Tells the managers of this node's keys for encrypted networks, for as long as the network that they
    /// tell has others.
    pub(super) fn take_keys(&mut self, keys: Option<WireGuardPeer>) {
        let Some(keys) = keys else { return };
        self.config.wireguard = Some(keys);
        let told = {
            let net = self.net.borrow();
            let own = net.nodes.get(&self.config.node);
            own.and_then(|own| own.wireguard)
        };
        if told != Some(keys) && self.session.is_up() {
            self.send(NodeMessage::WireGuard(keys));
        }
    }

    /// Asks how the container of one task is, outside its machine's steps.
    pub(super) fn look_at(&self, task: TaskId) {
        let Some(container) = self
            .worker
            .machine(&task)
            .and_then(|machine| machine.container())
        else {
            return;
        };
        let container = container.to_owned();
        let (executor, inputs) = (Arc::clone(&self.config.executor), self.inputs.clone());
        tokio::spawn(async move {
            if let Ok(observation) = executor.inspect(&container).await {
                let change = Change::Container(task, observation);
                // The loop has ended: nobody wants to know.
                let _sent = inputs.send(Input::Engine(change)).await;
            }
        });
    }

    /// Removes a container that belongs to no task any more.
    pub(super) fn remove_stray(&self, found: Found) {
        let executor = Arc::clone(&self.config.executor);
        tokio::spawn(async move {
            if let Err(failure) = executor.remove(found.task, Some(&found.container)).await {
                tracing::warn!(container = found.container, %failure, "cannot remove a container whose task is gone");
            }
        });
    }
}
