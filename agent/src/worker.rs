//! What this node must run, against what it runs.
//!
//! PURE. The worker holds one [`Machine`] per task. [`Worker::assign`] takes the manager's word and
//! answers with the actions that it leads to; [`Worker::event`] hands an event to its task.

use std::collections::{BTreeMap, BTreeSet};

use weft_types::{
    TaskId, TaskState, Timestamp,
    task::{Task, TaskStatus},
};

use crate::task::{Action, Event, Machine};

/// All tasks of this node.
#[derive(Debug, Default)]
pub struct Worker {
    machines: BTreeMap<TaskId, Machine>,
    /// Tasks whose assignment or status differs from what the journal holds.
    unsaved: BTreeSet<TaskId>,
}

/// What a step led to.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// To do, at most one per task.
    pub actions: Vec<(TaskId, Action)>,
    /// Tasks whose status changed.
    pub reports: Vec<(TaskId, TaskStatus)>,
}

/// Which part of the picture an assignment gives.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assignment {
    /// Everything: tasks that are not named must go.
    pub complete: bool,
    /// New or changed.
    pub tasks: Vec<Task>,
    /// Forgotten by the manager.
    pub removed: Vec<TaskId>,
}

impl Worker {
    /// Takes up the tasks of an earlier life, as the journal has them.
    pub fn adopt(&mut self, journal: Vec<(Task, TaskStatus)>, now: Timestamp) -> Outcome {
        let mut outcome = Outcome::default();
        for (task, status) in journal {
            let id = task.id;
            let (machine, action) = Machine::adopt(task, status, now);
            outcome.reports.push((id, machine.status().clone()));
            outcome.actions.extend(action.map(|action| (id, action)));
            self.machines.insert(id, machine);
        }
        outcome
    }

    /// Takes the manager's word.
    pub fn assign(&mut self, assignment: Assignment, now: Timestamp) -> Outcome {
        let mut outcome = Outcome::default();
        let named: BTreeSet<TaskId> = assignment.tasks.iter().map(|task| task.id).collect();
        let mut forgotten: BTreeSet<TaskId> = assignment.removed.into_iter().collect();
        if assignment.complete {
            let held = self.machines.keys();
            forgotten.extend(held.filter(|id| !named.contains(id)));
        }
        // An attachment is an address for a user's own container: there is nothing to run.
        let run = |task: &Task| task.spec.network_attachment_spec.is_none();
        for task in assignment.tasks.into_iter().filter(run) {
            self.assign_task(task, now, &mut outcome);
        }
        for id in forgotten.difference(&named) {
            self.step(*id, Event::Forgotten, now, &mut outcome);
        }
        outcome
    }

    /// Takes an event of one task; one of an unknown task is late news.
    pub fn event(&mut self, id: TaskId, event: Event, now: Timestamp) -> Outcome {
        let mut outcome = Outcome::default();
        self.step(id, event, now, &mut outcome);
        outcome
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Timestamp) -> Outcome {
        let mut outcome = Outcome::default();
        let due = self.machines.iter();
        let due: Vec<TaskId> = due
            .filter(|(_, machine)| machine.wake_at().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.step(id, Event::Tick, now, &mut outcome);
        }
        outcome
    }

    /// When [`Worker::tick`] is due.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.machines.values().filter_map(Machine::wake_at).min()
    }

    /// All machines.
    pub fn machines(&self) -> impl Iterator<Item = (&TaskId, &Machine)> {
        self.machines.iter()
    }

    /// One machine.
    #[must_use]
    pub fn machine(&self, id: &TaskId) -> Option<&Machine> {
        self.machines.get(id)
    }

    /// Tasks whose containers have, or may have, a network.
    #[must_use]
    pub fn sandboxes(&self) -> BTreeSet<TaskId> {
        let held = self.machines.iter();
        held.filter(|(_, machine)| machine.holds_sandbox())
            .map(|(id, _)| *id)
            .collect()
    }

    /// Tasks that the journal must write anew, or, where the machine is gone, remove.
    pub fn take_unsaved(&mut self) -> BTreeSet<TaskId> {
        std::mem::take(&mut self.unsaved)
    }

    fn assign_task(&mut self, task: Task, now: Timestamp, outcome: &mut Outcome) {
        let id = task.id;
        if let Some(machine) = self.machines.get(&id) {
            if machine.task() != &task {
                self.step(id, Event::Assigned(Box::new(task)), now, outcome);
            }
            return;
        }
        // A task that ended in an earlier life of this node's state: nothing is left to do for it.
        if task.status.state.is_terminal() && task.desired_state >= TaskState::Shutdown {
            return;
        }
        // One that was begun in an earlier life, of which the journal no longer tells: what runs is
        // taken up, not begun again, and stopped if it is to stop.
        let is_begun = (TaskState::Ready..TaskState::Complete).contains(&task.status.state)
            && task.status.container_status.is_some();
        let (machine, action) = if is_begun {
            let status = task.status.clone();
            Machine::adopt(task, status, now)
        } else {
            Machine::accept(task, now)
        };
        outcome.reports.push((id, machine.status().clone()));
        outcome.actions.extend(action.map(|action| (id, action)));
        self.machines.insert(id, machine);
        self.unsaved.insert(id);
    }

    fn step(&mut self, id: TaskId, event: Event, now: Timestamp, outcome: &mut Outcome) {
        let Some(machine) = self.machines.get_mut(&id) else {
            return;
        };
        let before = machine.status().clone();
        let keeps_word = !matches!(event, Event::Assigned(_));
        let action = machine.step(event, now);
        if *machine.status() != before {
            outcome.reports.push((id, machine.status().clone()));
            self.unsaved.insert(id);
        } else if !keeps_word {
            self.unsaved.insert(id);
        }
        if machine.is_gone() {
            self.machines.remove(&id);
            self.unsaved.insert(id);
        }
        outcome.actions.extend(action.map(|action| (id, action)));
    }
}
