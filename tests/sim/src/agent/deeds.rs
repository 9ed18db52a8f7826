//! What the agent's runtime does for a task, on the pretend engine and kernel.

use weft_agent::task::{Action, Event, Failure, Health, Observation};
use weft_types::{TaskId, TaskState, netstate::NetState, task::Task};

use super::{Agent, Air, Doing};
use crate::{
    Millis,
    host::{Container, Machine},
};

/// How long a task's networks are waited for.
const NETWORK_LIMIT: Millis = 60_000;

/// A failure that trying again does not mend.
fn lasting(reason: &str) -> Failure {
    Failure {
        reason: reason.to_owned(),
        passing: false,
    }
}

/// Whether the kernel knows all networks of a task, so that its sandbox can be made.
fn has_networks(state: &NetState, task: &Task) -> bool {
    let mut attachments = task.networks_attachments.iter();
    attachments.all(|wish| state.networks.contains_key(&wish.network_id))
}

impl Agent {
    pub(super) fn begin(
        &mut self,
        task: TaskId,
        action: Action,
        machine: &mut Machine,
        air: &mut Air<'_>,
    ) {
        self.doing.remove(&task);
        let Some(held) = self.worker.machine(&task) else {
            return;
        };
        let takes = match &action {
            Action::Abort => return,
            Action::Prepare => self.chance.within(10, 400),
            Action::Start | Action::Connect { .. } => self.chance.within(5, 100),
            Action::Inspect | Action::Remove => self.chance.within(1, 50),
            Action::Stop { .. } => {
                if let Some(container) = machine.containers.get_mut(&task)
                    && container.runs()
                {
                    let asked = held.task().desired_state >= TaskState::Shutdown;
                    let served = held.status().state == TaskState::Running;
                    if asked && served && container.ends.is_none() {
                        air.record.stop_signal(self.host, held.task(), air.now);
                    }
                    let takes = self.chance.within(1, 1_500);
                    container.ends.get_or_insert((air.now + takes, 143));
                }
                1
            }
        };
        let doing = Doing {
            action,
            begun: air.now,
            due: air.now + takes,
        };
        self.doing.insert(task, doing);
    }

    /// The deed of a task is due.
    pub(super) fn finish(&mut self, task: TaskId, machine: &mut Machine, air: &mut Air<'_>) {
        let Some(mut doing) = self.doing.remove(&task) else {
            return;
        };
        let Some(held) = self.worker.machine(&task) else {
            return;
        };
        let wish = held.task().clone();
        let spec = wish.spec.container_spec.as_ref();
        let image = spec.map_or("", |spec| spec.image.as_str());
        let gone = || lasting("No such container");
        let event = match &doing.action {
            Action::Abort => return,
            Action::Prepare if image == "missing" => {
                Event::Prepared(Err(lasting("No such image: missing")))
            }
            Action::Prepare => {
                let container = Container {
                    observation: Observation::Created,
                    ends: None,
                    ails: None,
                };
                machine.containers.insert(task, container);
                Event::Prepared(Ok(format!("c{task}")))
            }
            Action::Start => Event::Started(match machine.containers.get_mut(&task) {
                Some(container) => {
                    if !container.runs() {
                        container.observation = Observation::Running {
                            pid: 1,
                            health: Health::Unprobed,
                        };
                    }
                    Ok(1)
                }
                None => Err(gone()),
            }),
            Action::Connect { .. } => {
                if !has_networks(&machine.kernel.state, &wish) {
                    if doing.begun + NETWORK_LIMIT > air.now {
                        doing.due = air.now + 50;
                        self.doing.insert(task, doing);
                        return;
                    }
                    Event::Connected(Err(lasting("the networks do not come")))
                } else if let Some(container) = machine.containers.get_mut(&task) {
                    machine.kernel.sandboxes.insert(task);
                    let mut health = Health::Unprobed;
                    if container.runs() && container.ends.is_none() {
                        match image {
                            "crash" => container.ends = Some((air.now + 300, 3)),
                            "job" => container.ends = Some((air.now + 300, 0)),
                            "unhealthy" => {
                                health = Health::Starting;
                                container.ails = Some(air.now + 700);
                            }
                            _ => {}
                        }
                    }
                    Event::Connected(Ok(health))
                } else {
                    Event::Connected(Err(gone()))
                }
            }
            Action::Inspect => {
                let found = machine.containers.get(&task);
                let found = found.map(|container| container.observation.clone());
                Event::Observed(Ok(found.unwrap_or(Observation::Missing)))
            }
            Action::Stop { .. } => {
                if machine.containers.get(&task).is_some_and(Container::runs) {
                    doing.due = air.now + 20;
                    self.doing.insert(task, doing);
                    return;
                }
                Event::Stopped(Ok(143))
            }
            Action::Remove => {
                machine.containers.remove(&task);
                Event::Removed(Ok(()))
            }
        };
        self.event(task, event, machine, air);
    }

    /// What the engine has against what the worker knows.
    pub(super) fn look_at_everything(&mut self, machine: &mut Machine, air: &mut Air<'_>) {
        let found: Vec<(TaskId, Observation)> = machine
            .containers
            .iter()
            .map(|(task, container)| (*task, container.observation.clone()))
            .collect();
        for (task, observation) in found {
            if self.worker.machine(&task).is_some() {
                self.observe(task, observation, machine, air);
            } else if self.knows_all {
                machine.containers.remove(&task);
            }
        }
        let missing: Vec<TaskId> = self
            .worker
            .machines()
            .filter(|(task, held)| {
                held.container().is_some() && !machine.containers.contains_key(task)
            })
            .map(|(task, _)| *task)
            .collect();
        for task in missing {
            self.observe(task, Observation::Missing, machine, air);
        }
    }
}
