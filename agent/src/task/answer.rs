//! What a machine makes of the answers to its actions.

use weft_types::{
    TaskState, Timestamp,
    service::PublishMode,
    task::{PortStatus, Task},
};

use super::{Action, Failure, Health, Machine, Observation, Stage};

impl Machine {
    pub(super) fn prepared(
        &mut self,
        result: Result<String, Failure>,
        now: Timestamp,
    ) -> Option<Action> {
        if self.stage != Stage::Preparing {
            return None;
        }
        match result {
            Ok(container_id) => {
                self.settled();
                self.container_mut().container_id = container_id;
                self.stage = Stage::Ready;
                self.status.err.clear();
                self.report(TaskState::Ready, "prepared", now);
                self.advance(now)
            }
            Err(failure) if failure.passing => {
                self.blame(failure.reason, now);
                self.retry(Action::Prepare, now)
            }
            Err(failure) => self.fail(failure.reason, now),
        }
    }

    pub(super) fn started(
        &mut self,
        result: Result<i64, Failure>,
        now: Timestamp,
    ) -> Option<Action> {
        if self.stage != Stage::Starting {
            return None;
        }
        match result {
            Ok(pid) => {
                self.settled();
                self.container_mut().pid = pid;
                self.stage = Stage::Connecting;
                if self.wants_stop() {
                    return self.stop(None);
                }
                Some(Action::Connect { pid })
            }
            Err(failure) if self.wants_stop() => {
                let _unstarted = failure;
                self.end(TaskState::Shutdown, "shutdown", now);
                self.clear()
            }
            Err(failure) if failure.passing => {
                self.blame(failure.reason, now);
                self.retry(Action::Start, now)
            }
            Err(failure) => self.fail(
                format!("starting container failed: {}", failure.reason),
                now,
            ),
        }
    }

    pub(super) fn connected(
        &mut self,
        result: Result<Health, Failure>,
        now: Timestamp,
    ) -> Option<Action> {
        if self.stage != Stage::Connecting {
            return None;
        }
        match result {
            Ok(health) => {
                self.stage = Stage::Probing;
                self.judge(health, now)
            }
            // A container without its network must not go on: another attempt may fare better.
            Err(failure) => {
                self.blame(failure.reason, now);
                self.stop(Some(""))
            }
        }
    }

    /// Takes a probe's verdict.
    fn judge(&mut self, health: Health, now: Timestamp) -> Option<Action> {
        match (health, &self.stage) {
            (Health::Unprobed | Health::Healthy, Stage::Probing) => {
                self.stage = Stage::Running;
                self.status.port_status = PortStatus {
                    ports: host_ports(&self.task),
                };
                self.report(TaskState::Running, "started", now);
                self.advance(now)
            }
            (Health::Unhealthy, Stage::Probing | Stage::Running) => {
                self.stop(Some("dockerexec: unhealthy container"))
            }
            _ => None,
        }
    }

    pub(super) fn observed(
        &mut self,
        result: Result<Observation, Failure>,
        now: Timestamp,
    ) -> Option<Action> {
        let adopting = self.stage == Stage::Adopting;
        let observation = match result {
            Ok(observation) => observation,
            Err(failure) if adopting && failure.passing => {
                return self.retry(Action::Inspect, now);
            }
            Err(failure) if adopting => return self.fail(failure.reason, now),
            Err(_) => return None,
        };
        match observation {
            Observation::Running { pid, .. } if adopting => {
                self.settled();
                self.container_mut().pid = pid;
                if self.status.state < TaskState::Starting {
                    self.report(TaskState::Starting, "starting", now);
                }
                self.stage = Stage::Connecting;
                Some(Action::Connect { pid })
            }
            Observation::Created if adopting => {
                self.stage = Stage::Ready;
                if self.status.state > TaskState::Ready && !self.wants_stop() {
                    // The agent was killed between the word and the deed.
                    self.stage = Stage::Starting;
                    return Some(Action::Start);
                }
                self.advance(now)
            }
            Observation::Created => None,
            Observation::Running { health, .. } => self.judge(health, now),
            Observation::Missing => self.missing(now),
            Observation::Exited { code, error } => self.exited(code, &error, now),
        }
    }

    fn missing(&mut self, now: Timestamp) -> Option<Action> {
        match self.stage {
            Stage::Adopting
            | Stage::Ready
            | Stage::Starting
            | Stage::Connecting
            | Stage::Probing
            | Stage::Running
            | Stage::Withdrawing(_)
            | Stage::Draining(_) => {
                let id = self.container().unwrap_or_default().to_owned();
                self.fail(format!("No such container: {id}"), now)
            }
            Stage::Accepted
            | Stage::Preparing
            | Stage::Stopping(_)
            | Stage::Ended
            | Stage::Removing
            | Stage::Gone => None,
        }
    }

    fn exited(&mut self, code: i64, error: &str, now: Timestamp) -> Option<Action> {
        match self.stage {
            Stage::Adopting
            | Stage::Connecting
            | Stage::Probing
            | Stage::Running
            | Stage::Withdrawing(_)
            | Stage::Draining(_) => {}
            // Its start's answer is on the way and says more.
            Stage::Starting => return None,
            // Its stop's answer is on the way.
            Stage::Stopping(_) => return None,
            Stage::Accepted
            | Stage::Preparing
            | Stage::Ready
            | Stage::Ended
            | Stage::Removing
            | Stage::Gone => return None,
        }
        self.container_mut().exit_code = code;
        if self.wants_stop() {
            self.end(TaskState::Shutdown, "shutdown", now);
            return self.clear();
        }
        if code == 0 && error.is_empty() {
            self.end(TaskState::Complete, "finished", now);
            return self.clear();
        }
        self.fail(exit_reason(code, error), now)
    }

    pub(super) fn stopped(
        &mut self,
        result: Result<i64, Failure>,
        now: Timestamp,
    ) -> Option<Action> {
        let Stage::Stopping(cause) = self.stage else {
            return None;
        };
        match result {
            Ok(code) => {
                self.settled();
                self.container_mut().exit_code = code;
                match cause {
                    None => {
                        self.end(TaskState::Shutdown, "shutdown", now);
                        self.clear()
                    }
                    Some(_) if self.wants_stop() => {
                        self.end(TaskState::Shutdown, "shutdown", now);
                        self.clear()
                    }
                    Some("") => {
                        let reason = std::mem::take(&mut self.status.err);
                        self.fail(reason, now)
                    }
                    Some(cause) => self.fail(exit_reason(code, cause), now),
                }
            }
            Err(_) => {
                let grace = self.grace();
                self.retry(Action::Stop { grace }, now)
            }
        }
    }

    pub(super) fn removed(
        &mut self,
        result: Result<(), Failure>,
        now: Timestamp,
    ) -> Option<Action> {
        if self.stage != Stage::Removing {
            return None;
        }
        match result {
            Ok(()) => {
                self.settled();
                self.stage = Stage::Gone;
                None
            }
            Err(_) => self.retry(Action::Remove, now),
        }
    }
}

fn exit_reason(code: i64, error: &str) -> String {
    if error.is_empty() {
        format!("task: non-zero exit ({code})")
    } else {
        format!("task: non-zero exit ({code}): {error}")
    }
}

fn host_ports(task: &Task) -> Vec<weft_types::service::PortConfig> {
    let ports = task.ports.iter();
    ports
        .filter(|port| port.publish_mode == PublishMode::Host)
        .cloned()
        .collect()
}
